"""Operands of CUDA kernels as they lie in device memory, in NumPy: the packing that ``cuda/*.cu`` document.

Weights are packed once, offline. Packed activations are what ``cuda/quant_pack.cu`` makes on the device.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.records.gpu import GpuKernel

Words = NDArray[np.uint32]
Codes = NDArray[np.uint8]

_LANE, _REGISTER = np.divmod(np.arange(128), 4)
_A_ROW = (_LANE // 4 + 8 * (_REGISTER & 1)).reshape(32, 4)
_A_WORD = (_LANE % 4 + 4 * (_REGISTER >> 1)).reshape(32, 4)
_B_ROW, _B_WORD = (np.arange(32) // 4)[:, None].repeat(2, 1), (np.arange(32) % 4)[:, None] + 4 * np.arange(2)
"""Which row and word of a tile a lane holds in its registers (``cuda/soniq_cuda.h``)."""
CHANNELS = 16
"""To a multiple of which output channels are padded."""


def padded_steps(kernel: GpuKernel, k: int) -> int:
    """Steps of ``k_group`` input channels that hold k.

    Raises:
        UserError: k is below 1, or its accumulator could overflow.
    """
    steps = -(-k // kernel.k_group)
    if k < 1 or steps * kernel.k_group > kernel.k_max:
        raise UserError(f"{kernel.symbol}: padded k: expected 1..{kernel.k_max}, got {steps * kernel.k_group}")
    return steps


def grid_of(kernel: GpuKernel, rows: int, cols: int) -> tuple[int, int]:
    """Blocks along output channels and rows."""
    return -(-cols // kernel.tile[1]), -(-rows // kernel.tile[0])


def pack_weights(kernel: GpuKernel, weights: NDArray[np.int8]) -> Words:
    """``[cols, k]`` integers (odd and of the kernel's bits for zero-free formats) -> packed words, one axis.

    Raises:
        UserError: a weight that the format does not have, or k beyond the kernel's limit.
    """
    if kernel.wgt == "f16":
        return _a_order(_halves(kernel, weights, CHANNELS), padded_steps(kernel, weights.shape[1]))
    bits, largest = kernel.weight_bits, 127 if kernel.wgt == "s8" else 2**kernel.weight_bits - 1
    wide = weights.astype(np.int16)
    if np.abs(wide).max(initial=0) > largest or (kernel.wgt != "s8" and not (wide & 1).all()):
        kind = "integers" if kernel.wgt == "s8" else "odd integers"
        raise UserError(f"{kernel.symbol}: weights: expected {kind} within +-{largest}, got others")
    steps = padded_steps(kernel, weights.shape[1])
    codes = (weights.view(np.uint8) if kernel.wgt == "s8" else (wide + largest) // 2).astype(np.uint8)
    codes = _padded(codes, CHANNELS, steps * kernel.k_group)
    if kernel.algorithm in ("bmma", "csa"):
        return _a_order(_planes(codes, bits), steps)
    if kernel.algorithm == "popc":
        return _by_step(_planes(codes, bits), steps)
    if kernel.algorithm == "imma4":
        fields = codes.reshape(len(codes), -1, 4 // bits, 64)
        nibbles = np.bitwise_or.reduce(fields << (bits * np.arange(4 // bits, dtype=np.uint8))[:, None], axis=2)
        return _a_order(_nibble_words(nibbles.reshape(len(codes), -1)), steps)
    # Fields of a byte: of consecutive mma steps of 32 elements, or of consecutive groups of 4.
    run = 32 if kernel.algorithm == "imma" else 4
    fields = codes.reshape(len(codes), -1, 8 // bits, run)
    shifts = (bits * np.arange(8 // bits, dtype=np.uint8))[None, None, :, None]
    words = np.ascontiguousarray(np.bitwise_or.reduce(fields << shifts, axis=2)).reshape(len(codes), -1).view(np.uint32)
    return _a_order(words[:, None], steps) if kernel.algorithm == "imma" else words.ravel()


def pack_activations(kernel: GpuKernel, codes: Codes) -> tuple[Words, NDArray[np.int32]]:
    """``[rows, k]`` codes -> packed words, one axis, and the sum of each row's codes.

    Raises:
        UserError: a code that the format does not have, or k beyond the kernel's limit.
    """
    bits = kernel.activation_bits
    if kernel.act == "f16":
        sums = np.zeros(len(codes), np.int32)  # not read
        return _b_order(_halves(kernel, codes, 8), padded_steps(kernel, codes.shape[1])), sums
    if codes.max(initial=0) >= 2**bits:
        raise UserError(f"{kernel.symbol}: codes: expected below {2**bits}, got {codes.max()}")
    steps = padded_steps(kernel, codes.shape[1])
    sums = codes.sum(axis=1, dtype=np.int32)
    if kernel.algorithm in ("dp4a", "popc"):
        padded = _padded(codes, 1, steps * kernel.k_group)
        if kernel.algorithm == "dp4a":
            return padded.reshape(-1).view(np.uint32), sums
        return _by_step(_planes(padded, bits), steps), sums
    if kernel.algorithm == "imma":
        words = _padded(codes, 8, steps * kernel.k_group).view(np.uint32)
        return _b_order(words[:, None], steps * (kernel.k_group // 32)), sums
    if kernel.algorithm == "imma4":
        nibble_words = _nibble_words(_padded(codes, 8, steps * kernel.k_group))
        return _b_order(nibble_words, steps * (kernel.k_group // 64)), sums
    if kernel.op == "gemm":
        return _b_order(_planes(_padded(codes, 8, steps * kernel.k_group), bits), steps), sums
    planes = _planes(_padded(codes, 8 // bits, steps * kernel.k_group), bits)
    return _b_order(planes.reshape(-1, 1, planes.shape[2]), steps), sums


def packed_words(kernel: GpuKernel, rows: int, cols: int, k: int) -> tuple[int, int]:
    """Words of the weights and of the activations of ``[rows, k] x [cols, k]`` as they are packed."""
    depth = padded_steps(kernel, k) * kernel.k_group
    tile = {"dp4a": 1, "popc": 1}.get(kernel.algorithm, 8 if kernel.op == "gemm" else 8 // kernel.activation_bits)
    padded_rows, padded_cols = -(-rows // tile) * tile, -(-cols // CHANNELS) * CHANNELS
    return padded_cols * depth * kernel.weight_bits // 32, padded_rows * depth * kernel.activation_bits // 32


def pack_symbol(kernel: GpuKernel) -> str:
    """The function of ``cuda/quant_pack.cu`` that packs what ``kernel`` reads; there is none for floats."""
    algorithm = "bmma" if kernel.algorithm == "csa" else kernel.algorithm
    return f"pack_f32_{kernel.act}__sm61_{kernel.op}{algorithm}"


def _halves(kernel: GpuKernel, values: NDArray[np.int8] | Codes, rows: int) -> Words:
    """``[rows, k]`` integers -> ``[rows, 1, k / 2]`` words of two 16-bit floats."""
    padded = np.zeros((-(-len(values) // rows) * rows, padded_steps(kernel, values.shape[1]) * kernel.k_group), "f2")
    padded[: len(values), : values.shape[1]] = values
    return padded.view(np.uint32)[:, None]


def _padded(codes: Codes, rows: int, k: int) -> Codes:
    padded = np.zeros((-(-len(codes) // rows) * rows, k), np.uint8)
    padded[: len(codes), : codes.shape[1]] = codes
    return padded


def _planes(codes: Codes, bits: int) -> Words:
    """``[rows, k]`` codes -> ``[rows, bits, k / 32]`` words, the first element in the lowest bit."""
    planes = (codes[:, None] >> np.arange(bits, dtype=np.uint8)[None, :, None]) & 1
    words: Words = np.packbits(planes, axis=2, bitorder="little").view(np.uint32)
    return words


def _nibble_words(nibbles: Codes) -> Words:
    """``[rows, k]`` codes below 16 -> ``[rows, 1, k / 8]`` words, the first element in the lowest bits."""
    words: Words = np.ascontiguousarray(nibbles[:, ::2] | nibbles[:, 1::2] << 4).view(np.uint32)[:, None]
    return words


def _by_step(words: Words, steps: int) -> Words:
    """``[rows, planes, words]`` -> ``[row, step, plane, word of the step]``, one axis."""
    return np.ravel(words.reshape(*words.shape[:2], steps, -1).swapaxes(1, 2))


def _a_order(words: Words, steps: int) -> Words:
    """``[rows, planes, steps * 8]`` -> ``[tile of 16 rows, step, plane, lane, register]``, one axis."""
    tiles = words.reshape(-1, 16, words.shape[1], steps, 8).transpose(0, 3, 2, 1, 4)
    return np.ravel(tiles[..., _A_ROW, _A_WORD])


def _b_order(words: Words, steps: int) -> Words:
    """``[rows, planes, steps * 8]`` -> ``[tile of 8 rows, step, plane, lane, register]``, one axis."""
    tiles = words.reshape(-1, 8, words.shape[1], steps, 8).transpose(0, 3, 2, 1, 4)
    return np.ravel(tiles[..., _B_ROW, _B_WORD])
