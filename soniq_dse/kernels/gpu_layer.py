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
    "relu_last", "n_segments", "unused",
)
# fmt: on
_SEGMENT = np.dtype(
    [(name, "u8") for name in ("weights", "activations", "row_sums", "scale", "offset")]
    + [(name, "i4") for name in ("kind", "steps", "left", "unused")]
)
LAYER = np.dtype(
    [(name, "i4") for name in _INTS]
    + [(name, "u8") for name in ("bias", "residual", "out")]
    + [("segments", _SEGMENT, MOST_SEGMENTS)]
)
"""``Layer`` of ``cuda/layer.h``; pointers as integers."""


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
    if not 1 <= len(segments) <= MOST_SEGMENTS:
        raise UserError(f"segments: expected 1 to {MOST_SEGMENTS}, got {len(segments)}")
    table = np.zeros(1, LAYER)
    pixels = layer.batch * layer.height * layer.width
    sizes = (layer.rows, layer.out_channels // layer.groups, layer.groups, pixels, layer.height, layer.width)
    window = (*layer.out_size, *layer.kernel, *layer.stride, *layer.padding, *layer.dilation)
    flags = (epilogue.relu_first, epilogue.relu_last, len(segments), 0)
    for name, value in zip(_INTS, (*sizes, *window, *flags), strict=True):
        table[name] = value
    table["bias"], table["out"] = place(epilogue.bias.astype(np.float32)), out
    table["residual"] = 0 if epilogue.residual is None else place(epilogue.residual)
    for row, segment in zip(table["segments"][0], segments, strict=False):
        weights, activations, sums, steps = _operands(layer, segment)
        row["weights"], row["activations"], row["row_sums"] = place(weights), place(activations), place(sums)
        row["scale"], row["offset"] = place(segment.scale), place(segment.offset)
        row["kind"] = 16 * segment.part.weight_bits + segment.part.activation_bits
        row["steps"], row["left"] = steps, segment.left
    return table


def _operands(
    layer: Conv2dLayer, segment: GpuSegment
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.int32], int]:
    """Packed weights, activations and sums of every group, and the steps of a tap."""
    part, groups, taps = segment.part, layer.groups, layer.taps
    codes = np.concatenate((segment.codes, segment.pad_codes[None]))
    channels = codes.shape[1] // groups
    steps = padded_steps(part, channels)
    padded_steps(part, taps * steps * part.k_group)
    nothing = 0 if part.wgt == "s8" else 1 - 2**part.weight_bits  # of code 0
    weights = np.full((len(segment.weights), taps, steps * part.k_group), nothing, np.int8)
    weights[:, :, :channels] = segment.weights.reshape(len(segment.weights), taps, channels)
    packed_weights, packed, sums = [], [], []
    for of_group, of_pixels in zip(np.split(weights, groups), np.split(codes, groups, axis=1), strict=True):
        packed_weights.append(pack_weights(part, of_group.reshape(len(of_group), -1)))
        both = pack_activations(part, np.ascontiguousarray(of_pixels))
        packed.append(both[0])
        sums.append(both[1])
    return np.concatenate(packed_weights), np.concatenate(packed), np.concatenate(sums), steps
