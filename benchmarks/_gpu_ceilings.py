"""What a GPU does at most, measured by small kernels (``cuda/ceilings.cu``), and a descriptor with these figures."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks._gpu_device import Device
from benchmarks._gpu_records import VERSION, Row
from benchmarks._gpu_run import guarded
from soniq_dse.kernels.gpu_device import GpuDevice
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.records.gpu import WARP_THREADS, GpuModel

SOURCE = "cuda/ceilings.cu"
CEILING = np.dtype(
    [(name, "u8") for name in ("in", "out", "cycles")] + [("words", "i8"), ("iterations", "i4"), ("unused", "i4")]
)
"""``Ceiling``; addresses as integers."""
THREADS, BLOCKS, CHAINS = 256, 2, 8
"""Of a block, on a multiprocessor, and independent operations of a thread in an iteration."""
ITERATIONS = 4096
MAX_S = 0.3
FROM_MEMORY, FROM_CACHE = 16.0, 0.25
"""Bytes that are read, in sizes of the shared cache; from the cache 16 times over."""


@dataclass(frozen=True)
class Operation:
    """``work`` of a warp in an operation, in the units of the figures that it gives."""

    symbol: str
    operation: str | None
    work: float
    lanes: str | None = None

    def serves(self, gpu: GpuModel) -> bool:
        """Whether ``gpu`` has it natively."""
        return self.operation is None or gpu.operations[self.operation].native


OPERATIONS = (
    Operation("ceiling_bmma_and__sm80", "bmma_and", 16 * 8 * 256),
    Operation("ceiling_imma_s8__sm80", "imma_s8", 16 * 8 * 32),
    Operation("ceiling_imma_s4__sm80", "imma_s4", 16 * 8 * 64),
    Operation("ceiling_dp4a__sm61", "dp4a", WARP_THREADS * 4, "dp4a"),
    Operation("ceiling_hfma2__sm61", "hfma2", WARP_THREADS * 2, "hfma2"),
    Operation("ceiling_popc__sm61", None, WARP_THREADS, "popc"),
    Operation("ceiling_lop3__sm61", None, WARP_THREADS, "lop3"),
)


def ceiling_rows(device: Device, gpu: GpuModel, known: Sequence[str] = ()) -> Iterator[Row]:
    """A row per ceiling but those that are ``known``: figures of the descriptor by name, and the clock while it ran.

    Raises:
        DeviceLostError: the device does nothing any more; it holds the row.
    """
    jobs = {one.symbol: partial(_of_operation, device.runner, device.multiprocessors, one)
            for one in OPERATIONS if one.serves(gpu)}  # fmt: skip
    size = device.cache_bytes
    jobs["memory"] = partial(_of_memory, device.runner, gpu, device.multiprocessors, int(FROM_MEMORY * size), 1)
    jobs["cache"] = partial(_of_cache, device.runner, gpu, device.multiprocessors, int(FROM_CACHE * size), 16)
    jobs["launch"] = partial(_of_launch, device.runner)
    for name, job in jobs.items():
        if name in known:
            continue
        row: Row = {
            "schema_version": VERSION, "ceiling": name, "figures": {}, "median_us": None,
            "failed": "the device was lost", "source_sha256": cuda_source_sha256(SOURCE), "gpu": device.name,
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        found, why = guarded(device, row, job)
        yield row | (found or {}) | {"failed": why}


def _table(device: GpuDevice, blocks: int, words: int, iterations: int) -> tuple[int, int]:
    """Addresses of the arguments and of the cycles."""
    rng, table = np.random.default_rng(0), np.zeros(1, CEILING)
    block = rng.integers(0, 2**32, (256, 4), dtype=np.uint32)
    cycles = device.place(np.zeros(blocks, np.int64))
    table["in"] = device.place(np.resize(block, (max(256, words), 4)))
    table["out"], table["cycles"] = device.place(np.zeros(blocks * THREADS, np.uint32)), cycles
    table["words"], table["iterations"] = words, iterations
    return device.place(table), cycles


def _of_operation(device: GpuDevice, multiprocessors: int, one: Operation) -> Row:
    """Rates per cycle and multiprocessor, by the cycles that the blocks counted themselves."""
    blocks = BLOCKS * multiprocessors
    table, cycles = _table(device, blocks, 0, ITERATIONS)
    timing = device.time(lambda: device.launch(SOURCE, one.symbol, (blocks, 1), THREADS, table), MAX_S)
    taken = float(np.median(device.read(cycles, (blocks,), "i8")))
    warps = BLOCKS * THREADS // WARP_THREADS
    rate = warps * CHAINS * ITERATIONS * one.work / taken
    figures = {f"operations.{one.operation}.macs_per_cycle": rate} if one.operation else {}
    if one.lanes:
        figures[f"multiprocessor.lanes_per_cycle.{one.lanes}"] = rate * WARP_THREADS / one.work
    return {"figures": figures, "median_us": timing.median_s * 1e6, "clock_ghz": taken / timing.median_s * 1e-9}


def _read_s(device: GpuDevice, multiprocessors: int, n_bytes: int, times: int) -> float:
    blocks = 8 * multiprocessors
    table, _ = _table(device, blocks, n_bytes // 16, times)
    return device.time(lambda: device.launch(SOURCE, "ceiling_read__sm61", (blocks, 1), THREADS, table), MAX_S).median_s


def _of_memory(device: GpuDevice, gpu: GpuModel, multiprocessors: int, n_bytes: int, times: int) -> Row:
    seconds = _read_s(device, multiprocessors, n_bytes, times)
    share = n_bytes * times / seconds / (gpu.memory.read_gb_per_s.value * 1e9)
    return {"figures": {"memory.sustained_share": share}, "median_us": seconds * 1e6}


def _of_cache(device: GpuDevice, gpu: GpuModel, multiprocessors: int, n_bytes: int, times: int) -> Row:
    seconds = _read_s(device, multiprocessors, n_bytes, times)
    rate = n_bytes * times / seconds / (gpu.clock_ghz.value * 1e9)
    return {"figures": {"l2.read_bytes_per_cycle": rate}, "median_us": seconds * 1e6}


def _of_launch(device: GpuDevice) -> Row:
    table, _ = _table(device, 1, 0, 0)
    us = device.time(lambda: device.launch(SOURCE, "ceiling_nothing__sm61", (1, 1), 32, table), MAX_S).median_s * 1e6
    return {"figures": {"overhead.launch_us": us}, "median_us": us}


def descriptor_text(gpu: GpuModel, rows: Sequence[Row]) -> str:
    """A descriptor that extends ``gpu`` by the figures that were measured, as YAML. The clock is the median of those
    under which the operations ran."""
    from soniq_dse.hardware.writing import dumped, styled

    date = max(row["date"] for row in rows)
    tree: dict[str, Any] = {
        "extends": gpu.name,
        "name": f"{gpu.name}_measured",
        "title": f"{gpu.title}, ceilings measured",
    }
    clocks = [row["clock_ghz"] for row in rows if row.get("clock_ghz")]
    figures = {name: value for row in rows for name, value in row["figures"].items()}
    if clocks:
        figures["clock_ghz"] = float(np.median(clocks))
    for name, value in figures.items():
        *path, last = name.split(".")
        at = tree
        for part in path:
            at = at.setdefault(part, {})
        at[last] = {"value": float(f"{value:.4g}"), "kind": "measured", "source": "ceilings", "date": date}
    tree["sources"] = {
        "ceilings": {
            "title": f"Small kernels of this tool (benchmarks.gpu), run on {rows[0]['gpu']}",
            "year": int(date[:4]),
            "locator": "soniq_dse/kernels/cuda/ceilings.cu",
        }
    }
    return dumped(styled(tree))
