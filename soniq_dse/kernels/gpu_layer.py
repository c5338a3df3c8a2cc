"""Operands of the CUDA layer kernels (``cuda/layer.h``): one linear layer or convolution over several segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.kernels.gpu_pack import pack_activations, pack_weights, padded_steps
from soniq_dse.records.gpu import GpuKernel, GpuLayerKernel
from soniq_dse.records.workload import Conv2dLayer

MOST_SEGMENTS = 8
"""``kSegments`` of ``cuda/layer.h``."""

# fmt: off
_INTS = (
    "rows", "cols", "groups", "pixels", "height", "width", "out_height", "out_width", "kernel_height", "kernel_width",
    "stride_height", "stride_width", "pad_height", "pad_width", "dilation_height", "dilation_width", "relu_first",
    "relu_last", "n_segments", "n_codes",
)
# fmt: on
_SEGMENT = np.dtype(
    [(name, "u8") for name in ("weights", "activations", "row_sums", "scale", "offset")]
    + [(name, "i4") for name in ("kind", "steps", "left", "parts")]
)
CODES = np.dtype(
    [(name, "u8") for name in ("packed", "row_sums", "sources")]
    + [(name, "f4") for name in ("inverse", "shift", "low", "high")]
    + [(name, "i4") for name in ("first", "channels", "bits", "steps", "group_words", "unused")]
)
"""``Codes`` of ``cuda/codes.h``; pointers as integers."""
LAYER = np.dtype(
    [(name, "i4") for name in _INTS]
    + [(name, "u8") for name in ("bias", "residual", "out", "channel_of")]
    + [(name, "i4") for name in ("out_channels", "unused")]
    + [("segments", _SEGMENT, MOST_SEGMENTS), ("codes", CODES, MOST_SEGMENTS)]
)
"""``Layer`` of ``cuda/layer.h``."""


@dataclass(frozen=True)
class GpuSegment:
    """Input channels of one level, those of one group after those of another.

    ``codes`` are ``[pixels, channels]`` of all images, ``pad_codes`` ``[channels]`` stand for what lies outside,
    ``weights`` are ``[out_channels, kernel_height, kernel_width, channels / groups]`` integers. What the sum of codes
    adds to an output is ``((sum << left) + offset[n]) * scale[n]``, ``offset`` and ``scale`` of ``[out_channels]``.
    """

    part: GpuKernel
    codes: NDArray[np.uint8]
    pad_codes: NDArray[np.uint8]
    weights: NDArray[np.int8]
    scale: NDArray[np.float32]
    offset: NDArray[np.int32]
    left: int = 0


@dataclass(frozen=True)
class Epilogue:
    """What follows the sums: ``bias`` ``[out_channels]``, ``residual`` ``[rows, out_channels]``."""

    bias: NDArray[np.float32]
    residual: NDArray[np.float32] | None = None
    relu_first: bool = False
    relu_last: bool = False


def layer_grid(kernel: GpuLayerKernel, layer: Conv2dLayer) -> tuple[int, int]:
    """Blocks along output channels, those of all groups, and along rows."""
    cols = layer.out_channels // layer.groups
    return -(-cols // kernel.tile) * layer.groups, -(-layer.rows // kernel.tile)


@dataclass(frozen=True)
class PlacedSegment:
    """A segment as it lies on the device: addresses, and the sum of a row's codes in ``parts``."""

    part: GpuKernel
    weights: int
    activations: int
    row_sums: int
    scale: int
    offset: int
    steps: int
    left: int
    parts: int = 1


