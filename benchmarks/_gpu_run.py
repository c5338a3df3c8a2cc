"""What a run on a GPU does, one row at a time: kernels, then peers. What fails is a row too, and the run goes on."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from benchmarks._gpu_device import Device
from benchmarks._gpu_peers import PEERS, Peer
from benchmarks._gpu_records import VERSION, Row, predictions
from soniq_dse.kernels.gpu_catalog import gpu_catalog
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.kernels.reference import raw_gemm
from soniq_dse.records.gpu import GpuKernel, GpuModel

SEED = 0
SLOW_PEER_S = 30.0
"""A peer that takes longer to prepare and time is left out from then on: some tune for minutes."""
Key = tuple[str, int, int, int]
Found = TypeVar("Found")


class DeviceLostError(Exception):
    """After an error of the device nothing more runs in this process."""


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


def attempt(device: Device, job: Callable[[], Found]) -> tuple[Found | None, str | None]:
    """What ``job`` gives, or why it failed; memory it took is free again.

    Raises:
        DeviceLostError: the device does nothing any more.
    """
    try:
        return job(), None
    except Exception as error:  # CuPy, PyTorch and peers have errors of their own for everything
        return None, f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    finally:
        if not device.release():
            raise DeviceLostError


def key_of(kernel: GpuKernel, case: Case) -> Key:
    """Of a row of this kernel and shape."""
    return kernel.symbol, case.rows, case.cols, case.k


def measure(
    device: Device, gpu: GpuModel, until: float, done: Sequence[Key] = (), failed: Sequence[Key] = ()
) -> Iterator[Row]:
    """A row per kernel and case but those that are ``done``, as long as there is time; what ``failed`` before comes
    last. A row has its exactness first, and ``failed`` says why it has no time."""
    exact: dict[str, bool | None] = {}
    baseline = next(kernel for kernel in gpu_catalog() if kernel.algorithm == "hfma2")
    pairs = [(kernel, case) for case in CASES for kernel in case.kernels(gpu) if key_of(kernel, case) not in done]
    fp16: dict[tuple[int, int, int], float | None] = {}
    for kernel, case in sorted(pairs, key=lambda pair: key_of(*pair) in failed):
        if time.monotonic() > until:
            return
        shape = (case.rows, case.cols, case.k)
        row = _row(device, gpu, kernel, case)
        why: str | None = None
        if kernel.symbol not in exact:
            exact[kernel.symbol], why = guarded(device, row, partial(is_exact, device, kernel))
        timing, why_not = guarded(device, row, partial(device.time, kernel, *shape))
        if shape not in fp16:
            found, _ = guarded(device, row, partial(device.time_peer, PEERS[0], *shape))
            fp16[shape] = found.median_us if found else None
        vector = None
        if (case.weight_bits, case.activation_bits, kernel.algorithm) == (1, 1, "csa"):
            vector, _ = guarded(device, row, partial(device.time, baseline, *shape))
        yield row | (asdict(timing) if timing else {}) | {
            "exact": bool(exact[kernel.symbol]), "failed": why or why_not, "fp16_us": fp16[shape],
            "hfma2_us": vector.median_us if vector else None, "cubin_sha256": device.cubin_sha256(kernel),
        }  # fmt: skip


def guarded(device: Device, row: Row, job: Callable[[], Found]) -> tuple[Found | None, str | None]:
    """``attempt``; of a device that is lost the row says so."""
    try:
        return attempt(device, job)
    except DeviceLostError as error:
        raise DeviceLostError(row) from error


def _row(device: Device, gpu: GpuModel, kernel: GpuKernel, case: Case) -> Row:
    """What is known of a row before anything runs; a row that stays so is of a kernel that took the device down."""
    predicted_us, bound_us = predictions(gpu, kernel, case.rows, case.cols, case.k)
    return {
        "schema_version": VERSION, "kernel": kernel.symbol, **asdict(case),
        "role": "holdout" if case.holdout else "calibrate", "exact": False, "failed": "the device was lost",
        "median_us": None, "p10_us": None, "p90_us": None, "fp16_us": None, "hfma2_us": None,
        "predicted_us": predicted_us, "bound_us": bound_us, "source_sha256": cuda_source_sha256(kernel.path),
        "gpu": device.name, "architecture": device.architecture,
        "versions": device.versions, "multiprocessors": device.multiprocessors,
        "data": "random bits", "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def peer_rows(device: Device, until: float, done: Sequence[Key] = ()) -> Iterator[Row]:
    """A row per peer and shape but those that are ``done``, as long as there is time; one that fails stops nothing, one
    that is slow is left out from then on."""
    left_out: dict[str, str] = {}
    for case in dict.fromkeys((case.rows, case.cols, case.k, case.weight_bits) for case in CASES):
        for peer in PEERS[1:]:
            if time.monotonic() > until:
                return
            if not peer.serves(case[0], case[3]) or (peer.name, *case[:3]) in done:
                continue
            row: Row = {
                "schema_version": VERSION, "peer": peer.name, "rows": case[0], "cols": case[1], "k": case[2],
                "median_us": None, "failed": "the device was lost", "gpu": device.name,
                "date": datetime.date.today().isoformat(),
            }  # fmt: skip
            begin = time.monotonic()
            found, why = None, left_out.get(peer.name)
            if why is None:
                found, why = guarded(device, row, partial(device.time_peer, peer, *case[:3]))
                _leave_out(left_out, peer, time.monotonic() - begin, why)
            yield row | {"median_us": found.median_us if found else None, "failed": why}


def _leave_out(left_out: dict[str, str], peer: Peer, seconds: float, why: str | None) -> None:
    if seconds > SLOW_PEER_S:
        left_out[peer.name] = f"left out: it took {seconds:.0f} s for one shape"
    elif why is not None and why.startswith(("ModuleNotFoundError", "ImportError")):
        left_out[peer.name] = why
