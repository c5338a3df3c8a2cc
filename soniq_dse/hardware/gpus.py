"""What a GPU's descriptor says: its native levels, its figures as tables, and whether the GPU is in this machine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from soniq_dse.hardware.render import Sheet, source_keys
from soniq_dse.hardware.schema_errors import unit_of
from soniq_dse.records.gpu import WARP_BITS, GpuModel, GpuOperation
from soniq_dse.records.hardware import Figure, NativeLevel
from soniq_dse.records.palette import Level

DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver lists its GPUs; absent without one."""

BIT_PAIRS = ((1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (2, 8), (4, 4), (4, 8), (8, 8))
"""(weight bits, activation bits) of the levels that kernels compute: those with integer activations."""


def passes(operation: GpuOperation, level: Level) -> int | None:
    """Instructions of ``operation`` per product of fragments at ``level``: one for each pair of bit planes of 1-bit
    operands, one where both operands fit; None where they do not."""
    if operation.operand_bits == 1:
        return level.weight_bits * level.activation_bits
    fits = max(level.weight_bits, level.activation_bits) <= operation.operand_bits <= 8
    return 1 if fits else None


def gpu_levels(gpu: GpuModel) -> tuple[NativeLevel, ...]:
    """Every level with every native operation that serves it: narrowest level first, within it the fastest first.

    ``macs_per_cycle`` is of the whole GPU and counts the operation alone: no kernel that uses it does more.
    """
    found = [
        _level(gpu, name, operation, Level(weight_bits=weight, activation_bits=activation))
        for weight, activation in BIT_PAIRS
        for name, operation in gpu.operations.items()
        if operation.native and passes(operation, Level(weight_bits=weight, activation_bits=activation))
    ]
    return tuple(sorted(found, key=lambda v: (v.level.weight_bits, v.level.activation_bits, -v.macs_per_cycle)))


def _level(gpu: GpuModel, name: str, operation: GpuOperation, level: Level) -> NativeLevel:
    count = passes(operation, level) or 1
    rate = operation.macs_per_cycle.value / count
    units = f"{gpu.multiprocessors.value:g} multiprocessors"
    planes = f", one for each of {count} pairs of bit planes" if count > 1 else ""
    return NativeLevel(
        level=level,
        width_bits=WARP_BITS,
        recipe=name,
        k_group=operation.k_group,
        n_group=operation.n_group,
        macs_per_cycle=rate * gpu.multiprocessors.value,
        bound=f"{operation.unit} units",
        reason=f"{rate:g} products of {level.name} a cycle on each of {units} by {name}{planes}; "
        f"bound by {operation.unit} units",
    )


def gpu_figures(gpu: GpuModel) -> Iterator[tuple[str, Figure]]:
    """Every figure of the GPU with its path (``memory.read_gb_per_s``)."""

    def below(record: Any, prefix: str) -> Iterator[tuple[str, Figure]]:
        fields = (
            record.items() if isinstance(record, dict) else ((k, getattr(record, k)) for k in type(record).model_fields)
        )
        for name, value in fields:
            if isinstance(value, Figure):
                yield f"{prefix}{name}", value
            elif hasattr(type(value), "model_fields") or isinstance(value, dict):
                yield from below(value, f"{prefix}{name}.")

    yield from below(gpu, "")


def gpu_sheets(gpu: GpuModel, levels: Sequence[NativeLevel]) -> tuple[Sheet, ...]:
    """All tables of ``hw show`` for a GPU, the most asked first."""
    used = Counter(source_keys(gpu.to_json_value()))
    return (
        Sheet(
            "Native bit-widths, derived from the native operations",
            {"level": "left", "operation": "left", "k group x n": "right", "MAC/cycle at most": "right", "why": "left"},
            [
                [v.level.name, v.recipe, f"{v.k_group} x {v.n_group}", f"{v.macs_per_cycle:.6g}", v.reason]
                for v in levels
            ],
        ),
        Sheet(
            "Operations of one multiprocessor",
            {"operation": "left", "unit": "left", "operand bits": "right", "native": "left", "MAC/cycle": "right"},
            [
                [
                    name,
                    o.unit,
                    str(o.operand_bits),
                    "yes" if o.native else "no: emulated",
                    f"{o.macs_per_cycle.value:g}",
                ]
                for name, o in gpu.operations.items()
            ],
        ),
        Sheet(
            "Figures",
            {"figure": "left", "value": "right", "unit": "left", "kind": "left", "source": "left", "note": "left"},
            [[name, f"{f.value:g}", unit_of((name,)), f.kind, f.source, f.note or ""] for name, f in gpu_figures(gpu)],
        ),
        Sheet(
            "Sources",
            {"source": "left", "used": "right", "title": "left", "year": "left", "where": "left", "url": "left"},
            [
                [key, str(used[key]), s.title, str(s.year or ""), s.locator or "", s.url or ""]
                for key, s in gpu.sources.items()
            ],
        ),
    )


def detected_gpus(folder: Path = DRIVER_FOLDER) -> tuple[str, ...]:
    """The names of the GPUs that NVIDIA's driver reports in this machine; none without a driver."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*/information"))]
    found = (re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE) for text in texts)
    return tuple(match[1] for match in found if match)


def match_gpu(name: str, matches: Sequence[str], detected: Sequence[str]) -> tuple[bool, str]:
    """Whether a descriptor called ``name`` with ``matches`` speaks of a GPU of this machine, and why (not)."""
    here = next((gpu for gpu in detected if gpu.startswith(tuple(matches))), None) if matches else None
    if here:
        return True, f"{name} describes the GPU of this machine, {here}"
    return False, f"{name} describes no GPU of this machine ({', '.join(detected) or 'none found'})"
