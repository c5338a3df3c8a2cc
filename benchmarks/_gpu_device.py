"""CUDA kernels on the GPU of this machine, launched by CuPy, compared and timed; peers through PyTorch."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soniq_dse.kernels.gpu_catalog import CUDA_FOLDER
from soniq_dse.kernels.gpu_pack import grid_of, pack_activations, pack_weights, padded_steps
from soniq_dse.native.nvrtc import build_cubin
from soniq_dse.records.gpu import GpuKernel

WARM_UPS, REPEATS, LAUNCHES, MOST_LAUNCHES = 5, 15, 20, 400
"""Replays of a graph before timing and timed; launches in a graph, more where there are more copies of the weights."""
ROTATED = 1.5
"""Copies of the weights fill this many times the GPU's cache, so that every launch reads them from memory."""


@dataclass(frozen=True)
class Timing:
    """Microseconds of one launch: of ``REPEATS`` means over the launches of a graph."""

    median_us: float
    p10_us: float
    p90_us: float

    @classmethod
    def of(cls, times_us: Sequence[float]) -> Timing:
        """Median and tenths of what was read."""
        tenths = statistics.quantiles(times_us, n=10)
        return cls(statistics.median(times_us), tenths[0], tenths[-1])


def cubin_of(source: str, architecture: str, folder: Path) -> Path:
    """The cubin of a source: from ``folder`` if it was built beforehand, else built here."""
    ready = folder / f"{Path(source).stem}-{architecture}.cubin"
    return ready if ready.exists() else build_cubin(CUDA_FOLDER / Path(source).name, architecture)


class Device:
    """The first GPU. Raises ImportError without CuPy or PyTorch, RuntimeError without a GPU."""

    def __init__(self, cubins: Path) -> None:
        import cupy
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no GPU")
        self.cupy, self.torch, self._cubins = cupy, torch, cubins
        found = torch.cuda.get_device_properties(0)
        self.name = str(found.name)
        self.architecture = f"sm_{found.major}{found.minor}"
        self.multiprocessors = int(found.multi_processor_count)
        self.cache_bytes = int(found.L2_cache_size)
        self.versions = {"cupy": cupy.__version__, "torch": torch.__version__, "cuda": str(torch.version.cuda)}
        self.versions["driver"] = str(cupy.cuda.runtime.driverGetVersion())
        self._modules: dict[str, tuple[Any, str]] = {}

    def cubin_sha256(self, kernel: GpuKernel) -> str:
        """Of the file that a kernel was loaded from."""
        return self._module(kernel)[1]

    def product(self, kernel: GpuKernel, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """``[rows, cols]`` as the device computes it."""
        launch, out = self._prepared(kernel, codes, weights, 1)
        launch(0)
        return np.asarray(self.cupy.asnumpy(out))

    def time(self, kernel: GpuKernel, codes: np.ndarray, weights: np.ndarray) -> Timing:
        """One launch, its weights from memory."""
        n_bytes = weights.size * kernel.weight_bits / 8
        copies = 1 + int(ROTATED * self.cache_bytes / n_bytes)
        launch, _ = self._prepared(kernel, codes, weights, copies)
        return self._timed(launch, copies)

    def time_fp16(self, rows: int, cols: int, k: int) -> Timing:
        """cuBLAS on 16-bit floats of the same shape, weights from memory too."""
        torch = self.torch
        copies = 1 + int(ROTATED * self.cache_bytes / (2 * cols * k))
        x = torch.randn(rows, k, device="cuda", dtype=torch.float16)
        w = torch.randn(copies, cols, k, device="cuda", dtype=torch.float16)
        return self._timed(lambda i: torch.mm(x, w[i].t()), copies)

    def time_int8(self, rows: int, cols: int, k: int) -> Timing:
        """``torch._int_mm``; it takes more than 16 rows."""
        torch = self.torch
        copies = 1 + int(ROTATED * self.cache_bytes / (cols * k))
        x = torch.randint(-127, 128, (rows, k), device="cuda", dtype=torch.int8)
        w = torch.randint(-127, 128, (copies, cols, k), device="cuda", dtype=torch.int8)
        return self._timed(lambda i: torch._int_mm(x, w[i].t()), copies)

    def _module(self, kernel: GpuKernel) -> tuple[Any, str]:
        if kernel.path not in self._modules:
            path = cubin_of(kernel.path, self.architecture, self._cubins)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            self._modules[kernel.path] = self.cupy.RawModule(path=str(path)), sha256
        return self._modules[kernel.path]

    def _prepared(
        self, kernel: GpuKernel, codes: np.ndarray, weights: np.ndarray, copies: int
    ) -> tuple[Callable[[int], None], Any]:
        cupy, (rows, k), cols = self.cupy, codes.shape, len(weights)
        packed, sums = pack_activations(kernel, codes)
        w = cupy.tile(cupy.asarray(pack_weights(kernel, weights)), (copies, 1))
        a, row_sums, out = cupy.asarray(packed), cupy.asarray(sums), cupy.zeros((rows, cols), cupy.int32)
        function = self._module(kernel)[0].get_function(kernel.symbol)
        sizes = tuple(np.int32(size) for size in (rows, cols, padded_steps(kernel, k)))

        def launch(copy: int) -> None:
            function(grid_of(kernel, rows, cols), (kernel.threads,), (w[copy], a, row_sums, out, *sizes))

        return launch, out

    def _timed(self, run: Callable[[int], object], copies: int) -> Timing:
        """A graph of launches, so that the time is the device's and not that of Python's calls."""
        torch, launches = self.torch, min(MOST_LAUNCHES, max(LAUNCHES, copies))
        side = torch.cuda.Stream()
        with torch.cuda.stream(side), self._stream():
            run(0)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), self._stream():
            for i in range(launches):
                run(i % copies)
        times_us = []
        for repeat in range(WARM_UPS + REPEATS):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            if repeat >= WARM_UPS:
                times_us.append(start.elapsed_time(end) * 1000 / launches)
        return Timing.of(times_us)

    def _stream(self) -> Any:
        """PyTorch's current stream, for CuPy."""
        return self.cupy.cuda.ExternalStream(self.torch.cuda.current_stream().cuda_stream)
