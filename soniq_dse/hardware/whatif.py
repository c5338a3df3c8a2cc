"""What if this machine were another: settings of a descriptor's fields, or of what a core is asked about most.

A setting names a field by its path (``memory.read_gb_per_s_one_core``, ``caches.L2.size_bytes``,
``instructions.vpshufb.widths.256.latency_cycles``) or one of the ``KNOBS``, which change several fields at once.
A figure that is set becomes ``assumed`` and says what it was; the result describes no processor, so that nothing
measured is ever held against it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

from soniq_dse.errors import UserError, nearest
from soniq_dse.hardware.document import DescriptorError, Document
from soniq_dse.hardware.load import AnyMachine, validated
from soniq_dse.hardware.render import source_keys
from soniq_dse.hardware.schema_errors import shown, unit_of
from soniq_dse.records.hardware import HardwareModel, SimdWidth, Source

_SOURCE = "what_if"
_KEYS = ("name", "operation", "width_bits")
"""By which of its fields an entry of a list is named in a path."""
_Tree = dict[str, Any]


def what_if(hw: AnyMachine, settings: Sequence[str]) -> AnyMachine:
    """``hw`` with ``settings`` (``FIELD=VALUE``), applied from left to right; ``hw`` itself without any.

    Raises:
        UserError: a setting names no field or no number, or the machine would not be a valid one.
    """
    if not settings:
        return hw
    tree: _Tree = json.loads(hw.model_dump_json(exclude_none=True))
    tree["sources"][_SOURCE] = Source(title="What if: set by hand, not measured").model_dump(exclude_none=True)
    for setting in settings:
        name, value = _parsed(setting)
        if name in KNOBS and isinstance(hw, HardwareModel):
            KNOBS[name](tree, setting, value)
        else:
            _set_field(tree, setting, name, value)
    tree["title"] = f"{hw.title}; what if {', '.join(settings)}"[:200]
    tree["matches"] = []
    if _SOURCE not in source_keys(tree):
        del tree["sources"][_SOURCE]
    try:
        return validated(Document(f"{hw.name} --set", tree), type(hw))
    except DescriptorError as error:
        first = error.problems[0]
        raise UserError(f"what if {', '.join(settings)}: {first.field}: {first.message}") from error


def _parsed(setting: str) -> tuple[str, float]:
    name, equals, text = setting.partition("=")
    try:
        if equals and name.strip():
            return name.strip(), float(text)
    except ValueError:
        pass
    unit = unit_of((name.strip(),))
    raise UserError(
        f"what if {setting}: expected FIELD=NUMBER such as simd_width_bits=1024 or memory.latency_ns=80, "
        f"got {shown(text) if equals else 'no ='}{f'; the number is in {unit}' if unit else ''}"
    )


def _set_field(tree: _Tree, setting: str, path: str, value: float) -> None:
    owner, key = _found(tree, setting, path)
    if isinstance(owner[key], dict) and "value" in owner[key]:
        owner[key] = _assumed(owner[key], value)
    elif isinstance(owner[key], int | float) and not isinstance(owner[key], bool):
        owner[key] = _number(value)
    else:
        inner = [f"{path}.{name}" for name in _paths(owner[key], "")]
        raise UserError(f"what if {setting}: expected the field of a number, got {path}{nearest(path, inner)}")


def _found(tree: _Tree, setting: str, path: str) -> tuple[Any, Any]:
    """The mapping or list that holds the field ``path``, and its key there. Names may themselves hold dots."""
    owner, key, rest = tree, "", path
    node: Any = tree
    while rest:
        choices = dict(_children(node))
        part = max((name for name in choices if rest == name or rest.startswith(f"{name}.")), key=len, default=None)
        if part is None or choices[part][1] is None:
            known = [*(KNOBS if tree["kind"] == "cpu" else ()), *_paths(tree, "")]
            raise UserError(
                f"what if {setting}: expected a field of the descriptor, got {path!r}{nearest(path, known)}"
            )
        owner, key, rest = node, choices[part][0], rest[len(part) + 1 :]
        node = choices[part][1]
    return owner, key


def _children(node: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(name in a path, (key or index, value)) of what ``node`` holds; a figure holds nothing that can be set apart."""
    if isinstance(node, dict) and "value" not in node:
        for key, value in node.items():
            yield str(key), (key, value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            names = (value.get(key) for key in _KEYS) if isinstance(value, dict) else ()
            yield str(next((name for name in names if name is not None), index)), (index, value)


def _paths(node: Any, prefix: str) -> Iterator[str]:
    """The paths below ``node`` whose field is a number."""
    for name, (_, value) in _children(node):
        path = f"{prefix}{name}"
        is_figure = isinstance(value, dict) and "value" in value
        if is_figure or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield path
        else:
            yield from _paths(value, f"{path}.")


def _assumed(figure: _Tree, value: float, reason: str = "") -> _Tree:
    note = reason or f"set by hand; it was {figure['value']:g} ({figure['kind']}, {figure['source']})"
    return {"value": _number(value), "kind": "assumed", "source": _SOURCE, "note": note}


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _simd_width(tree: _Tree, setting: str, value: float) -> None:
    """Every vector instruction at a new width: as many cycles as at the widest now, so twice the work at twice the
    width. The nearest cache delivers in proportion; the others are set apart. A narrower width drops the wider ones."""
    valid = get_args(SimdWidth.model_fields["width_bits"].annotation)
    if value not in valid:
        raise UserError(f"what if {setting}: expected one of {', '.join(map(str, valid))} bits, got {value:g}")
    new, before = int(value), max(simd["width_bits"] for simd in tree["simd"])
    loads_before = _load_rate(tree, before)
    if new > before:
        widest = next(simd for simd in tree["simd"] if simd["width_bits"] == before)
        tree["simd"].append({**widest, "width_bits": new})
        for instruction in tree["instructions"].values():
            timing = instruction["widths"].get(str(before))
            if timing is not None:
                instruction["widths"][str(new)] = _as_at(timing, before)
    else:
        tree["simd"] = [simd for simd in tree["simd"] if simd["width_bits"] <= new]
        for instruction in tree["instructions"].values():
            instruction["widths"] = {bits: t for bits, t in instruction["widths"].items() if int(bits) <= new}
        _drop_what_cannot_run(tree, new)
    loads = _load_rate(tree, new) / loads_before
    cache, rate = tree["caches"][0], tree["caches"][0]["read_bytes_per_cycle"]
    cache["read_bytes_per_cycle"] = _assumed(rate, rate["value"] * loads, f"as loads of {new} bits deliver")


def _load_rate(tree: _Tree, width_bits: int) -> float:
    """Bits a cycle that loads of a width bring; the width where the descriptor does not time them."""
    timing = tree["instructions"].get("load", {"widths": {}})["widths"].get(str(width_bits))
    return width_bits / (timing["reciprocal_throughput_cycles"]["value"] if timing else 1.0)


def _as_at(timing: _Tree, width_bits: int) -> _Tree:
    made = {**timing, "ports_kind": "assumed", "ports_source": _SOURCE}
    for name in ("latency_cycles", "reciprocal_throughput_cycles"):
        if timing.get(name):
            made[name] = _assumed(timing[name], timing[name]["value"], f"as at {width_bits} bits")
    return made


def _drop_what_cannot_run(tree: _Tree, width_bits: int) -> None:
    tree["instructions"] = {name: entry for name, entry in tree["instructions"].items() if entry["widths"]}
    tree["recipes"] = {
        name: recipe
        for name, recipe in tree["recipes"].items()
        if recipe["instructions"].keys() <= tree["instructions"].keys() and recipe["min_width_bits"] <= width_bits
    }


def _port_count(role: str) -> Callable[[_Tree, str, float], None]:
    """A knob that sets how many ports of ``role`` there are: a new one is like the first and takes what that one takes,
    and of those dropped the work moves to the first."""

    def change(tree: _Tree, setting: str, value: float) -> None:
        have = [port["name"] for port in tree["ports"] if port["role"] == role]
        if value != int(value) or not 1 <= value <= 64:
            raise UserError(f"what if {setting}: expected a whole number of ports from 1 to 64, got {value:g}")
        if not have:
            raise UserError(f"what if {setting}: expected a machine with {role} ports, got one that lists none")
        wanted = int(value)
        new = [f"{role}_{i}" for i in range(len(have), wanted)]
        dropped = set(have[wanted:])
        tree["ports"] = [port for port in tree["ports"] if port["name"] not in dropped]
        tree["ports"] += [{"name": name, "role": role} for name in new]
        for instruction in tree["instructions"].values():
            for timing in instruction["widths"].values():
                _move(timing, have[0], dropped, new)

    return change


def _move(timing: _Tree, first: str, dropped: set[str], new: Sequence[str]) -> None:
    """Give a timing's micro-operations the ports that are left, or the new ones as well."""
    changed = False
    for micro_op in [*timing["micro_ops"], *(timing.get("from_memory") or ())]:
        before = list(micro_op["ports"])
        ports = [port for port in before if port not in dropped] or [first]
        ports += [*new] if first in before else []
        micro_op["ports"] = ports
        changed |= ports != before
    if changed:
        timing |= {"ports_kind": "assumed", "ports_source": _SOURCE}


KNOBS: dict[str, Callable[[_Tree, str, float], None]] = {
    "simd_width_bits": _simd_width,
    **{f"ports.{role}": _port_count(role) for role in ("load", "store", "vector", "scalar")},
}
"""Settings that change several fields, each by its name."""
