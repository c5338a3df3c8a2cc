"""CUDA kernels on the GPU of this machine, launched by CuPy, compared and timed; peers by PyTorch, if it is there."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._gpu_peers import Peer
from soniq_dse.kernels.gpu_catalog import CUDA_FOLDER
from soniq_dse.kernels.gpu_device import CupyDevice
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.kernels.gpu_pack import grid_of, pack_activations, pack_weights, packed_words, padded_steps
from soniq_dse.native.nvrtc import build_cubin
from soniq_dse.records.gpu import GpuKernel

WARM_UPS, REPEATS, LAUNCHES, MOST_LAUNCHES = 5, 15, 20, 400
"""Replays of a graph before timing and timed; launches in a graph, more where there are more copies of the weights."""
MOST_S = 2.0
"""Of all replays together: a kernel that is slower than expected has fewer launches in its graph."""
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


def ready_cubin(source: str, architecture: str, folder: Path) -> Path:
    """Where the cubin of a source, as it is now, lies if it was built beforehand."""
    return folder / f"{Path(source).stem}-{architecture}-{cuda_source_sha256(source)[:12]}.cubin"


def cubin_of(source: str, architecture: str, folder: Path) -> Path:
    """The cubin of a source: from ``folder`` if it was built beforehand, else built here."""
    ready = ready_cubin(source, architecture, folder)
    return ready if ready.exists() else build_cubin(CUDA_FOLDER / Path(source).name, architecture)


def launches_for(first_s: float, copies: int) -> int:
    """Launches of a graph whose first one took ``first_s``."""
    affordable = int(MOST_S / (WARM_UPS + REPEATS) / max(first_s, 1e-7))
    return max(1, min(MOST_LAUNCHES, max(LAUNCHES, copies), affordable))


def random_words(kernel: GpuKernel, n: int) -> np.ndarray:
    """Random words, made on the host, since CuPy's generator needs a library of its own; of 16-bit floats 0 and 1, so
    that no product is subnormal or infinite."""
    words = np.random.default_rng(0).integers(0, 2**32, n, dtype=np.uint32)
    if kernel.act == "f16":
        words = words % 4 // 2 * np.uint32(0x3C000000) + words % 2 * np.uint32(0x3C00)
    return words


class Device:
    """The first GPU. Raises MissingCapabilityError without CuPy, or where it reaches no GPU; peers need PyTorch."""

    def __init__(self, cubins: Path) -> None:
        self.runner = CupyDevice(lambda path, architecture: cubin_of(path, architecture, cubins))
        import cupy

        host = self.runner.host()
        self.cupy, self._cubins = cupy, cubins
        self.name, self.architecture, self.multiprocessors = host.processor, self.runner.architecture, host.cores
        self.cache_bytes = int(cupy.cuda.runtime.getDeviceProperties(0)["l2CacheSize"])
        self.torch, self.no_torch = _torch()
        self.versions = host.versions | {"torch": self.torch.__version__ if self.torch else "none"}
        self._modules: dict[str, tuple[Any, str]] = {}

    def release(self) -> bool:
        """Free what was taken; whether the device still answers."""
        try:
            self.cupy.cuda.runtime.deviceSynchronize()
            self.runner.release()
            self.cupy.get_default_memory_pool().free_all_blocks()
            if self.torch:
                self.torch.cuda.empty_cache()
            sent = np.arange(4)  # there and back, without a kernel that CuPy would have to build
            return bool((self.cupy.asnumpy(self.cupy.asarray(sent)) == sent).all())
        except Exception:  # any error here means that nothing more can be done
            return False

    def cubin_sha256(self, kernel: GpuKernel) -> str | None:
        """Of the file that a kernel was loaded from; None where none was."""
        return self._modules[kernel.path][1] if kernel.path in self._modules else None

    def product(self, kernel: GpuKernel, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """``[rows, cols]`` as the device computes it."""
        cupy, (rows, k), cols = self.cupy, codes.shape, len(weights)
        packed, sums = pack_activations(kernel, codes)
        w, out = cupy.asarray(pack_weights(kernel, weights))[None], cupy.zeros((rows, cols), cupy.int32)
        self._launch(kernel, w, cupy.asarray(packed), cupy.asarray(sums), out, k)(0)
        return np.asarray(cupy.asnumpy(out))

    def time(self, kernel: GpuKernel, rows: int, cols: int, k: int) -> Timing:
        """One launch, its weights from memory: random bits, which are what uniform codes pack to."""
        cupy, (n_weights, n_activations) = self.cupy, packed_words(kernel, rows, cols, k)
        copies = 1 + int(ROTATED * self.cache_bytes / (4 * n_weights))
        w, a = cupy.zeros((copies, n_weights), cupy.uint32), cupy.asarray(random_words(kernel, n_activations))
        block = random_words(kernel, n_weights)
        for i in range(copies):
            w[i].set(block)
        sums, out = cupy.zeros(rows, cupy.int32), cupy.zeros((rows, cols), cupy.int32)
        return self._timed(self._launch(kernel, w, a, sums, out, k), copies)

    def _timed(self, run: Callable[[int], None], copies: int) -> Timing:
        """A graph of launches, so that the time is the device's and not that of Python's calls."""
        cuda = self.cupy.cuda
        run(0)
        cuda.runtime.deviceSynchronize()
        start, end = cuda.Event(), cuda.Event()
        stream = cuda.Stream(non_blocking=True)
        with stream:
            start.record(stream)
            run(0)
            end.record(stream)
            end.synchronize()
            launches = launches_for(cuda.get_elapsed_time(start, end) * 1e-3, copies)
            stream.begin_capture()
            for i in range(launches):
                run(i % copies)
            graph = stream.end_capture()
        times_us = []
        for repeat in range(WARM_UPS + REPEATS):
            start.record(stream)
            graph.launch(stream)
            end.record(stream)
            end.synchronize()
            if repeat >= WARM_UPS:
                times_us.append(cuda.get_elapsed_time(start, end) * 1000 / launches)
        return Timing.of(times_us)

    def time_peer(self, peer: Peer, rows: int, cols: int, k: int) -> Timing:
        """A peer on the same shape, weights from memory too. Raises what the peer raises."""
        copies = 1 + int(ROTATED * self.cache_bytes / (cols * k * peer.weight_bits / 8))
        return self.time_torch(lambda torch: peer.build(torch, rows, cols, k, copies), copies)

    def time_torch(self, build: Callable[[Any], Callable[[int], object]], copies: int = 1) -> Timing:
        """What ``build`` makes of PyTorch, in a graph. Raises what it raises."""
        if self.torch is None:
            raise ImportError(self.no_torch)
        torch = self.torch
        with torch.inference_mode():
            run, side = build(torch), torch.cuda.Stream()
            with torch.cuda.stream(side):
                run(0)
                side.synchronize()
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                run(0)
                end.record()
                end.synchronize()
            launches, graph = launches_for(start.elapsed_time(end) * 1e-3, copies), torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for i in range(launches):
                    run(i % copies)
            times_us = []
            for repeat in range(WARM_UPS + REPEATS):
                start.record()
                graph.replay()
                end.record()
                end.synchronize()
                if repeat >= WARM_UPS:
                    times_us.append(start.elapsed_time(end) * 1000 / launches)
        return Timing.of(times_us)

    def _module(self, kernel: GpuKernel) -> Any:
        if kernel.path not in self._modules:
            path = cubin_of(kernel.path, self.architecture, self._cubins)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            self._modules[kernel.path] = self.cupy.RawModule(path=str(path)), sha256
        return self._modules[kernel.path][0]

    def _launch(self, kernel: GpuKernel, w: Any, a: Any, sums: Any, out: Any, k: int) -> Callable[[int], None]:
        function = self._module(kernel).get_function(kernel.symbol)
        rows, cols = out.shape
        sizes = tuple(np.int32(size) for size in (rows, cols, padded_steps(kernel, k)))
        copies = [w[i] for i in range(len(w))]  # no array is made while a graph is captured

        def launch(copy: int) -> None:
            function(grid_of(kernel, rows, cols), (kernel.threads,), (copies[copy], a, sums, out, *sizes))

        return launch


def _torch() -> tuple[Any, str]:
    """PyTorch, or why there is none to compare with."""
    try:
        import torch
    except ImportError as error:
        return None, str(error)
    return (torch, "") if torch.cuda.is_available() else (None, "this PyTorch sees no GPU")
