"""CUDA kernels on the GPU of this machine: exact, against cuBLAS FP16, and against what the model predicts.

``python -m benchmarks.gpu --budget-s 480`` needs CuPy, PyTorch and a GPU; ``--build`` makes the cubins on a machine
without one, and they travel in ``build/cubins``. Every row goes to ``hwmodels/measured/GPU/kernels.jsonl`` as it is
made. Where there is no GPU nothing is measured, and it says so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._frame import ROOT, Goal
from benchmarks._gpu_device import Device
from soniq_dse.cost.gpu_kernels import kernel_cost
from soniq_dse.hardware.find import shipped_descriptors
from soniq_dse.hardware.gpus import match_gpu
from soniq_dse.hardware.load import load_machine
from soniq_dse.kernels.gpu_catalog import CUDA_FOLDER, gpu_catalog
from soniq_dse.kernels.reference import raw_gemm
from soniq_dse.native.compiler import sources_sha256
from soniq_dse.native.nvrtc import build_cubin
from soniq_dse.records.gpu import GpuKernel, GpuModel

CUBINS = ROOT / "build" / "cubins"
SEED = 0
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A product ``[rows, k] x [cols, k]`` by kernels of these bits; ``holdout``: no figure may be fitted to it."""

    weight_bits: int
    activation_bits: int
    rows: int
    cols: int
    k: int
    holdout: bool = False

    def kernels(self, gpu: GpuModel) -> list[GpuKernel]:
        """Those of the very bits that the GPU runs natively: one-row kernels for few rows, tiled ones for many."""
        op = "gemv" if self.rows <= 8 else "gemm"
        bits = (self.weight_bits, self.activation_bits)
        return [
            kernel
            for kernel in gpu_catalog()
            if (kernel.weight_bits, kernel.activation_bits) == bits
            and kernel.op == op
            and gpu.operations[kernel.operation].native
        ]


CASES = (
    Case(1, 8, 1, 8192, 8192), Case(1, 8, 1, 28672, 8192), Case(2, 8, 1, 8192, 8192), Case(2, 8, 1, 28672, 8192),
    Case(1, 1, 8192, 8192, 8192), Case(2, 2, 8192, 8192, 8192), Case(1, 1, 1, 8192, 8192), Case(4, 8, 1, 8192, 8192),
    Case(1, 2, 4096, 4096, 4096, True), Case(1, 4, 4096, 4096, 4096, True), Case(4, 8, 4096, 4096, 4096, True),
    Case(8, 8, 4096, 4096, 4096), Case(2, 2, 1, 4096, 14336, True), Case(4, 4, 1, 8192, 8192, True),
    Case(1, 1, 512, 2048, 2048, True), Case(2, 2, 512, 2048, 2048, True),
)  # fmt: skip
"""The goals' shapes first: what the budget cuts off is the rest."""

RATIOS = {
    "G2 decode W1 8192x8192": (1, 1, 8192, 6.3),
    "G2 decode W1 28672x8192": (1, 1, 28672, 10.0),
    "G2 decode W2 8192x8192": (2, 1, 8192, 4.5),
    "G2 decode W2 28672x8192": (2, 1, 28672, 6.3),
}
"""Goal -> (weight bits, rows, cols, times cuBLAS FP16)."""


