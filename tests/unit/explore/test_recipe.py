"""What a user may say of training."""

from __future__ import annotations

import pytest

from soniq_dse.errors import UserError
from soniq_dse.explore._recipe import SETTINGS, schedule_of
from soniq_dse.records.design import Schedule

OWN = Schedule(baseline_epochs=3, noise_epochs=2, finetune_epochs=1, learning_rate=1e-3)


def test_settings_and_epochs_replace_the_models_own() -> None:
    got = schedule_of(OWN, (5, 6, 7), ("ema_decay=0.99", "augment = shift_flip", "warm_start=false"))
    want = {"baseline_epochs": 5, "noise_epochs": 6, "finetune_epochs": 7}
    want |= {"ema_decay": 0.99, "augment": "shift_flip", "warm_start": False}
    assert got == OWN.model_copy(update=want)
    assert schedule_of(OWN, None, ()) == OWN


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("ema_decay", "expected FIELD=VALUE like ema_decay=0.99, got 'ema_decay'"),
        ("ema_decoy=0.9", "field: expected a known name, got 'ema_decoy'; nearest valid choice: 'ema_decay'"),
        ("baseline_epochs=3", "field: expected a known name, got 'baseline_epochs'"),
        ("ema_decay=1", "ema_decay: expected less than 1, got '1'"),
        ("augment=mixup", "augment: expected 'none', 'shift' or 'shift_flip', got 'mixup'"),
        ("learning_rate=fast", "learning_rate: expected a valid number, .*got 'fast'"),
    ],
)
def test_what_is_wrong_is_named(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        schedule_of(OWN, None, (setting,))


def test_every_setting_has_a_line_in_the_guide() -> None:
    from pathlib import Path

    guide = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text()
    assert [name for name in SETTINGS if f"`{name}" not in guide] == []