def geometry_table(layer: Conv2dLayer, segments: Sequence[PlacedSegment]) -> NDArray[Any]:
    """The ``Layer`` (one element of ``LAYER``) with all but its epilogue, whose fields are 0.

    Raises:
        UserError: more segments than the kernel takes.
    """
    if not 1 <= len(segments) <= MOST_SEGMENTS:
        raise UserError(f"segments: expected 1 to {MOST_SEGMENTS}, got {len(segments)}")
    table = np.zeros(1, LAYER)
    pixels = layer.batch * layer.height * layer.width
    sizes = (layer.rows, layer.out_channels // layer.groups, layer.groups, pixels, layer.height, layer.width)
    window = (*layer.out_size, *layer.kernel, *layer.stride, *layer.padding, *layer.dilation)
    for name, value in zip(_INTS, (*sizes, *window, 0, 0, len(segments), 0), strict=True):
        table[name] = value
    table["out_channels"] = layer.out_channels
    for row, segment in zip(table["segments"][0], segments, strict=False):
        for name in ("weights", "activations", "row_sums", "scale", "offset", "steps", "left", "parts"):
            row[name] = getattr(segment, name)
        row["kind"] = 16 * segment.part.weight_bits + segment.part.activation_bits
    return table


def layer_table(
    layer: Conv2dLayer,
    segments: Sequence[GpuSegment],
    epilogue: Epilogue,
    out: int,
    place: Callable[[NDArray[Any]], int],
) -> NDArray[Any]:
    """The ``Layer`` (one element of ``LAYER``) that a launch is given.

    Args:
        out: address of the result, ``[rows, out_channels]`` of fp32.
        place: takes an array to where the kernel runs, for as long as it runs, and gives its address there.

    Raises:
        UserError: more segments than the kernel takes, or k beyond the limit of one.
    """
    placed = [_placed(layer, segment, place) for segment in segments]
    table = geometry_table(layer, placed)
    table["relu_first"], table["relu_last"] = epilogue.relu_first, epilogue.relu_last
    table["bias"], table["out"] = place(epilogue.bias.astype(np.float32)), out
    table["residual"] = 0 if epilogue.residual is None else place(epilogue.residual)
    return table


def _placed(layer: Conv2dLayer, segment: GpuSegment, place: Callable[[NDArray[Any]], int]) -> PlacedSegment:
    weights, activations, sums, steps = _operands(layer, segment)
    return PlacedSegment(
        part=segment.part,
        weights=place(weights),
        activations=place(activations),
        row_sums=place(sums),
        scale=place(segment.scale),
        offset=place(segment.offset),
        steps=steps,
        left=segment.left,
    )


def _operands(
    layer: Conv2dLayer, segment: GpuSegment
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.int32], int]:
    """Packed weights, activations and sums of every group, and the steps of a tap."""
    part, groups, taps = segment.part, layer.groups, layer.taps
    codes = np.concatenate((segment.codes, segment.pad_codes[None]))
    channels = codes.shape[1] // groups
    steps = padded_steps(part, channels)
    packed, sums = [], []
    for of_pixels in np.split(codes, groups, axis=1):
        both = pack_activations(part, np.ascontiguousarray(of_pixels))
        packed.append(both[0])
        sums.append(both[1])
    weights = segment.weights.reshape(len(segment.weights), taps, channels)
    return packed_taps(part, weights, groups), np.concatenate(packed), np.concatenate(sums), steps


def packed_taps(part: GpuKernel, weights: NDArray[np.int8], groups: int) -> NDArray[np.uint32]:
    """``[out_channels, taps, channels]`` integers as the layer kernel reads them, group after group.

    Raises:
        UserError: k is beyond the kernel's limit.
    """
    n_out, taps, channels = weights.shape
    steps = padded_steps(part, channels)
    padded_steps(part, taps * steps * part.k_group)
    padded = np.full((n_out, taps, steps * part.k_group), nothing(part), np.int8)
    padded[:, :, :channels] = weights
    return np.concatenate([pack_weights(part, one.reshape(len(one), -1)) for one in np.split(padded, groups)])


def nothing(part: GpuKernel) -> int:
    """The weight of code 0, which pads: beside an activation of code 0 it adds nothing."""
    return 0 if part.wgt == "s8" else 1 - 2**part.weight_bits