def goals_of(rows: Sequence[Row]) -> list[Goal]:
    """Every goal, with a value where rows give one. The vector units' goal waits for a baseline of its own (HFMA2)."""
    checked = [row["exact"] for row in rows]
    goals = [Goal("G1", "kernels whose every result is exact on the device", "share",
                  sum(checked) / len(checked) if checked else None, at_least=1.0)]  # fmt: skip
    for name, (weight_bits, n_rows, cols, least) in RATIOS.items():
        found = [r for r in rows if (r["weight_bits"], r["rows"], r["cols"]) == (weight_bits, n_rows, cols)]
        goals.append(Goal(name, "over cuBLAS FP16", "x", _best(found), at_least=least))
    for bits, least in ((1, 8.0), (2, 2.8)):
        found = [r for r in rows if r["weight_bits"] == r["activation_bits"] == bits and r["rows"] >= 4096]
        goals.append(Goal(f"G2 GEMM W{bits}A{bits}", "over cuBLAS FP16", "x", _best(found), at_least=least))
    goals.append(Goal("G2 vector W1A1", "over a full-rate HFMA2 baseline", "x", None, at_least=3.3))
    held = [row for row in rows if row["role"] == "holdout" and row["median_us"]]
    errors = [abs(row["predicted_us"] / row["median_us"] - 1) for row in held]
    goals.append(Goal("G3 error", "MAPE on held-out kernels", "%", 100 * float(np.mean(errors)) if held else None,
                      at_most=10.0))  # fmt: skip
    goals.append(Goal("G3 order", "Kendall tau of time per MAC", "", _tau(rows), at_least=0.95))
    above = [row["bound_us"] / row["median_us"] - 1 for row in rows if row["median_us"]]
    goals.append(Goal("G3 bound", "most by which the bound exceeds a time", "%", 100 * max(above) if above else None,
                      at_most=1.0))  # fmt: skip
    return goals


def _best(rows: Sequence[Row]) -> float | None:
    return max((row["fp16_us"] / row["median_us"] for row in rows if row["median_us"] and row["exact"]), default=None)


def _tau(rows: Sequence[Row]) -> float | None:
    from scipy.stats import kendalltau

    timed = [row for row in rows if row["median_us"]]
    if len(timed) < 3:
        return None
    macs = [row["rows"] * row["cols"] * row["k"] for row in timed]
    pairs = zip(timed, macs, strict=True)
    predicted, measured = zip(*((r["predicted_us"] / m, r["median_us"] / m) for r, m in pairs), strict=True)
    return float(kendalltau(predicted, measured).statistic)


