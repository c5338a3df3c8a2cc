"""A GPU that is this CPU: the kernels as the shim runs them, to be driven as CuPy drives a real one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda_harness import library
from numpy.typing import NDArray

from soniq_dse.kernels.gpu_device import gpu_host
from soniq_dse.native.timing import Timing
from soniq_dse.records.cost import Host


class ShimDevice:
    """``name`` as a driver reports it; timings are made up: ``us`` a run. ``seed`` permutes the order of threads."""

    def __init__(self, name: str = "NVIDIA H200", architecture: str = "sm_90", seed: int = 0, us: float = 50.0) -> None:
        self._host = gpu_host(name, architecture, 132, 141 * 10**9, {"driver": "none"})
        self._kept: list[NDArray[Any]] = []
        self.seed, self.us = seed, us

    def host(self) -> Host:
        return self._host

    def compiler(self) -> str:
        return "g++"

    def place(self, array: NDArray[Any]) -> int:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        room = np.empty(raw.nbytes + 16, np.uint8)
        start = -room.ctypes.data % 16
        room[start : start + raw.nbytes] = raw
        self._kept.append(room)
        return int(room.ctypes.data) + start

    def release(self) -> None:
        self._kept.clear()

    def write(self, address: int, array: NDArray[Any]) -> None:
        raw = np.ascontiguousarray(array)
        ctypes.memmove(address, raw.ctypes.data, raw.nbytes)

    def read(self, address: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        found = np.empty(shape, dtype)
        ctypes.memmove(found.ctypes.data, address, found.nbytes)
        return found

    def launch(self, path: str, symbol: str, grid: tuple[int, int], threads: int, table: int) -> None:
        stuck = getattr(library(path), symbol)(ctypes.c_void_p(table), *grid, threads, ctypes.c_uint(self.seed))
        assert not stuck, "threads wait at a barrier for others that never come"

    def time(self, run: Callable[[], None], max_s: float) -> Timing:
        run()
        return Timing(self.us * 1e-6, 1e-8, 15, True)
