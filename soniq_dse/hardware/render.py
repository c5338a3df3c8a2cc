"""A machine as tables for readers: every figure with its kind and source, and what follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from soniq_dse.hardware.schema_errors import unit_of
from soniq_dse.records.hardware import Figure, HardwareModel, InstructionTiming, NativeLevel


@dataclass(frozen=True)
class Sheet:
    """One table; ``columns`` maps a heading to ``left`` or ``right``."""

    title: str
    columns: dict[str, str]
    rows: list[list[str]]


def sheets(hw: HardwareModel, levels: Sequence[NativeLevel]) -> tuple[Sheet, ...]:
    """All tables of ``hw show``, the most asked first."""
    return (_levels(hw, levels), _reasons(levels), _widths(hw, levels), _figures(hw), _instructions(hw), _sources(hw))


def figures(hw: HardwareModel) -> Iterator[tuple[str, Figure]]:
    """Every figure of the machine with its path (``caches.L1.size_bytes``), instructions apart."""
    for name in ("clock_ghz", "issue_width", "reorder_buffer_entries", "scheduler_entries", "retire_width"):
        if getattr(hw, name) is not None:
            yield name, getattr(hw, name)
    for cache in hw.caches:
        for name in ("size_bytes", "usable_share", "read_bytes_per_cycle", "latency_cycles"):
            if getattr(cache, name) is not None:
                yield f"caches.{cache.name}.{name}", getattr(cache, name)
    for part in ("store_forwarding", "branches", "memory", "overhead"):
        record = getattr(hw, part)
        for name in type(record).model_fields if record else ():
            if getattr(record, name) is not None:
                yield f"{part}.{name}", getattr(record, name)
    for entry in hw.energy:
        yield f"energy.{entry.operation}.energy_pj", entry.energy_pj


def _columns(left: str, right: str = "", last: str = "") -> dict[str, str]:
    sides = ((left, "left"), (right, "right"), (last, "left"))
    return {heading: side for headings, side in sides for heading in headings.split("|") if heading}


def _levels(hw: HardwareModel, levels: Sequence[NativeLevel]) -> Sheet:
    rows = [
        [
            str(level.width_bits),
            level.level.name,
            level.recipe,
            f"{level.k_group} x {level.n_group}",
            f"{level.macs_per_cycle:.4g}",
            level.bound,
            _origin(hw.recipes.get(level.recipe)),
        ]
        for level in sorted(levels, key=lambda v: -v.width_bits)
    ]
    columns = _columns("", "SIMD bits") | _columns("level|recipe", "k group x n|MAC/cycle at most", "bound|recipe is")
    return Sheet("Native bit-widths, derived from the instructions and recipes", columns, rows)


def _reasons(levels: Sequence[NativeLevel]) -> Sheet:
    rows = [
        [str(level.width_bits), level.recipe, level.reason] for level in sorted(levels, key=lambda v: -v.width_bits)
    ]
    return Sheet("Why they are native", _columns("", "SIMD bits") | _columns("recipe|why"), rows)


def _widths(hw: HardwareModel, levels: Sequence[NativeLevel]) -> Sheet:
    rows = []
    for simd in sorted(hw.simd, key=lambda v: v.width_bits):
        at_width = sorted((v for v in levels if v.width_bits == simd.width_bits), key=lambda v: v.level.name)
        timed = sum(simd.width_bits in instruction.widths for instruction in hw.instructions.values())
        paddings = ", ".join(f"{v.level.name} {v.k_group}x{v.n_group}" for v in at_width) or "no native level"
        needs = ", ".join(simd.features)
        rows.append([str(simd.width_bits), str(simd.registers), f"{timed} of {len(hw.instructions)}", needs, paddings])
    columns = _columns("", "SIMD bits|registers|instructions") | _columns(
        "needs|padding per level: k group x output channels"
    )
    return Sheet("What each SIMD width changes", columns, rows)


def _figures(hw: HardwareModel) -> Sheet:
    rows = [
        [name, f"{f.value:g}", unit_of((name,)), f.kind, f.source, _statistics(f), f.note or ""]
        for name, f in figures(hw)
    ]
    return Sheet("Figures", _columns("figure", "value", "unit|kind|source|samples|note"), rows)


def _instructions(hw: HardwareModel) -> Sheet:
    rows = [
        [mnemonic, str(width) if width else "scalar", *_timing(timing)]
        for mnemonic, instruction in sorted(hw.instructions.items())
        for width, timing in sorted(instruction.widths.items())
    ]
    columns = _columns(
        "instruction", "SIMD bits|latency cycles|cycles each", "these are|micro-ops: ports x cycles|ports are"
    )
    return Sheet("Instructions", columns, rows)


def _timing(timing: InstructionTiming) -> list[str]:
    latency, throughput = timing.latency_cycles, timing.reciprocal_throughput_cycles
    micro_ops = " + ".join(
        "/".join(op.ports) + (f" x {op.cycles:g}" if op.cycles != 1 else "") for op in timing.micro_ops
    )
    return [
        f"{latency.value:g}" if latency else "-",
        f"{throughput.value:g}",
        "; ".join(dict.fromkeys(_origin(figure) for figure in (latency, throughput) if figure)),
        micro_ops,
        f"{timing.ports_kind} ({timing.ports_source})",
    ]


def _sources(hw: HardwareModel) -> Sheet:
    used = Counter(source_keys(hw.to_json_value()))
    rows = [
        [key, str(used[key]), source.title, str(source.year or ""), source.locator or "", source.url or ""]
        for key, source in hw.sources.items()
    ]
    return Sheet("Sources", _columns("source", "used", "title|year|where|url"), rows)


def source_keys(value: Any) -> Iterator[str]:
    """Every use of a source key below ``value``, plain JSON."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key in ("source", "ports_source") and isinstance(inner, str):
            yield inner
        else:
            yield from source_keys(inner)


def _origin(part: Any) -> str:
    return f"{part.kind} ({part.source})" if part else ""


def _statistics(figure: Figure) -> str:
    spread = f", MAD {figure.spread:g}" if figure.spread is not None else ""
    date = f", {figure.date}" if figure.date else ""
    return f"{figure.samples}{spread}{date}" if figure.samples else date.removeprefix(", ")
