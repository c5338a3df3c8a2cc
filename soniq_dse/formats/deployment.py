"""The deployment arithmetic: requantisation, exact accumulation, epilogue. Kernels and runtime match it code for code.

Integers are summed in BLAS floating point, which is exact while every partial sum stays below 2**24 (fp32) or 2**53
(fp64): the sum of absolute products bounds them all, in whatever order BLAS adds. It is checked before each product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from soniq_dse.formats import Codes, Floats, grid_of
from soniq_dse.records.network import TensorQuantizer

Array = npt.NDArray[Any]
EXACT_FP32 = 2**24
ACCUMULATOR_LIMIT = 2**31
"""Deployed accumulators are int32: a layer whose sums could reach this has no kernel."""


class ChannelGrids(NamedTuple):
    """The quantizer of a tensor as one number per channel ``[channels]``."""

    level: npt.NDArray[np.int64]
    multiplier: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int32]
    inverse: Floats
    shift: Floats
    lo: Floats
    hi: Floats
    zero_code: Codes
    magnitude: npt.NDArray[np.int64]


def channel_grids(quantizer: TensorQuantizer) -> ChannelGrids:
    """One number per channel of what ``quantizer`` says per level.

    Raises:
        UserError: a level of the palette is weight-only, whose activations have no codes.
    """
    level = np.asarray(quantizer.level_of_channel)
    grids = [grid_of(v.activation_format(signed=quantizer.signed)) for v in quantizer.palette.levels]
    steps = np.asarray(quantizer.steps, dtype=np.float32)
    inverse = [np.float32(1) / (np.float32(g.multiplier) * s) for g, s in zip(grids, steps, strict=True)]

    def spread(values: Sequence[Any], dtype: Any) -> Any:
        return np.asarray(values, dtype=dtype)[level]

    return ChannelGrids(
        level=level,
        multiplier=spread([g.multiplier for g in grids], np.int32),
        offset=spread([g.offset for g in grids], np.int32),
        inverse=spread(inverse, np.float32),
        shift=spread([g.shift for g in grids], np.float32),
        lo=spread([g.lo for g in grids], np.float32),
        hi=spread([g.hi for g in grids], np.float32),
        zero_code=spread([g.zero_code for g in grids], np.uint8),
        magnitude=spread([g.magnitude for g in grids], np.int64),
    )


def per_channel(values: Array, like: Array) -> Array:
    """``values [channels]`` shaped to broadcast against ``like``: ``[n, channels]``, ``[n, tokens, channels]`` or
    ``[n, channels, height, width]``."""
    return values if like.ndim == 3 else values.reshape((1, -1) + (1,) * (like.ndim - 2))


def requantize(values: Floats, grids: ChannelGrids) -> Codes:
    """fp32 (shapes as in ``per_channel``) -> codes of the same shape; every operation rounds to fp32 on its own."""
    scaled = values * per_channel(grids.inverse, values)
    scaled += per_channel(grids.shift, values)
    np.rint(scaled, out=scaled)
    np.clip(scaled, per_channel(grids.lo, values), per_channel(grids.hi, values), out=scaled)
    return scaled.astype(np.uint8)


def integers(codes: Codes, grids: ChannelGrids) -> npt.NDArray[np.int32]:
    """The integers behind the codes (shapes as in ``per_channel``): u, 2u - c or u - 128."""
    signed = codes.astype(np.int32) * per_channel(grids.multiplier, codes)
    return np.asarray(signed - per_channel(grids.offset, codes), dtype=np.int32)


def pad_codes(codes: Codes, grids: ChannelGrids, padding: tuple[int, int]) -> Codes:
    """Codes ``[n, channels, height, width]`` with a border of each channel's code nearest to zero from above."""
    (above, beside), (n, channels, height, width) = padding, codes.shape
    if not above and not beside:
        return codes
    padded = np.empty((n, channels, height + 2 * above, width + 2 * beside), dtype=np.uint8)
    padded[:] = per_channel(grids.zero_code, codes)
    padded[:, :, above : above + height, beside : beside + width] = codes
    return padded