def operands(kernel: GpuKernel, rows: int, cols: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform codes and weights; for floats those of one bit, whose sums they hold."""
    rng = np.random.default_rng(SEED)
    floats = kernel.act == "f16"
    largest = 127 if kernel.wgt == "s8" else 2 ** (1 if floats else kernel.weight_bits) - 1
    codes = rng.integers(0, 2 if floats else 2**kernel.activation_bits, (rows, k), dtype=np.uint8)
    if kernel.wgt == "s8":
        return codes, rng.integers(-127, 128, (cols, k), dtype=np.int8)
    return codes, (2 * rng.integers(0, largest + 1, (cols, k), dtype=np.int16) - largest).astype(np.int8)


def is_exact(device: Device, kernel: GpuKernel) -> bool:
    """At shapes past the edges of a tile and of a group along k."""
    for rows, cols, k in ((1, 1, 1), (kernel.tile[0] + 1, kernel.tile[1] + 1, 3 * kernel.k_group + 5)):
        codes, weights = operands(kernel, rows, cols, k)
        if not np.array_equal(device.product(kernel, codes, weights), raw_gemm(kernel.act, codes, weights)):
            return False
    return True


def predictions(gpu: GpuModel, kernel: GpuKernel, case: Case) -> tuple[float, float]:
    """(predicted, bound) in microseconds, weights from memory."""
    cost = kernel_cost(gpu, kernel, case.rows, case.cols, case.k)
    bound = max(cycles for name, cycles in cost.busy.items() if name != "latency")
    return cost.cycles / gpu.clock_ghz.value / 1000, bound / gpu.clock_ghz.value / 1000


def measure(device: Device, gpu: GpuModel, until: float) -> Iterator[Row]:
    """A row per kernel and case, exactness first, as long as there is time."""
    exact: dict[str, bool] = {}
    for case in CASES:
        for kernel in case.kernels(gpu):
            if time.monotonic() > until:
                return
            if kernel.symbol not in exact:
                exact[kernel.symbol] = is_exact(device, kernel)
            codes, weights = operands(kernel, case.rows, case.cols, case.k)
            timing, fp16 = device.time(kernel, codes, weights), device.time_fp16(case.rows, case.cols, case.k)
            predicted_us, bound_us = predictions(gpu, kernel, case)
            yield {
                "schema_version": 1, "kernel": kernel.symbol, **asdict(case),
                "role": "holdout" if case.holdout else "calibrate", "exact": exact[kernel.symbol],
                **asdict(timing), "fp16_us": fp16.median_us,
                "int8_us": device.time_int8(case.rows, case.cols, case.k).median_us if case.rows > 16 else None,
                "predicted_us": predicted_us, "bound_us": bound_us,
                "source_sha256": sources_sha256([CUDA_FOLDER / Path(kernel.path).name]),
                "cubin_sha256": device.cubin_sha256(kernel), "gpu": device.name, "versions": device.versions,
                "multiprocessors": device.multiprocessors, "seed": SEED, "data": "uniform codes and weights",
                "date": datetime.date.today().isoformat(),
            }  # fmt: skip


def descriptor_of(device: Device) -> GpuModel:
    """The shipped descriptor that speaks of the GPU, else one of its architecture."""
    found = [gpu for path in shipped_descriptors() if isinstance(gpu := load_machine(path), GpuModel)]
    for gpu in found:
        if match_gpu(gpu.name, gpu.matches, [device.name])[0]:
            return gpu
    for gpu in found:
        if gpu.architecture == device.architecture:
            return gpu
    known = ", ".join(gpu.architecture for gpu in found)
    raise RuntimeError(f"no descriptor of {device.name} ({device.architecture}; there are {known})")


def build(folder: Path = CUBINS) -> list[Path]:
    """Cubins of every source for every architecture described."""
    found = [gpu for path in shipped_descriptors() if isinstance(gpu := load_machine(path), GpuModel)]
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for architecture in sorted({gpu.architecture for gpu in found}):
        for source in sorted({kernel.path for kernel in gpu_catalog()}):
            made.append(folder / f"{Path(source).stem}-{architecture}.cubin")
            shutil.copyfile(build_cubin(CUDA_FOLDER / Path(source).name, architecture), made[-1])
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, or measure within the budget and print goals and rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--budget-s", type=float, default=480.0, help="end within about so many seconds")
    parser.add_argument("--build", action="store_true", help=f"only build the cubins, into {CUBINS}")
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    options = parser.parse_args(arguments)
    if options.build:
        sys.stdout.write("\n".join(map(str, build())) + "\n")
        return
    try:
        device = Device(CUBINS)
        gpu = descriptor_of(device)
    except (ImportError, RuntimeError) as error:
        sys.stdout.write(f"nothing measured: {error}\n")
        _print(goals_of([]))
        return
    slug = re.sub(r"[^a-z0-9]+", "_", device.name.lower()).strip("_")
    kept = ROOT / "hwmodels" / "measured" / slug / "kernels.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with kept.open("a") as file:
        for row in measure(device, gpu, time.monotonic() + min(options.budget_s, 60.0 if options.quick else 1e9)):
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
            sys.stdout.write(
                f"{row['kernel']:46} {row['rows']}x{row['cols']}x{row['k']} {row['median_us']:.2f} us, FP16 "
                f"{row['fp16_us']:.2f}, predicted {row['predicted_us']:.2f}{'' if row['exact'] else '  NOT EXACT'}\n"
            )
    sys.stdout.write(f"{device.name}, by {gpu.name}; {len(rows)} rows in {kept}\n")
    _print(goals_of(rows))


def _print(goals: Sequence[Goal]) -> None:
    for goal in goals:
        value = "not measured" if goal.value is None else f"{goal.value:.3g} {goal.unit}"
        sys.stdout.write(f"{goal.id:26} {goal.name:48} {goal.goal:8} {value}\n")


if __name__ == "__main__":
    main()
