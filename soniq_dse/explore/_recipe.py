"""How designs are trained, as the user asked for it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from soniq_dse.errors import UserError, unknown_name
from soniq_dse.records.design import Schedule

EPOCHS = ("baseline_epochs", "noise_epochs", "finetune_epochs")
SETTINGS = tuple(name for name in Schedule.model_fields if name not in EPOCHS)
"""What ``FIELD=VALUE`` may set; epochs have an option of their own."""


def schedule_of(default: Schedule, epochs: tuple[int, int, int] | None, settings: Sequence[str]) -> Schedule:
    """``default`` with other epochs and with every setting ``FIELD=VALUE``.

    Raises:
        UserError: a field is not known, or its value is none that it takes.
    """
    values = default.model_dump() | dict(zip(EPOCHS, epochs or (), strict=False))
    for setting in settings:
        field, found, value = (part.strip() for part in setting.partition("="))
        if not found or not value:
            raise UserError(f"recipe: expected FIELD=VALUE like ema_decay=0.99, got {setting!r}")
        if field not in SETTINGS:
            raise unknown_name("recipe: field", field, SETTINGS)
        values[field] = value
    try:
        return Schedule.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Input should be ")
        raise UserError(f"recipe: {first['loc'][0]}: expected {said}, got {first['input']!r}") from error
