"""CUDA kernels on the GPU of this machine, launched by CuPy, compared and timed; peers through PyTorch."""

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
from soniq_dse.kernels.gpu_layer import Epilogue, GpuSegment, layer_grid, layer_table
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.kernels.gpu_pack import grid_of, pack_activations, pack_weights, packed_words, padded_steps
from soniq_dse.native.nvrtc import build_cubin
from soniq_dse.records.gpu import GpuKernel, GpuLayerKernel
from soniq_dse.records.workload import Conv2dLayer

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


def ready_cubin(source: str, architecture: str, folder: Path) -> Path:
    """Where the cubin of a source, as it is now, lies if it was built beforehand."""
    return folder / f"{Path(source).stem}-{architecture}-{cuda_source_sha256(source)[:12]}.cubin"


def cubin_of(source: str, architecture: str, folder: Path) -> Path:
    """The cubin of a source: from ``folder`` if it was built beforehand, else built here."""
    ready = ready_cubin(source, architecture, folder)
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

    def time(self, kernel: GpuKernel, rows: int, cols: int, k: int) -> Timing:
        """One launch, its weights from memory: random bits, which are what uniform codes pack to."""
        cupy, (n_weights, n_activations) = self.cupy, packed_words(kernel, rows, cols, k)
        copies = 1 + int(ROTATED * self.cache_bytes / (4 * n_weights))
        w, a = self._random(kernel, (copies, n_weights)), self._random(kernel, (n_activations,))
        sums, out = cupy.zeros(rows, cupy.int32), cupy.zeros((rows, cols), cupy.int32)
        return self.time_run(self._launch(kernel, w, a, sums, out, k), copies)

    def time_peer(self, peer: Peer, rows: int, cols: int, k: int) -> Timing:
        """A peer on the same shape, weights from memory too. Raises what the peer raises."""
        copies = 1 + int(ROTATED * self.cache_bytes / (cols * k * peer.weight_bits / 8))
        return self.time_run(peer.build(self.torch, rows, cols, k, copies), copies)

    def layer(
        self, kernel: GpuLayerKernel, layer: Conv2dLayer, segments: Sequence[GpuSegment], epilogue: Epilogue
    ) -> tuple[Callable[[int], None], Any]:
        """A launch of the layer kernel, and where it writes ``[rows, out_channels]``."""
        cupy, kept = self.cupy, []

        def place(array: np.ndarray) -> int:
            kept.append(cupy.asarray(array))
            return int(kept[-1].data.ptr)

        out = cupy.zeros((layer.rows, layer.out_channels), cupy.float32)
        table = cupy.asarray(layer_table(layer, segments, epilogue, int(out.data.ptr), place).view(np.uint8))
        function = self._module(kernel)[0].get_function(kernel.symbol)
        grid = layer_grid(kernel, layer)

        def launch(_: int, operands: object = kept) -> None:  # which live as long as the launch does
            function(grid, (kernel.threads,), (table,))

        return launch, out

    def float_layer(self, layer: Conv2dLayer) -> Callable[[int], object]:
        """The layer by cuDNN or cuBLAS in 16-bit floats, channels last."""
        torch, form = self.torch, {"device": "cuda", "dtype": self.torch.float16}
        x = torch.randn(layer.batch, layer.in_channels, layer.height, layer.width, **form)
        w = torch.randn(layer.out_channels, layer.in_channels // layer.groups, *layer.kernel, **form)
        x, w = (tensor.to(memory_format=torch.channels_last) for tensor in (x, w))
        sizes = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return lambda _: torch.nn.functional.conv2d(x, w, None, *sizes)

    def _random(self, kernel: GpuKernel, shape: tuple[int, ...]) -> Any:
        """Random words; of 16-bit floats 0 and 1, so that no product is subnormal or infinite."""
        words = self.cupy.random.randint(0, 2**32, shape, dtype=self.cupy.uint32)
        return words % 4 // 2 * 0x3C000000 + words % 2 * 0x3C00 if kernel.act == "f16" else words

    def _module(self, kernel: GpuKernel | GpuLayerKernel) -> tuple[Any, str]:
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
        out = cupy.zeros((rows, cols), cupy.int32)
        return self._launch(kernel, w, cupy.asarray(packed), cupy.asarray(sums), out, k), out

    def _launch(self, kernel: GpuKernel, w: Any, a: Any, sums: Any, out: Any, k: int) -> Callable[[int], None]:
        function = self._module(kernel)[0].get_function(kernel.symbol)
        rows, cols = out.shape
        sizes = tuple(np.int32(size) for size in (rows, cols, padded_steps(kernel, k)))

        def launch(copy: int) -> None:
            function(grid_of(kernel, rows, cols), (kernel.threads,), (w[copy], a, sums, out, *sizes))

        return launch

    def time_run(self, run: Callable[[int], object], copies: int = 1, launches: int = LAUNCHES) -> Timing:
        """A graph of launches, so that the time is the device's and not that of Python's calls."""
        torch, launches = self.torch, min(MOST_LAUNCHES, max(launches, copies))
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
