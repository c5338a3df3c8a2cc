"""Rules of a descriptor that span fields: known ports, instructions and sources, sorted caches, plausible figures.

They read the plain document, not the record, so that they speak even where the schema has found errors elsewhere; what
has the wrong type they pass over, and where a whole table is missing, that is the one error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from soniq_dse.errors import nearest
from soniq_dse.hardware.document import Document, FieldPath
from soniq_dse.hardware.schema_errors import shown, unit_of

PLAUSIBLE: dict[str, tuple[float, float]] = {
    "clock_ghz": (0.05, 10),
    "cores": (1, 4096),
    "issue_width": (1, 64),
    "reorder_buffer_entries": (1, 65536),
    "scheduler_entries": (1, 65536),
    "latency_cycles": (0, 5000),
    "reciprocal_throughput_cycles": (0.01, 5000),
    "size_bytes": (256, 2**40),
    "usable_share": (0.01, 1),
    "line_bytes": (8, 4096),
    "shared_by_cores": (1, 4096),
    "read_bytes_per_cycle": (0.1, 65536),
    "read_gb_per_s_one_core": (0.01, 100_000),
    "read_gb_per_s_all_cores": (0.01, 1_000_000),
    "latency_ns": (0.1, 100_000),
    "call_ns": (0, 10_000_000),
    "energy_pj": (0, 1_000_000_000),
    "registers": (1, 4096),
    "k_group": (1, 65536),
    "min_width_bits": (1, 65536),
    "samples": (1, 1_000_000_000),
    "family": (0, 65535),
    "macs_per_width_bit": (1e-6, 1e6),
    "lanes_per_width_bit": (1e-6, 1e6),
    "cycles": (0.01, 1000),
    "multiprocessors": (1, 4096),
    "macs_per_cycle": (1, 1e7),
    "issue_warps_per_cycle": (1, 64),
    "registers_total": (1024, 2**24),
    "registers_per_thread_max": (1, 4096),
    "threads_max": (32, 65536),
    "blocks_max": (1, 4096),
    "shared_size_bytes": (1024, 2**30),
    "shared_bytes_per_cycle": (1, 65536),
    "read_gb_per_s": (1, 1_000_000),
    "sustained_share": (0.1, 1),
    "launch_us": (0, 1000),
}
"""Field -> the range outside which a figure is surely in another unit or a slip of the pen."""

_Found = Iterator[tuple[FieldPath, str]]


def check(document: Document) -> None:
    """Note what breaks a rule in ``document``."""
    for rules, at_key in ((_VALUE_RULES, False), (_KEY_RULES, True)):
        for rule in rules:
            for path, message in rule(document.value):
                document.add(path, message, at_key=at_key)


def _mapping(value: Any, *path: str) -> dict[str, Any]:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _words(value: Any) -> list[str]:
    return [item for item in _list(value) if isinstance(item, str)]


def _number(value: Any) -> float | None:
    """The number, bare or of a figure."""
    value = value.get("value") if isinstance(value, dict) else value
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _walk(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _walk(inner, (*path, key))


def _figures(hw: dict[str, Any]) -> _Found:
    for path, value in _walk(hw):
        limits, number = PLAUSIBLE.get(str(path[-1])) if path else None, _number(value)
        if limits and number is not None and not limits[0] <= number <= limits[1] and math.isfinite(number):
            unit = unit_of(path)
            place = (*path, "value") if isinstance(value, dict) else path
            hint = "; is it in MHz?" if unit == "GHz" and 50 <= number <= 10_000 else ""
            yield (
                place,
                f"expected {limits[0]:g} to {limits[1]:g}{f' {unit}' if unit else ''}, got {shown(number)}{hint}",
            )


def _sources(hw: dict[str, Any]) -> _Found:
    known = _mapping(hw, "sources")
    for path, value in _walk(hw):
        is_key = path and path[-1] in ("source", "ports_source") and isinstance(value, str)
        if is_key and known and value.strip() not in known:
            yield path, f"expected a key of sources, got {shown(value)}{nearest(value, known)}"


def _caches(hw: dict[str, Any]) -> _Found:
    before: dict[str, Any] = {}
    for index, cache in enumerate(map(_mapping, _list(hw.get("caches")))):
        if cache.get("name") != f"L{index + 1}":
            yield (
                ("caches", index, "name"),
                f"expected 'L{index + 1}' (caches from the core outwards), got {shown(cache.get('name'))}",
            )
        for field in ("size_bytes", "latency_cycles"):
            inner, outer = _number(before.get(field)), _number(cache.get(field))
            if inner is not None and outer is not None and outer <= inner:
                yield (
                    ("caches", index, field, "value"),
                    f"expected more than the {inner:g} of the cache before it (sorted outwards), got {outer:g}",
                )
        before = cache


def _ports(hw: dict[str, Any]) -> _Found:
    yield from _distinct(hw, "ports", "name")
    yield from _distinct(hw, "simd", "width_bits")


def _distinct(hw: dict[str, Any], field: str, key: str) -> _Found:
    seen: list[Any] = []
    for index, entry in enumerate(_list(hw.get(field))):
        value = entry.get(key) if isinstance(entry, dict) else None
        if value is not None and value in seen:
            yield (field, index, key), f"expected each {key} of {field} once, got {shown(value)} again"
        seen.append(value)


def _micro_ops(hw: dict[str, Any]) -> _Found:
    known = [
        entry["name"]
        for entry in _list(hw.get("ports"))
        if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    ]
    for mnemonic, instruction in _mapping(hw, "instructions").items():
        for width, timing in _mapping(instruction, "widths").items():
            for index, micro_op in enumerate(_list(_mapping(timing).get("micro_ops"))):
                for place, port in enumerate(_words(_mapping(micro_op).get("ports"))):
                    if known and port not in known:
                        path = ("instructions", mnemonic, "widths", width, "micro_ops", index, "ports", place)
                        yield path, f"expected a name of ports, got {shown(port)}{nearest(port, known)}"


def _widths(hw: dict[str, Any]) -> _Found:
    simd = {str(entry.get("width_bits")) for entry in _list(hw.get("simd")) if isinstance(entry, dict)}
    known = simd | {"0"}
    for mnemonic, instruction in _mapping(hw, "instructions").items():
        for width in _mapping(instruction, "widths"):
            if simd and width not in known:
                choices = ", ".join(sorted(known, key=lambda text: (len(text), text)))
                path = ("instructions", mnemonic, "widths", width)
                yield path, f"expected a width_bits of simd, or 0 for scalar ({choices}), got {shown(width)}"


def _instructions(hw: dict[str, Any]) -> _Found:
    """Features that a SIMD width or an instruction needs are features of the machine."""
    known = _words(hw.get("features"))
    needs: list[tuple[FieldPath, Any]] = [
        (("simd", index, "features"), entry.get("features"))
        for index, entry in enumerate(_list(hw.get("simd")))
        if isinstance(entry, dict)
    ]
    needs += [
        (("instructions", mnemonic, "features"), _mapping(instruction).get("features"))
        for mnemonic, instruction in _mapping(hw, "instructions").items()
    ]
    for path, features in needs:
        for index, feature in enumerate(_words(features)):
            if "features" in hw and feature not in known:
                yield (
                    (*path, index),
                    f"expected one of the machine's features, got {shown(feature)}{nearest(feature, known)}",
                )


def _recipe_mnemonics(hw: dict[str, Any]) -> _Found:
    known = _mapping(hw, "instructions")
    for name, recipe in _mapping(hw, "recipes").items():
        for mnemonic in _mapping(recipe, "instructions"):
            if known and mnemonic not in known:
                path = ("recipes", name, "instructions", mnemonic)
                yield path, f"expected a mnemonic of instructions, got {shown(mnemonic)}{nearest(mnemonic, known)}"


def _recipe_widths(hw: dict[str, Any]) -> _Found:
    widest = max((w for e in _list(hw.get("simd")) if (w := _number(_mapping(e).get("width_bits")))), default=0)
    for name, recipe in _mapping(hw, "recipes").items():
        least = _number(_mapping(recipe).get("min_width_bits"))
        if least is not None and widest and least > widest:
            yield (
                ("recipes", name, "min_width_bits"),
                f"expected at most the widest simd width {widest:g}, got {least:g}",
            )


_VALUE_RULES = (_figures, _sources, _caches, _ports, _micro_ops, _instructions, _recipe_widths)
_KEY_RULES = (_widths, _recipe_mnemonics)