def patches(
    values: Array, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1)
) -> Array:
    """The windows of ``values [n, channels, height, width]``: a view ``[n, channels, out_h, out_w, *kernel]``."""
    reach = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    windows = np.lib.stride_tricks.sliding_window_view(values, reach, axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def exact_matmul(a: Array, w: Array, a_magnitude: int) -> Array:
    """``a [rows, k] @ w [cols, k].T`` of integers, exact; the result is held in floating point.

    Args:
        a: integers of any dtype, none above ``a_magnitude`` in absolute value.
        w: integers.

    Raises:
        OverflowError: a sum could reach 2**31, which no int32 accumulator holds.
    """
    bound = int(np.abs(w.astype(np.int64)).sum(axis=1).max(initial=0)) * a_magnitude
    if bound >= ACCUMULATOR_LIMIT:
        raise OverflowError(f"accumulator: expected sums below 2**31, got up to {bound} over k = {a.shape[1]}")
    dtype = np.float32 if bound < EXACT_FP32 else np.float64
    return np.asarray(a.astype(dtype) @ w.astype(dtype).T)


class Window(NamedTuple):
    """How a convolution walks over its input."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def accumulate_conv2d(codes: Codes, grids: ChannelGrids, weight: Array, window: Window) -> dict[int, Array]:
    """Exact accumulators of each level that is present, in palette order.

    Args:
        codes: ``[n, in_channels, height, width]``.
        weight: integers ``[out_channels, in_channels / groups, kernel_height, kernel_width]``.

    Returns:
        level index -> integers ``[n, out_channels, out_height, out_width]`` (in floating point, exact).
    """
    values = integers(pad_codes(codes, grids, window.padding), grids)
    n_out, n_in = weight.shape[0] // window.groups, weight.shape[1]
    found: dict[int, Array] = {}
    for level in np.unique(grids.level):
        parts = []
        for group in range(window.groups):
            inputs = np.arange(group * n_in, (group + 1) * n_in)
            chosen = inputs[grids.level[inputs] == level]
            of_group = weight[group * n_out : (group + 1) * n_out][:, chosen - group * n_in]
            view = patches(values[:, chosen].astype(np.int16), weight.shape[2:], window.stride, window.dilation)
            n, _, out_h, out_w = view.shape[:4]
            columns = view.transpose(0, 2, 3, 1, 4, 5).reshape(n * out_h * out_w, -1)
            magnitude = int(grids.magnitude[chosen].max(initial=0))
            product = exact_matmul(columns, of_group.reshape(n_out, -1), magnitude)
            parts.append(product.reshape(n, out_h, out_w, n_out).transpose(0, 3, 1, 2))
        found[int(level)] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return found


def accumulate_linear(codes: Codes, grids: ChannelGrids, weight: Array) -> dict[int, Array]:
    """Exact accumulators of each level that is present: level index -> integers ``[n, ..., out_features]``.

    ``codes [n, ..., in_features]``, ``weight [out_features, in_features]``.
    """
    values = integers(codes, grids)
    found: dict[int, Array] = {}
    for level in np.unique(grids.level):
        chosen = np.flatnonzero(grids.level == level)
        magnitude = int(grids.magnitude[chosen].max())
        rows = values[..., chosen].reshape(-1, len(chosen))
        product = exact_matmul(rows, weight[:, chosen], magnitude)
        found[int(level)] = product.reshape(*codes.shape[:-1], len(weight))
    return found


def epilogue(accumulators: dict[int, Array], scale: Floats, bias: Floats) -> Floats:
    """``t = 0; t = t + f32(acc_j) * scale[j, o]`` for each present level j in palette order; ``t = t + bias[o]``.

    Args:
        accumulators: level index -> shapes as in ``per_channel``.
        scale: ``[n_levels, out_channels]``.
        bias: ``[out_channels]``.
    """
    total: Array = np.zeros((), dtype=np.float32)
    for level in sorted(accumulators):
        terms = accumulators[level].astype(np.float32)
        terms = terms * per_channel(scale[level], terms)
        total = total + terms
    return np.asarray(total + per_channel(bias, total), dtype=np.float32)
