"""What kernels compute, in NumPy int64: the contract of ``cpu/soniq_kernel.h``, written for clarity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.kernels.catalog import token_bits

Integers = NDArray[np.int64]


def raw_gemm(act: str, codes: NDArray[Any], weights: NDArray[np.int8]) -> Integers:
    """Raw sums of a kernel with activation token ``act``: codes ``[rows, k]``, weights ``[cols, k]``.

    ``u<b>``: ``sum_k w[n, k] * u[r, k]``; ``z<b>``: ``sum_k w[n, k] * (2 u[r, k] - (2**b - 1))``.
    """
    raw: Integers = _values(act, codes) @ weights.astype(np.int64).T
    return raw


def raw_gather_gemm(act: str, codes: NDArray[Any], weights: NDArray[np.int8], gather: NDArray[np.int64]) -> Integers:
    """Raw sums over taps: row ``gather[t, r]`` of ``codes`` meets ``weights[:, t]``; weights ``[cols, taps, k]``."""
    raw = np.zeros((gather.shape[1], weights.shape[0]), np.int64)
    for tap, rows in enumerate(gather):
        raw += raw_gemm(act, codes[rows], weights[:, tap])
    return raw


def asked_values(codes: NDArray[Any], bits: int, *, signed: bool) -> Integers:
    """The integers that a network's activation codes stand for: ``u``, ``2u - c`` (zero-free) or ``u - 128`` (int8)."""
    wide = codes.astype(np.int64)
    if not signed:
        return wide
    return wide - 128 if bits == 8 else 2 * wide - (2**bits - 1)


def conv2d(
    values: Integers,
    weights: NDArray[np.int8],
    pad_values: Integers,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Integers:
    """Exact convolution of integers, channels last.

    Args:
        values: ``[batch, height, width, channels]`` integers that the codes stand for.
        weights: ``[out_channels, channels / groups, kernel_height, kernel_width]``.
        pad_values: ``[channels]`` integers of the padding.

    Returns:
        ``[batch, out_height, out_width, out_channels]``.
    """
    batch, height, width, channels = values.shape
    padded = np.empty((batch, height + 2 * padding[0], width + 2 * padding[1], channels), np.int64)
    padded[...] = pad_values
    padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = values
    out_channels, in_group, kernel_h, kernel_w = weights.shape
    if in_group * groups != channels or out_channels % groups:
        raise UserError(f"conv2d: expected {channels} = groups x {in_group} channels, got {groups} groups")
    out_h = (padded.shape[1] - dilation[0] * (kernel_h - 1) - 1) // stride[0] + 1
    out_w = (padded.shape[2] - dilation[1] * (kernel_w - 1) - 1) // stride[1] + 1
    result = np.zeros((batch, out_h, out_w, out_channels), np.int64)
    out_group = out_channels // groups
    for group in range(groups):
        outs = slice(group * out_group, (group + 1) * out_group)
        ins = slice(group * in_group, (group + 1) * in_group)
        for i in range(kernel_h):
            for j in range(kernel_w):
                top, left = i * dilation[0], j * dilation[1]
                rows = slice(top, top + (out_h - 1) * stride[0] + 1, stride[0])
                columns = slice(left, left + (out_w - 1) * stride[1] + 1, stride[1])
                result[..., outs] += padded[:, rows, columns, ins] @ weights[outs, :, i, j].astype(np.int64).T
    return result


def _values(act: str, codes: NDArray[Any]) -> Integers:
    wide = codes.astype(np.int64)
    return 2 * wide - (2 ** token_bits(act) - 1) if act[0] == "z" else wide
