"""The kept rows of GPUs, scored again without one by the model of today; those of changed kernels are left out."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soniq_dse.cost.gpu_kernels import kernel_cost
from soniq_dse.errors import UserError
from soniq_dse.hardware.find import shipped_descriptors
from soniq_dse.hardware.gpus import match_gpu
from soniq_dse.hardware.load import load_machine
from soniq_dse.kernels.gpu_catalog import gpu_catalog
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.records.gpu import GpuKernel, GpuModel

Row = dict[str, Any]
VERSION = 3
"""Of every kept row."""


@dataclass(frozen=True)
class Kept:
    """Rows whose kernels are as they were measured, scored by the model of today; and the others, with the reason."""

    rows: Sequence[Row]
    stale: Sequence[tuple[Row, str]]


@functools.lru_cache(maxsize=1)
def described_gpus() -> tuple[GpuModel, ...]:
    """Every shipped descriptor of a GPU."""
    return tuple(gpu for path in shipped_descriptors() if isinstance(gpu := load_machine(path), GpuModel))


def descriptor_of(name: str, architecture: str) -> GpuModel:
    """The shipped descriptor that speaks of a GPU, else one of its architecture.

    Raises:
        UserError: there is none.
    """
    found = described_gpus()
    for gpu in found:
        if match_gpu(gpu.name, gpu.matches, [name])[0]:
            return gpu
    for gpu in found:
        if gpu.architecture == architecture:
            return gpu
    known = ", ".join(sorted({gpu.architecture for gpu in found}))
    raise UserError(f"{name}: expected a GPU of {known}, got {architecture or 'no architecture'}")


def predictions(gpu: GpuModel, kernel: GpuKernel, rows: int, cols: int, k: int) -> tuple[float, float]:
    """(predicted, bound) in microseconds, weights from memory."""
    cost = kernel_cost(gpu, kernel, rows, cols, k)
    bound = max(cycles for name, cycles in cost.busy.items() if name != "latency")
    return cost.cycles / gpu.clock_ghz.value / 1000, bound / gpu.clock_ghz.value / 1000


def read_kept(folder: Path) -> Kept:
    """Of every ``GPU/kernels.jsonl`` below ``folder``, the last row of each kernel and shape on each GPU.

    A line that was cut off is no row.

    Raises:
        UserError: a line is no row of this schema.
    """
    kernels = {kernel.symbol: kernel for kernel in gpu_catalog()}
    latest: dict[tuple[Any, ...], Row] = {}
    stale = []
    for path in sorted(folder.glob("*/kernels.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.endswith("}"):  # a run was killed while it wrote
                continue
            row = _parsed(path, number, line)
            latest[tuple(row[name] for name in ("gpu", "kernel", "rows", "cols", "k"))] = row
    rows = []
    for row in latest.values():
        kernel = kernels.get(row["kernel"])
        if kernel is None or row["source_sha256"] != cuda_source_sha256(kernel.path):
            stale.append((row, "its source has changed since" if kernel else "there is no such kernel now"))
            continue
        gpu = descriptor_of(row["gpu"], row["architecture"])
        predicted_us, bound_us = predictions(gpu, kernel, row["rows"], row["cols"], row["k"])
        rows.append(row | {"predicted_us": predicted_us, "bound_us": bound_us})
    return Kept(rows, stale)


def _parsed(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
        version = row["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}:{number}: expected a row of schema_version {VERSION}, got {line[:60]!r}") from error
    if version != VERSION:
        raise UserError(f"{path}:{number}: schema_version: expected {VERSION}, got {version}")
    found: Row = row
    return found
