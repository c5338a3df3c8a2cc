"""pydantic's errors in the words of our error contract: expected, got, nearest valid choice, the unit of the field."""

from __future__ import annotations

import datetime
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from soniq_dse.errors import nearest
from soniq_dse.hardware.document import Document, FieldPath
from soniq_dse.records.hardware import Figure, FigureKind, HardwareModel

UNITS = {
    "_ghz": "GHz", "_mhz": "MHz", "_hz": "Hz", "_ns": "ns", "_us": "us", "_pj": "pJ", "_nj": "nJ", "_bytes": "bytes",
    "_kib": "KiB", "_kb": "kB", "_mib": "MiB", "_mb": "MB", "_bits": "bits", "_cycles": "cycles", "_entries": "entries",
    "_bytes_per_cycle": "bytes per cycle", "_gb_per_s_one_core": "GB/s", "_gb_per_s_all_cores": "GB/s",
    "_gb_per_s": "GB/s",
}  # fmt: skip
"""Suffix of a field's name -> its unit, longest match first."""
_FACTORS = {
    ("MHz", "GHz"): "divide by 1000", ("Hz", "GHz"): "divide by 1e9", ("us", "ns"): "multiply by 1000",
    ("nJ", "pJ"): "multiply by 1000", ("KiB", "bytes"): "multiply by 1024", ("kB", "bytes"): "multiply by 1000",
    ("MiB", "bytes"): "multiply by 1048576", ("MB", "bytes"): "multiply by 1e6",
}  # fmt: skip
KINDS = ("cpu", "gpu")
"""Of machine: each has a record of its own, whose schema knows but one."""
_BY_LENGTH = sorted(UNITS, key=len, reverse=True)


def explain(error: ValidationError, document: Document, record: type[BaseModel] = HardwareModel) -> None:
    """Note every error of ``error`` in ``document``, which should be a ``record``, at its place."""
    for item in error.errors(include_url=False, include_context=True):
        path = _document_path(item["loc"], document.value)
        at_key = item["type"] == "extra_forbidden" or item["loc"][-1:] == ("[key]",)
        document.add(path, _message(dict(item), path, record), at_key=at_key)


def unit_of(path: FieldPath) -> str:
    """The unit that the innermost field name of ``path`` carries; "" where it carries none."""
    for part in reversed(path):
        suffix = next((s for s in _BY_LENGTH if isinstance(part, str) and part.endswith(s)), None)
        if suffix:
            return UNITS[suffix]
    return ""


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return f"{'a mapping' if isinstance(value, dict) else 'a list'}{'' if value else ' without entries'}"
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _document_path(loc: tuple[int | str, ...], value: Any) -> FieldPath:
    """pydantic's location as a path of the document, whose mapping keys are all text."""
    path: list[str | int] = []
    for part in loc:
        if part == "[key]" and not (isinstance(value, dict) and "[key]" in value):
            break
        inner = str(part) if isinstance(value, dict) else part
        path.append(inner)
        if isinstance(value, dict):
            value = value.get(str(part))
        else:
            value = value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None
    return tuple(path)


def _message(item: dict[str, Any], path: FieldPath, record: type[BaseModel]) -> str:
    kind, got = item["type"], shown(item["input"])
    annotation = int if item["loc"][-1:] == ("[key]",) else _annotation_at(path, record)
    if kind == "missing":
        return f"expected {_described(annotation, path)}, got nothing: this field is required"
    if kind == "extra_forbidden":
        return _unknown_field(path, record)
    if kind == "literal_error":
        choices = list(KINDS) if path == ("kind",) else [str(choice) for choice in get_args(_bare(annotation))]
        return f"expected one of {', '.join(choices)}, got {got}{nearest(str(item['input']), choices)}"
    if kind == "string_pattern_mismatch":
        return f"expected a name of letters, digits and . _ + -, got {got}"
    if kind == "finite_number":
        return f"expected a finite number, got {got}"
    if kind.endswith(("_type", "_parsing", "_from_float")) or kind.startswith("date"):
        return f"expected {_described(annotation, path)}, got {got}{_unit_hint(item['input'], path)}"
    text = re.sub(r"^(Input|Value|Tuple|Dictionary|String) should ", "", str(item["msg"])).removeprefix("be ")
    return (
        f"expected it to be {text}, got {got}" if not text.startswith("have") else f"expected it to {text}, got {got}"
    )


def _unknown_field(path: FieldPath, record: type[BaseModel]) -> str:
    name, owner = str(path[-1]), _bare(_annotation_at(path[:-1], record))
    fields = list(owner.model_fields) if isinstance(owner, type) and issubclass(owner, BaseModel) else []
    if owner is record:
        fields.append("extends")
    hint = nearest(name, fields)
    near = re.search(r"nearest valid choice: '(.*)'", hint)
    rule = _FACTORS.get((unit_of((name,)), unit_of((near[1],)))) if near else None
    return f"expected a known field, got {name[:60]!r}{hint}{f' ({rule})' if rule else ''}"


def _unit_hint(got: Any, path: FieldPath) -> str:
    number = re.match(r"\s*([-+]?[0-9.]+)\s*([A-Za-z/]+)\s*$", got) if isinstance(got, str) else None
    if not number:
        return ""
    unit, wanted = number[2], unit_of(path)
    rule = _FACTORS.get((unit, wanted))
    return f"; leave the unit out{f' and {rule}' if rule else f': {number[1]}' if unit == wanted else ''}"


def _described(annotation: Any, path: FieldPath) -> str:
    """What a value of this type looks like in a descriptor."""
    bare = _bare(annotation)
    origin = get_origin(bare)
    if bare is Figure:
        unit = f" in {unit_of(path)}" if unit_of(path) else ""
        return f"a figure {{value: NUMBER{unit}, kind: {'|'.join(get_args(FigureKind))}, source: KEY}}"
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return f"a mapping of {', '.join(list(bare.model_fields)[:8])}"
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(bare)))}"
    if origin in (tuple, dict):
        return "a list" if origin is tuple else "a mapping"
    if bare in (int, float):
        unit = unit_of(path)
        return f"a {'whole ' if bare is int else ''}number{f' in {unit}' if unit else ''}"
    return {str: "text", datetime.date: "a date like 2026-01-31"}.get(bare, "a value")


def _bare(annotation: Any) -> Any:
    """The type within ``Annotated`` and ``| None``."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation


def _annotation_at(path: FieldPath, record: type[BaseModel]) -> Any:
    """The type of the field ``path`` of a descriptor; None where the schema has no such field."""
    annotation: Any = record
    for part in path:
        bare = _bare(annotation)
        if isinstance(bare, type) and issubclass(bare, BaseModel):
            found = bare.model_fields.get(str(part))
            annotation = found.annotation if found else None
        elif get_origin(bare) is tuple:
            annotation = get_args(bare)[0]
        elif get_origin(bare) is dict:
            annotation = get_args(bare)[1]
        else:
            return None
    return annotation
