"""CUDA kernels on the GPU of this machine: exact, against their peers, and against what the model predicts.

``python -m benchmarks.gpu --budget-s 480`` needs CuPy, PyTorch and a GPU; ``--build`` makes the cubins on a machine
without one, and they travel in ``build/cubins``. Every row goes to ``hwmodels/measured/GPU/kernels.jsonl`` as it is
made. Without a GPU ``--dry-run`` says what would be measured and ``--rescore`` holds kept rows against the model of
today. Exit code 3 where there is nothing to measure on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks._frame import ROOT, Goal
from benchmarks._gpu_device import Device, ready_cubin
from benchmarks._gpu_networks import NETWORKS, layers_are_exact, network_row
from benchmarks._gpu_peers import PEERS
from benchmarks._gpu_records import Row, described_gpus, descriptor_of, predictions, read_kept
from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.kernels.gpu_catalog import CUDA_FOLDER, gpu_catalog, gpu_layer_kernel_for, gpu_layer_kernels
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.kernels.reference import raw_gemm
from soniq_dse.native.nvrtc import build_cubin
from soniq_dse.records.gpu import GpuKernel, GpuModel

CUBINS, MEASURED = ROOT / "build" / "cubins", ROOT / "hwmodels" / "measured"
SEED = 0
NETWORKS_SHARE = 0.25
"""Of the budget, kept for whole networks."""


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
    """Every goal, with a value where rows give one."""
    checked = [row["exact"] for row in rows]
    goals = [Goal("G1", "kernels whose every result is exact on the device", "share",
                  sum(checked) / len(checked) if checked else None, at_least=1.0)]  # fmt: skip
    for name, (weight_bits, n_rows, cols, least) in RATIOS.items():
        found = [r for r in rows if (r["weight_bits"], r["rows"], r["cols"]) == (weight_bits, n_rows, cols)]
        goals.append(Goal(name, "over cuBLAS FP16", "x", _best(found), at_least=least))
    for bits, least in ((1, 8.0), (2, 2.8)):
        found = [r for r in rows if r["weight_bits"] == r["activation_bits"] == bits and r["rows"] >= 4096]
        goals.append(Goal(f"G2 GEMM W{bits}A{bits}", "over cuBLAS FP16", "x", _best(found), at_least=least))
    vector = [row["hfma2_us"] / row["median_us"] for row in rows if row.get("hfma2_us") and row["exact"]]
    goals.append(
        Goal("G2 vector W1A1", "over a full-rate HFMA2 baseline", "x", max(vector, default=None), at_least=3.3)
    )
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


def measure(device: Device, gpu: GpuModel, until: float) -> Iterator[Row]:
    """A row per kernel and case, exactness first, as long as there is time."""
    exact: dict[str, bool] = {}
    baseline = next(kernel for kernel in gpu_catalog() if kernel.algorithm == "hfma2")
    for case in CASES:
        peers: Row = {}
        for kernel in case.kernels(gpu):
            if time.monotonic() > until:
                return
            if kernel.symbol not in exact:
                exact[kernel.symbol] = is_exact(device, kernel)
            timing = device.time(kernel, case.rows, case.cols, case.k)
            peers = peers or peers_of(device, case)
            predicted_us, bound_us = predictions(gpu, kernel, case.rows, case.cols, case.k)
            vector = (case.weight_bits, case.activation_bits, kernel.algorithm) == (1, 1, "csa")
            yield {
                "schema_version": 2, "kernel": kernel.symbol, **asdict(case),
                "role": "holdout" if case.holdout else "calibrate", "exact": exact[kernel.symbol],
                **asdict(timing), "fp16_us": peers["cuBLAS FP16"], "peers_us": peers,
                "hfma2_us": device.time(baseline, case.rows, case.cols, case.k).median_us if vector else None,
                "predicted_us": predicted_us, "bound_us": bound_us, "source_sha256": cuda_source_sha256(kernel.path),
                "cubin_sha256": device.cubin_sha256(kernel), "gpu": device.name, "architecture": device.architecture,
                "versions": device.versions, "multiprocessors": device.multiprocessors,
                "data": "random bits", "date": datetime.date.today().isoformat(),
            }  # fmt: skip


def peers_of(device: Device, case: Case) -> Row:
    """Microseconds by peer, or why it did not run; one that fails stops nothing."""
    found: Row = {}
    for peer in PEERS:
        if peer.serves(case.rows, case.weight_bits):
            try:
                found[peer.name] = device.time_peer(peer, case.rows, case.cols, case.k).median_us
            except Exception as error:  # a peer may fail in any way, and is then no peer here
                if peer is PEERS[0]:
                    raise
                found[peer.name] = f"did not run: {type(error).__name__}: {str(error)[:120]}"
    return found


def sources() -> list[str]:
    """Every source that is launched."""
    return sorted({kernel.path for kernel in (*gpu_catalog(), *gpu_layer_kernels())} | {"cuda/quant_pack.cu"})


def build(folder: Path = CUBINS, architectures: Sequence[str] = ()) -> list[Path]:
    """Cubins of every source for every architecture described, or those asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for architecture in architectures or sorted({gpu.architecture for gpu in described_gpus()}):
        for source in sources():
            made.append(ready_cubin(source, architecture, folder))
            shutil.copyfile(build_cubin(CUDA_FOLDER / Path(source).name, architecture), made[-1])
    return made


