"""Which designs the cost bound stops: bounds by hand in place of those of a machine."""

from __future__ import annotations

import pytest

from soniq_dse.cost.bounds import LatencyBounds
from soniq_dse.explore import Options, _plan
from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.palette import Palette

TEMPLATE = Candidate(
    model="m",
    data="d",
    data_sha256="0",
    palette=Palette.parse("w8a8"),
    schedule=Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1),
)


def stopped(monkeypatch: pytest.MonkeyPatch, **bounds: tuple[float, float]) -> dict[str, str]:
    """Names of the stopped ones of designs given as ``w1a1_w4a4=(low_us, high_us)``, with the reason."""
    by_palette = {name.replace("_", "+"): LatencyBounds(*pair) for name, pair in bounds.items()}
    monkeypatch.setattr(_plan, "estimate", lambda *_, **__: None)
    monkeypatch.setattr(_plan, "uniform_assignment", lambda *_: None)
    monkeypatch.setattr(_plan, "latency_bounds", lambda _workload, _uniform, palette, _budget: by_palette[palette.name])
    candidates = [TEMPLATE.model_copy(update={"palette": Palette.parse(name)}) for name in by_palette]
    return _plan._hopeless(Options(), None, None, candidates)  # type: ignore[arg-type]


def test_a_design_slower_at_best_than_a_wider_one_at_worst_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    found = stopped(monkeypatch, w1a1=(10.0, 10.0), w2a2=(5.0, 9.0), w8a8=(20.0, 20.0))  # 1.1 * 9 < 10
    assert found == {
        "w1a1": "stopped by the cost bound: at least 10 us, while w2a2, nowhere narrower, takes at most 9 us"
    }


def test_close_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stopped(monkeypatch, w1a1=(10.0, 10.0), w2a2=(5.0, 9.2)) == {}  # 1.1 * 9.2 > 10


def test_a_narrower_rival_stops_none_however_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    # w4a1 and w1a4: neither is as wide as the other.
    assert stopped(monkeypatch, w1a1=(1.0, 1.0), w1a4=(1.0, 1.0), w4a1=(9.0, 9.0), w4a4=(100.0, 100.0)) == {}


def test_a_mixed_rival_counts_by_its_narrowest_level(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stopped(monkeypatch, w1a1_w4a4=(1.0, 2.0), w2a2=(50.0, 50.0)) == {}
    assert list(stopped(monkeypatch, w2a2_w4a4=(1.0, 2.0), w2a2=(50.0, 50.0))) == ["w2a2"]
    assert list(stopped(monkeypatch, w2a2_w4a4=(50.0, 60.0), w4a4=(1.0, 2.0))) == ["w2a2+w4a4"]
