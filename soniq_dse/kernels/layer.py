"""One linear layer or convolution over mixed segments, laid out for the layer driver ``cpu/layer.cpp``.

A *part* is one segment of one group, done by one kernel. Its k is ``channels`` per tap, or ``taps x channels`` folded
into one where that wastes less padding (narrow layers) or where the group's channels do not lie side by side.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.formats import Grid, grid_of
from soniq_dse.kernels.catalog import token_bits
from soniq_dse.kernels.library import ALIGNMENT_BYTES, Kernel, aligned_empty, round_up
from soniq_dse.records.palette import Level

TILE_BYTES = 16 * 1024
"""Block of rows: its fp32 tile and its accumulators take this much each, so that both stay in a 32 KiB L1."""
BLOCK_MULTIPLE = 12
"""Blocks hold a multiple of the tiles of 4, 6 and 12 rows."""
FOLD_GAIN = 0.85
"""Folding gathers codes per output row; it is chosen where it brings the padded k below this part of the direct one."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Geometry:
    """Where the rows of the implicit GEMM find their input pixels; a linear layer is an image of 1 x 1."""

    batch: int
    height: int = 1
    width: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def out_size(self) -> tuple[int, int]:
        """(height, width) of the output."""
        size = [
            (extent + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i, extent in enumerate((self.height, self.width))
        ]
        return size[0], size[1]

    @property
    def rows(self) -> int:
        """Output pixels of the batch."""
        return self.batch * self.out_size[0] * self.out_size[1]

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return self.kernel[0] * self.kernel[1]

    @property
    def pixels(self) -> int:
        """Input pixels of the batch; also the index of the pad pixel."""
        return self.batch * self.height * self.width

    def gather(self) -> NDArray[np.int32]:
        """int32 ``[taps, rows]``: the input pixel of every tap and row, ``pixels`` outside the image."""
        out_h, out_w = self.out_size
        tap = np.arange(self.taps)
        y = self._positions(0, out_h)[tap // self.kernel[1]]
        x = self._positions(1, out_w)[tap % self.kernel[1]]
        inside = ((y >= 0) & (y < self.height))[:, :, None] & ((x >= 0) & (x < self.width))[:, None, :]
        pixel = np.where(inside, y[:, :, None] * self.width + x[:, None, :], -1)
        images = np.arange(self.batch)[None, :, None, None] * self.height * self.width
        all_pixels = np.where(pixel[:, None] < 0, self.pixels, pixel[:, None] + images)
        return np.ascontiguousarray(all_pixels.reshape(self.taps, self.rows), np.int32)

    def _positions(self, axis: int, extent: int) -> Ints:
        """``[kernel, extent]`` input coordinate along one axis per kernel position and output coordinate."""
        starts = np.arange(extent) * self.stride[axis] - self.padding[axis]
        return starts[None, :] + np.arange(self.kernel[axis])[:, None] * self.dilation[axis]


@dataclass(frozen=True)
class InputSegment:
    """Channels ``first .. first + channels - 1`` of the deployed input share a level."""

    level: Level
    first: int
    channels: int


@dataclass(frozen=True)
class LayerWeights:
    """Integers of a layer, output channels in their deployed order.

    weight: int8 ``[out_channels, in_channels / groups, kernel_height, kernel_width]``, input channels as trained.
    in_order: position in the deployed input -> trained channel.
    segments: blocks of the deployed input, in palette order.
    scale: fp32 ``[len(segments), out_channels]``; bias: fp32 ``[out_channels]``.
    """

    weight: NDArray[np.int8]
    in_order: Ints
    segments: tuple[InputSegment, ...]
    signed: bool
    groups: int
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Part:
    """One segment of one group on one kernel.

    ``channels`` are positions in the deployed input; ``taps`` and ``k`` are as the kernel sees them; ``packed`` are its
    weights; ``left``, ``offset`` and ``right`` turn raw sums into the asked ones.
    """

    kernel: Kernel
    segment: int
    level: Level
    first_column: int
    cols: int
    channels: Ints
    folded: bool
    taps: int
    k: int
    packed: NDArray[np.uint8]
    left: int
    right: int
    offset: NDArray[np.int32]

    @property
    def contiguous(self) -> bool:
        """Whether the input channels lie side by side."""
        return bool(self.channels[-1] - self.channels[0] + 1 == len(self.channels))

    @property
    def padded_k(self) -> int:
        """Multiply-accumulates per output, padding included."""
        return self.taps * round_up(self.k, self.kernel.spec.k_group)

    def struct(self, layer: LayerWeights, image: int | None, *, is_first: bool, is_last: bool) -> PartStruct:
        """Its arguments for the driver; ``image`` is the address of its packed input, None where it is folded."""
        columns = slice(self.first_column, self.first_column + self.cols)
        return PartStruct(
            kernel=self.kernel.address,
            weights=self.packed,
            offset=self.offset,
            scale=np.ascontiguousarray(layer.scale[self.segment, columns]),
            left=self.left,
            right=self.right,
            taps=self.taps,
            k=self.k,
            first_column=self.first_column,
            cols=self.cols,
            is_first=int(is_first),
            is_last=int(is_last),
            is_folded=int(self.folded),
            image=image,
            ld_image=self.kernel.a_row_stride(self.k),
            channels=None if self.contiguous else np.ascontiguousarray(self.channels, np.int32),
            first_channel=int(self.channels[0]),
            n_channels=len(self.channels),
        )


Choose = Callable[[Level, int, int], Kernel]
"""(level, rows, cols) -> the kernel to use."""


def plan_parts(layer: LayerWeights, geometry: Geometry, choose: Choose) -> tuple[Part, ...]:
    """The parts of a layer, groups outermost, segments in palette order.

    Raises:
        UserError: a sum could overflow int32.
    """
    out_group, in_group = layer.weight.shape[0] // layer.groups, layer.weight.shape[1]
    parts = []
    for group in range(layer.groups):
        for index, segment in enumerate(layer.segments):
            positions = np.arange(segment.first, segment.first + segment.channels)
            positions = positions[layer.in_order[positions] // in_group == group]
            if not len(positions):
                continue
            columns = slice(group * out_group, (group + 1) * out_group)
            weight = layer.weight[columns][:, layer.in_order[positions] - group * in_group]
            integers = weight.transpose(0, 2, 3, 1).reshape(out_group, geometry.taps, len(positions))
            kernel = choose(segment.level, geometry.rows, out_group)
            parts.append(_part(kernel, index, segment.level, layer.signed, columns.start, positions, integers))
    return tuple(parts)


def block_rows(parts: Sequence[Part], geometry: Geometry, cols: int) -> int:
    """Rows of a block: see ``TILE_BYTES``."""
    widest = max(cols, *(round_up(part.cols, part.kernel.spec.tile[1]) for part in parts))
    fitting = TILE_BYTES // (4 * widest) // BLOCK_MULTIPLE * BLOCK_MULTIPLE
    return int(min(max(fitting, BLOCK_MULTIPLE), geometry.rows))


def corrections(
    kernel: Kernel, grid: Grid, weights: NDArray[np.int8], padded: int
) -> tuple[int, int, NDArray[np.int32]]:
    """(left, right, offset int32 ``[cols]``) with ``asked = ((raw << left) + offset) >> right``.

    With a kernel over ``p u - q`` and a grid ``P u - Q``: ``asked = P/p (raw - pad) + (P/p q - Q) sum(w)``, pad being
    what ``padded`` elements of k add to raw.

    Args:
        weights: ``[cols, taps, k]``.

    Raises:
        UserError: a sum could overflow int32.
    """
    spec = kernel.spec
    c_act, c_wgt = 2 ** token_bits(spec.act) - 1, 2 ** token_bits(spec.wgt) - 1
    p, q = (2, c_act) if spec.act[0] == "z" else (1, 0)
    pad = padded * c_act * c_wgt if spec.act[0] == "z" and spec.wgt != "s8" else 0
    sums = weights.astype(np.int64).sum(axis=(1, 2))
    left, right = int(grid.multiplier > p), int(grid.multiplier < p)
    # Everything is doubled where the sum is halved in the end.
    offset = -(pad << left) + ((q << left) - (grid.offset << right)) * sums
    largest = int(np.abs(weights.astype(np.int64)).sum(axis=(1, 2)).max()) * grid.magnitude << right
    if largest >= 2**31:
        raise UserError(f"{spec.symbol}: sums: expected below 2**31, got up to {largest}; use fewer input channels")
    return left, right, (offset & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def _part(
    kernel: Kernel,
    segment: int,
    level: Level,
    signed: bool,
    first_column: int,
    positions: Ints,
    integers: NDArray[np.int8],
) -> Part:
    cols, taps, channels = integers.shape
    group = kernel.spec.k_group
    direct, folded_k = taps * round_up(channels, group), round_up(taps * channels, group)
    scattered = positions[-1] - positions[0] + 1 != channels
    folded = bool(scattered or folded_k < FOLD_GAIN * direct)
    if folded:
        integers = integers.reshape(cols, 1, taps * channels)
    grid = grid_of(level.activation_format(signed=signed))
    padded = (folded_k if folded else direct) - taps * channels
    left, right, offset = corrections(kernel, grid, integers, padded)
    packed = kernel.pack_w(np.ascontiguousarray(integers))
    return Part(
        kernel=kernel,
        segment=segment,
        level=level,
        first_column=first_column,
        cols=cols,
        channels=positions,
        folded=folded,
        taps=integers.shape[1],
        k=integers.shape[2],
        packed=packed,
        left=left,
        right=right,
        offset=offset,
    )


class Struct(ctypes.Structure):
    """A C structure that takes arrays for pointers and keeps them alive, aligned so that no vector spans two lines."""

    def __init__(self, **fields: Any) -> None:
        fields = {name: _aligned(value) if isinstance(value, np.ndarray) else value for name, value in fields.items()}
        self.kept = [value for value in fields.values() if isinstance(value, np.ndarray | ctypes.Array)]
        super().__init__(**{name: address_of(value) for name, value in fields.items()})


def array_of(kind: type[Struct], items: Sequence[Struct]) -> Any:
    """A C array of structures, which it keeps alive with all that they point to."""
    array: Any = (kind * max(len(items), 1))(*items)
    array.kept = list(items)
    return array


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    if array.ctypes.data % ALIGNMENT_BYTES == 0 and array.flags.c_contiguous:
        return array
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def address_of(value: Any) -> Any:
    """The address of an array; None and plain numbers as they are."""
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    return ctypes.addressof(value) if isinstance(value, ctypes.Array) else value


_I64, _I32, _PTR = ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class PackStruct(Struct):
    """``SoniqPack``."""

    _fields_ = (
        *_fields(_PTR, "kernel codes"),
        *_fields(_I64, "ld_codes pixels k"),
        ("out", _PTR),
        ("ld_out", _I64),
        ("pad_row", _PTR),
    )


class PartStruct(Struct):
    """``SoniqPart``."""

    _fields_ = (
        *_fields(_PTR, "kernel weights offset scale"),
        *_fields(_I32, "left right"),
        *_fields(_I64, "taps k first_column cols"),
        *_fields(_I32, "is_first is_last"),
        ("is_folded", _I64),
        ("image", _PTR),
        ("ld_image", _I64),
        ("channels", _PTR),
        *_fields(_I64, "first_channel n_channels"),
    )


class CodesOutStruct(Struct):
    """``SoniqCodesOut``."""

    _fields_ = (("codes", _PTR), ("ld", _I64), *_fields(_PTR, "inverse shift lo hi"))


class LayerStruct(Struct):
    """``SoniqLayer``."""

    _fields_ = (
        *_fields(_I64, "rows cols taps pixels block_rows"),
        *_fields(_PTR, "gather codes"),
        ("ld_codes", _I64),
        *_fields(_PTR, "pad_codes parts"),
        ("n_parts", _I64),
        *_fields(_PTR, "bias residual"),
        *_fields(_I32, "relu_first relu_last"),
        *_fields(_PTR, "out codes_out"),
        ("n_codes_out", _I64),
        *_fields(_PTR, "acc tile pointers folded_codes folded_rows"),
    )