def planned(gpu: GpuModel) -> Iterator[str]:
    """What a run on ``gpu`` would do, a line each."""
    ready = [source for source in sources() if ready_cubin(source, gpu.architecture, CUBINS).exists()]
    built = f"{len(ready)} of {len(sources())} cubins built beforehand"
    yield f"{gpu.name} ({gpu.architecture}): {built}; nothing is measured"
    for case in CASES:
        peers = ", ".join(peer.name for peer in PEERS if peer.serves(case.rows, case.weight_bits))
        for kernel in case.kernels(gpu):
            predicted_us, bound_us = predictions(gpu, kernel, case.rows, case.cols, case.k)
            shape = f"{case.rows}x{case.cols}x{case.k}"
            yield f"{kernel.symbol:46} {shape} predicted {predicted_us:.2f} us, bound {bound_us:.2f}; beside {peers}"
    for model, batch in NETWORKS:
        yield f"{model} at batch {batch} by {gpu_layer_kernel_for(gpu).symbol}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, plan, rescore, or measure within the budget and print goals and rows. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--budget-s", type=float, default=480.0, help="end within about so many seconds")
    parser.add_argument("--build", nargs="*", metavar="ARCH", help=f"only build the cubins (sm_90 ...), into {CUBINS}")
    parser.add_argument("--dry-run", metavar="GPU", help="say what would be measured on a GPU that is described (h200)")
    parser.add_argument("--rescore", action="store_true", help=f"hold the rows kept in {MEASURED} against the model")
    options = parser.parse_args(arguments)
    try:
        if options.build is not None:
            _say(map(str, build(architectures=options.build)))
        elif options.dry_run:
            known = {gpu.name: gpu for gpu in described_gpus()}
            if options.dry_run not in known:
                raise UserError(f"--dry-run: expected one of {', '.join(known)}, got {options.dry_run}")
            _say(planned(known[options.dry_run]))
        elif options.rescore:
            rescore(MEASURED)
        else:
            measured(options.budget_s)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def rescore(folder: Path) -> None:
    """Goals of the kept rows by the model of today, and which rows were left out."""
    kept = read_kept(folder)
    _say(f"left out: {row['kernel']} on {row['gpu']} of {row['date']}: {why}" for row, why in kept.stale)
    if not kept.rows:
        _say([f"model only, not measured: no usable rows in {folder}"])
    for gpu in sorted({row["gpu"] for row in kept.rows}) or [""]:
        rows = [row for row in kept.rows if row["gpu"] == gpu]
        _say([f"{gpu}: {len(rows)} rows"] if gpu else [])
        _print(goals_of(rows))


def measured(budget_s: float) -> None:
    """Measure, keep and print.

    Raises:
        MissingCapabilityError: there is no GPU, or what drives one is not installed.
    """
    start = time.monotonic()
    try:
        device = Device(CUBINS)
    except (ImportError, RuntimeError) as error:
        _print(goals_of([]))
        raise MissingCapabilityError(
            f"nothing measured: expected a GPU with CuPy and PyTorch, got: {error}; --dry-run h200 says what would be"
        ) from error
    gpu = descriptor_of(device.name, device.architecture)
    folder = MEASURED / re.sub(r"[^a-z0-9]+", "_", device.name.lower()).strip("_")
    folder.mkdir(parents=True, exist_ok=True)
    _say([f"layer kernel exact: {layers_are_exact(device, gpu)}"])
    rows = []
    with (folder / "kernels.jsonl").open("a") as file:
        for row in measure(device, gpu, start + budget_s * (1 - NETWORKS_SHARE)):
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
            _say([_line(row)])
    with (folder / "networks.jsonl").open("a") as file:
        for model, batch in NETWORKS:
            if time.monotonic() < start + budget_s:
                row = network_row(device, gpu, model, batch)
                file.write(json.dumps(row) + "\n")
                _say([f"{model} x {batch}: {row['median_us']:.1f} us, FP16 {row['fp16_us']:.1f}, "
                      f"predicted {row['predicted_us']:.1f}"])  # fmt: skip
    _say([f"{device.name}, by {gpu.name}; {len(rows)} rows in {folder}"])
    _print(goals_of(rows))


def _line(row: Row) -> str:
    shape = f"{row['rows']}x{row['cols']}x{row['k']}"
    others = ", ".join(f"{name} {us:.2f}" for name, us in row["peers_us"].items() if not isinstance(us, str))
    wrong = "" if row["exact"] else "  NOT EXACT"
    return f"{row['kernel']:46} {shape} {row['median_us']:.2f} us, predicted {row['predicted_us']:.2f}; {others}{wrong}"


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _print(goals: Sequence[Goal]) -> None:
    for goal in goals:
        value = "not measured" if goal.value is None else f"{goal.value:.3g} {goal.unit}"
        sys.stdout.write(f"{goal.id:26} {goal.name:48} {goal.goal:8} {value}\n")


if __name__ == "__main__":
    sys.exit(main())
