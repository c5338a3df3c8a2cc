"""Pins as the user asks for them: ``--pin head=w4a4``, ``--first-last w4a4``; and the words for them."""

from __future__ import annotations

from collections.abc import Sequence

from soniq_dse.errors import UserError
from soniq_dse.records.design import Candidate
from soniq_dse.records.palette import Level
from soniq_dse.workloads.pins import Ends


def parse_pins(texts: Sequence[str]) -> dict[str, Level]:
    """Module path -> level, of texts like ``head=w4a4``.

    Raises:
        UserError: a text is none, or two of them name one module.
    """
    found: dict[str, Level] = {}
    for text in texts:
        module, equals, level = text.partition("=")
        if not (module and equals):
            raise UserError(f"--pin: expected MODULE=LEVEL such as head=w4a4, got {text!r}")
        if module in found:
            raise UserError(f"--pin: expected every module once, got {module} twice")
        found[module] = _level(f"--pin {module}", level)
    return found


def parse_ends(text: str | None) -> Ends:
    """What ``--first-last w4a4`` or ``none`` asks for; the 8 bits that it is anyway are None."""
    if text is None or text == "w8a8":
        return None
    level = None if text == "none" else _level("--first-last", text)
    if level is not None and level.is_weight_only:
        raise UserError(
            f"--first-last: expected a level with activation bits, got {text}; nearest valid choice: '{text}a8'"
        )
    return "free" if level is None else level


def words_of(candidate: Candidate) -> list[str]:
    """The options that ask for a candidate's pins."""
    ends = candidate.first_last
    words = [] if ends is None else ["--first-last", "none" if ends == "free" else ends.name]
    return words + [word for module, level in candidate.pins.items() for word in ("--pin", f"{module}={level.name}")]


def _level(option: str, name: str) -> Level:
    try:
        return Level.parse(name)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error
