"""Measured figures brought up to date in a descriptor that belongs to its user: nothing else of the file changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soniq_dse.errors import UserError
from soniq_dse.hardware.calibrate import FieldKey, add_source, calibration_source, measured_figures
from soniq_dse.hardware.document import parse_document
from soniq_dse.hardware.host import match_host
from soniq_dse.hardware.load import EXTENDS, load_hardware, read_resolved, validated
from soniq_dse.hardware.survey import Survey
from soniq_dse.hardware.writing import dumped, editable_tree, leading_comment, replace_file, styled, tidied
from soniq_dse.records.cost import Host
from soniq_dse.records.hardware import Figure, HardwareModel

SPREADS = 3
"""A change of more than so many spreads, old and new ones together, is more than noise."""


@dataclass(frozen=True)
class Change:
    """A figure before (None: the descriptor had none) and after, by its place in the descriptor.

    ``spread`` is the spread of both.
    """

    figure: str
    old: float | None
    old_kind: str
    new: float
    spread: float

    @property
    def percent(self) -> float | None:
        """By how much it changed; None from 0 or from nothing."""
        return 100 * (self.new / self.old - 1) if self.old else None

    @property
    def beyond_spread(self) -> bool:
        """Whether it changed by more than noise explains."""
        return self.old is None or abs(self.new - self.old) > SPREADS * self.spread


def own_descriptor(path: Path, host: Host) -> HardwareModel:
    """The valid descriptor ``path``, which speaks of ``host``.

    Raises:
        UserError: there is none, or it describes another machine.
    """
    hw = load_hardware(path)
    matches, reason = match_host(hw, host)
    if not matches:
        raise UserError(
            f"{path}: expected a descriptor of this machine, got another one's ({reason}); "
            "`soniq-dse hw calibrate --out NEW.yaml` writes one"
        )
    return hw


def update(path: Path, survey: Survey) -> tuple[Change, ...]:
    """Replace every figure of ``path`` that ``survey`` measured; comments, order and the rest stay.

    A figure that the file takes from the one it extends is written into the file. Of instructions that the descriptor
    does not list at a width, nothing is added.

    Raises:
        UserError: the file is not valid, or would not be with the new figures; it is then left as it is.
    """
    hw = load_hardware(path)
    resolved = read_resolved(path).value
    tree = editable_tree(path, resolve=False)
    sources = dict(hw.sources)
    source = calibration_source(survey)
    key = add_source(sources, "calibration", source)
    changes = []
    for place, figure in measured_figures(survey, key).items():
        old = _found(resolved, place)
        if old is None and not isinstance(_found(resolved, place[:-1]), dict):
            continue
        old = old or {}
        spread = (figure.spread or 0.0) + float(old.get("spread") or 0.0)
        before = float(old["value"]) if old else None
        changes.append(Change(".".join(map(str, place)), before, str(old.get("kind", "absent")), figure.value, spread))
        _put(tree, resolved, place, _entry(figure, old, extends=EXTENDS in tree))
    if changes and key not in hw.sources:
        entry = styled({name: value for name, value in source.model_dump().items() if value is not None})
        tree.setdefault("sources", styled({}))[key] = entry
    text = leading_comment(path) + dumped(tree)
    _check(path, text)
    replace_file(path, text)
    return tuple(changes)


def _check(path: Path, text: str) -> None:
    """Refuse a text that would not be valid in place of ``path``."""
    document = read_resolved(path, read=lambda file: parse_document(str(file), text) if file == path else _read(file))
    validated(document, HardwareModel)


def _read(file: Path) -> Any:
    from soniq_dse.hardware.document import read_document

    return read_document(file)


def _entry(figure: Figure, old: Mapping[str, Any], *, extends: bool) -> dict[str, Any]:
    """The figure's fields; in a file that extends another, null takes away what the other one says besides."""
    new = tidied(figure.model_dump())
    return {**new, **{name: None for name in old if name not in new}} if extends else new


def _found(tree: Any, place: FieldKey) -> Any:
    for part in place:
        if isinstance(tree, list):
            tree = next((item for item in tree if item.get("name") == part), None)
        elif isinstance(tree, dict):
            tree = tree.get(part, tree.get(str(part)))
        else:
            return None
    return tree


def _put(tree: Any, resolved: Any, place: FieldKey, entry: Mapping[str, Any]) -> None:
    """Set the figure at ``place``; lists replace as a whole, so one that the file does not hold is copied into it."""
    for part in place[:-1]:
        resolved_inner = _found(resolved, (part,))
        inner = _found(tree, (part,))
        if inner is None:
            inner = styled(resolved_inner if isinstance(resolved_inner, list) else {})
            tree[part] = inner
        tree, resolved = inner, resolved_inner
    old = tree.get(place[-1])
    if isinstance(old, dict):
        old.clear()
        old.update(entry)
    else:
        tree[place[-1]] = styled(dict(entry))
