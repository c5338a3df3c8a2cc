"""CUDA sources built as C++ and run on this CPU, thread by thread (``kernels/cuda/host.h``)."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soniq_dse.kernels.gpu_catalog import CUDA_FOLDER
from soniq_dse.kernels.gpu_pack import grid_of, pack_activations, pack_symbol, pack_weights, padded_steps
from soniq_dse.native.compiler import build_library
from soniq_dse.records.gpu import GpuKernel

FLAGS = ("-x", "c++", "-DSONIQ_SHIM", "-O1", "-std=c++17", "-ffp-contract=off", "-Wno-unknown-pragmas")


@functools.lru_cache(maxsize=32)
def library(source: str) -> ctypes.CDLL:
    """The shim library of one ``.cu`` file; ``SONIQ_TEST_FLAGS`` adds flags (of sanitizers)."""
    flags = tuple(os.environ.get("SONIQ_TEST_FLAGS", "").split())
    return ctypes.CDLL(
        str(build_library([CUDA_FOLDER / Path(source).name], flags=(*FLAGS, *flags), include=[CUDA_FOLDER]))
    )


def product(kernel: GpuKernel, codes: NDArray[np.uint8], weights: NDArray[np.int8], seed: int = 0) -> NDArray[np.int32]:
    """``[rows, cols]`` of a kernel run by the shim; ``seed`` permutes the order of blocks, warps and lanes."""
    (rows, k), cols = codes.shape, len(weights)
    packed, sums = pack_activations(kernel, codes)
    out = np.full((rows + 1, cols), -0x5A5A5A5A, np.int32)  # a guard row
    arrays = (aligned(pack_weights(kernel, weights)), aligned(packed), sums, out)
    function = getattr(library(kernel.path), kernel.symbol)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    grid = grid_of(kernel, rows, cols)
    stuck = function(*pointers, rows, cols, padded_steps(kernel, k), *grid, kernel.threads, ctypes.c_uint(seed))
    assert not stuck, "threads wait at a barrier for others that never come"
    assert (out[rows] == -0x5A5A5A5A).all()
    return out[:rows]


def packed_on_device(
    kernel: GpuKernel, x: NDArray[np.float32], scale: float, shift: float, seed: int = 0
) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """Packed codes and row sums of ``[rows, k]`` floats by the packing kernel that serves ``kernel``."""
    rows, k = x.shape
    n_words = pack_activations(kernel, np.zeros((rows, k), np.uint8))[0].size
    packed, sums = np.full(n_words, 0xA5A5A5A5, np.uint32), np.zeros(rows, np.int32)
    steps = padded_steps(kernel, k) * (1 if kernel.algorithm in ("bmma", "csa", "popc") else kernel.k_group // 32)
    function = getattr(library("quant_pack.cu"), pack_symbol(kernel))
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, packed, sums)]
    numbers = (ctypes.c_float(scale), ctypes.c_float(shift), rows, ctypes.c_uint(seed))
    assert not function(*pointers, k, steps, *numbers), "threads wait at a barrier for others that never come"
    return packed, sums


def aligned(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A copy whose first byte is 16-byte aligned, as device memory is."""
    raw = np.empty(words.nbytes + 16, np.uint8)
    start = -raw.ctypes.data % 16
    copy = raw[start : start + words.nbytes].view(np.uint32)
    copy[:] = words
    return copy
