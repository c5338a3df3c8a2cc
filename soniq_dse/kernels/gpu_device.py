"""A GPU as what runs networks on it sees it. CuPy drives that of this machine; tests have a CPU in its place."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.hardware.gpus import detected_gpus, match_gpu
from soniq_dse.kernels.gpu_catalog import CUDA_FOLDER
from soniq_dse.native.nvrtc import build_cubin, compiler_version
from soniq_dse.native.timing import Timing
from soniq_dse.records.cost import Host
from soniq_dse.records.gpu import GpuModel

RUNS_PER_GRAPH, FEWEST, MOST = 20, 15, 400
"""Runs in a graph, whose mean is a sample; samples before a timing may settle, and at most."""


class GpuDevice(Protocol):
    """Addresses are those of the device's memory; launches follow one another."""

    def host(self) -> Host:
        """What it is; ``processor`` is the name that its driver reports."""

    def compiler(self) -> str:
        """What compiled the kernels."""

    def place(self, array: NDArray[Any]) -> int:
        """A copy of ``array`` on the device, until ``release``: its address."""

    def release(self) -> None:
        """Forget all that was placed."""

    def write(self, address: int, array: NDArray[Any]) -> None:
        """Put ``array`` at ``address``."""

    def read(self, address: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """What lies at ``address``, when all launches are done."""

    def launch(self, path: str, symbol: str, grid: tuple[int, int], threads: int, table: int) -> None:
        """Start the kernel ``symbol`` of the source ``path``, whose only argument is the address ``table``."""

    def time(self, run: Callable[[], None], max_s: float) -> Timing:
        """Of one ``run`` among many that follow one another, sampled until it settles or ``max_s`` are over."""


class CupyDevice:
    """The first GPU of this machine.

    Raises:
        MissingCapabilityError: CuPy is not installed, or it finds no GPU that it can drive.
    """

    def __init__(self, cubin_of: Callable[[str, str], Path] | None = None) -> None:
        """``cubin_of(path, architecture)`` gives the cubin of a source, default: built here."""
        try:
            import cupy
        except ImportError as error:
            raise MissingCapabilityError(
                f"expected CuPy to drive the GPU, got: {error}; pip install 'soniq-dse[gpu]'"
            ) from error
        try:
            found = cupy.cuda.runtime.getDeviceProperties(0)
            cupy.zeros(1)
        except Exception as error:  # CuPy has an error class of its own for every library below it
            raise MissingCapabilityError(f"expected CuPy to reach a GPU, got: {_line(error)}") from error
        self._cupy, self._kept, self._functions = cupy, list[Any](), dict[tuple[str, str], Any]()
        self._cubin_of = cubin_of or _built
        self._name = found["name"].decode()
        self.architecture = f"sm_{found['major']}{found['minor']}"
        self._memory, self._units = int(found["totalGlobalMem"]), int(found["multiProcessorCount"])

    def host(self) -> Host:
        """What it is."""
        runtime = self._cupy.cuda.runtime
        versions = {"cupy": str(self._cupy.__version__), "driver": str(runtime.driverGetVersion())}
        return gpu_host(self._name, self.architecture, self._units, self._memory, versions)

    def compiler(self) -> str:
        """NVRTC's version."""
        return compiler_version()

    def place(self, array: NDArray[Any]) -> int:
        """A copy on the device.

        Raises:
            MissingCapabilityError: its memory is full.
        """
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        with self._told():
            self._kept.append(self._cupy.asarray(raw if raw.size else np.zeros(1, np.uint8)))
        return int(self._kept[-1].data.ptr)

    def release(self) -> None:
        """Forget all that was placed."""
        with self._told():
            self._cupy.cuda.runtime.deviceSynchronize()
        self._kept.clear()

    def write(self, address: int, array: NDArray[Any]) -> None:
        """Put ``array`` at ``address``."""
        raw = np.ascontiguousarray(array)
        with self._told():
            self._cupy.cuda.runtime.memcpy(address, raw.ctypes.data, raw.nbytes, 1)  # from host to device

    def read(self, address: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """What lies at ``address``."""
        found = np.empty(shape, dtype)
        with self._told():
            self._cupy.cuda.runtime.deviceSynchronize()
            self._cupy.cuda.runtime.memcpy(found.ctypes.data, address, found.nbytes, 2)  # from device to host
        return found

    def launch(self, path: str, symbol: str, grid: tuple[int, int], threads: int, table: int) -> None:
        """Start a kernel."""
        if (path, symbol) not in self._functions:
            cubin = self._cubin_of(path, self.architecture)
            with self._told():
                self._functions[path, symbol] = self._cupy.RawModule(path=str(cubin)).get_function(symbol)
        with self._told():
            self._functions[path, symbol](grid, (threads,), (np.uint64(table),))

    def time(self, run: Callable[[], None], max_s: float) -> Timing:
        """Samples are means over a graph of runs, so that no time is Python's."""
        with self._told():
            stream = self._cupy.cuda.Stream(non_blocking=True)
            run()
            self._cupy.cuda.runtime.deviceSynchronize()
            with stream:
                stream.begin_capture()
                for _ in range(RUNS_PER_GRAPH):
                    run()
                graph = stream.end_capture()
            return sampled(lambda: self._replayed(graph, stream), max_s)

    def _replayed(self, graph: Any, stream: Any) -> float:
        start, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        start.record(stream)
        graph.launch(stream)
        end.record(stream)
        end.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(start, end)) * 1e-3 / RUNS_PER_GRAPH

    def _told(self) -> _Told:
        return _Told(self._name)


class _Told:
    """CuPy's errors, of many classes, as one that says where they come from."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError):
            raise MissingCapabilityError(f"{self._name}: {_line(error)}") from error


def _built(path: str, architecture: str) -> Path:
    return build_cubin(CUDA_FOLDER / path.rsplit("/", 1)[-1], architecture)


def open_device() -> GpuDevice:
    """The first GPU of this machine.

    Raises:
        MissingCapabilityError: there is none, or nothing that drives it.
    """
    return CupyDevice()


def visible_gpus() -> tuple[str, ...]:
    """The names of this machine's GPUs: as the driver lists them, or of the first where only CuPy sees one, as in some
    containers."""
    found = detected_gpus()
    if found:
        return found
    try:
        return (open_device().host().processor,)
    except MissingCapabilityError:
        return ()


def open_matching(gpu: GpuModel) -> GpuDevice:
    """The first GPU of this machine, which ``gpu`` speaks of.

    Raises:
        MissingCapabilityError: there is none, nothing that drives it, or it is another one.
    """
    device = open_device()
    matches, why = match_gpu(gpu.name, gpu.matches, [device.host().processor])
    if not matches:
        raise MissingCapabilityError(f"{why}; CUDA_VISIBLE_DEVICES says which one is the first")
    return device


class NoDevice:
    """Takes everything and runs nothing: what a network would be on a GPU is known without one."""

    def place(self, array: NDArray[Any]) -> int:
        """Nowhere."""
        return 1

    def release(self) -> None:
        """Nothing."""

    def write(self, address: int, array: NDArray[Any]) -> None:
        """Nothing."""

    def host(self) -> Host:
        """Refused."""
        raise MissingCapabilityError("expected a GPU, got none")

    def compiler(self) -> str:
        """Refused."""
        raise MissingCapabilityError("expected a GPU, got none")

    def read(self, address: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Refused."""
        raise MissingCapabilityError("expected a GPU, got none")

    def launch(self, path: str, symbol: str, grid: tuple[int, int], threads: int, table: int) -> None:
        """Refused."""
        raise MissingCapabilityError("expected a GPU, got none")

    def time(self, run: Callable[[], None], max_s: float) -> Timing:
        """Refused."""
        raise MissingCapabilityError("expected a GPU, got none")


def sampled(sample_s: Callable[[], float], max_s: float) -> Timing:
    """Samples until they settle or ``max_s`` are over; the first ones warm up."""
    end = time.monotonic() + max_s
    for _ in range(3):
        sample_s()
    samples: list[float] = []
    while True:
        samples.append(sample_s())
        timing = Timing.of(samples)
        if (len(samples) >= FEWEST and timing.settled) or len(samples) == MOST or time.monotonic() > end:
            return timing


def gpu_host(name: str, architecture: str, units: int, memory_bytes: int, versions: Mapping[str, str]) -> Host:
    """A GPU as the machine that something ran on: its multiprocessors are the cores."""
    major, minor = architecture.removeprefix("sm_")[:-1], architecture[-1]
    return Host(
        processor=name,
        vendor="NVIDIA",
        family=int(major),
        model=int(minor),
        stepping=0,
        features=(architecture,),
        cores=units,
        memory_bytes=memory_bytes,
        system=platform.platform(),
        python=platform.python_version(),
        versions=dict(versions),
    )


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
