"""One linear layer or convolution over mixed segments, laid out for the layer driver ``cpu/layer.cpp``.

A *part* is one segment of one group, done by one kernel on one layout of its input (``strips.py``). Its k is the
channels of a tap, or those of a run of taps, or ``taps x channels`` folded into one where that wastes less padding
(narrow layers) or where the group's channels do not lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.formats import Grid, grid_of
from soniq_dse.kernels.catalog import token_bits
from soniq_dse.kernels.layer_structs import CodesOutStruct, LayerStruct, PartStruct, array_of
from soniq_dse.kernels.library import ALIGNMENT_BYTES, Kernel, round_up
from soniq_dse.kernels.strips import Geometry, Ints, Strips, granule
from soniq_dse.records.choice import PartShape
from soniq_dse.records.palette import Level

TILE_BYTES = 16 * 1024
"""Block of rows: its fp32 tile and its accumulators take this much each, so that both stay in a 32 KiB L1."""
BLOCK_MULTIPLE = 12
"""Blocks hold a multiple of the tiles of 4, 6 and 12 rows."""
EPILOGUE_COLUMNS = 64
"""Narrower layers go through the epilogue several rows at once, so that its loops are about this long."""
FOLD_GAIN = 0.85
"""Folding gathers codes per output row; it is chosen where it brings the padded k below this part of the other ways."""
GUARD_BYTES = 64
"""Room behind every buffer: kernels and the layer driver may go up to a vector past the end (``cpu/layer.h``)."""


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

    ``strips`` are its packed input, in which it begins ``skipped`` bytes into a pixel; ``taps`` and ``k`` are as the
    kernel sees them; ``taps_per_row`` pointers lead to what lies under a row of the convolution's kernel.
    ``run_codes``: codes of each that are copied into the folded k, 0 where nothing is folded. ``packed`` are its
    weights; ``left``, ``offset`` and ``right`` turn raw sums into the asked ones.
    """

    kernel: Kernel
    segment: int
    level: Level
    first_column: int
    cols: int
    strips: Strips
    skipped: int
    taps: int
    k: int
    taps_per_row: int
    run_codes: int
    packed: NDArray[np.uint8]
    left: int
    right: int
    offset: NDArray[np.int32]

    @property
    def folded(self) -> bool:
        """Whether codes are gathered per output row."""
        return self.run_codes > 0

    @property
    def padded_k(self) -> int:
        """Multiply-accumulates per output, padding included."""
        return self.taps * round_up(self.k, self.kernel.spec.k_group)

    def struct(
        self, layer: LayerWeights, geometry: Geometry, strips: Strips, image: int, at_once: int, **place: int
    ) -> PartStruct:
        """Its arguments for the driver; ``image`` is the address of ``strips``, its own with their border."""
        columns = slice(self.first_column, self.first_column + self.cols)
        return PartStruct(
            kernel=self.kernel.address,
            weights=self.packed,
            offset=np.tile(self.offset, at_once),
            scale=np.tile(layer.scale[self.segment, columns], at_once),
            left=self.left,
            right=self.right,
            taps=self.taps,
            k=self.k,
            first_column=self.first_column,
            cols=self.cols,
            image=image + self.skipped,
            ld_image=strips.ld(geometry),
            pixel_bytes=strips.pixel_bytes,
            first_pixel=0 if strips.flat else strips.left - geometry.padding[1],
            taps_per_row=self.taps_per_row,
            run_codes=self.run_codes,
            ld_folded=self.kernel.a_row_stride(self.k),
            **place,
        )


Choose = Callable[[PartShape], tuple[Kernel, bool | None]]
"""Shape of a part -> the kernel to use, and whether taps and channels become one k; None: where that pads less."""


def part_shapes(layer: LayerWeights, geometry: Geometry) -> tuple[PartShape, ...]:
    """The shapes of a layer's parts, in the order of ``plan_parts``."""
    return tuple(_shape_of(layer, geometry, *cut) for cut in _cuts(layer))


def plan_parts(layer: LayerWeights, geometry: Geometry, choose: Choose) -> tuple[Part, ...]:
    """The parts of a layer, groups outermost, segments in palette order.

    Raises:
        UserError: a sum could overflow int32.
    """
    out_group, in_group = layer.weight.shape[0] // layer.groups, layer.weight.shape[1]
    parts = []
    for group, index, positions in _cuts(layer):
        columns = slice(group * out_group, (group + 1) * out_group)
        weight = layer.weight[columns][:, layer.in_order[positions] - group * in_group]
        integers = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
        kernel, folded = choose(_shape_of(layer, geometry, group, index, positions))
        parts.append(_part(kernel, folded, geometry, layer, index, columns.start, positions, integers))
    return tuple(parts)


def _cuts(layer: LayerWeights) -> Iterator[tuple[int, int, Ints]]:
    """(group, segment, positions in the deployed input) of every part."""
    in_group = layer.weight.shape[1]
    for group in range(layer.groups):
        for index, segment in enumerate(layer.segments):
            positions = np.arange(segment.first, segment.first + segment.channels)
            positions = positions[layer.in_order[positions] // in_group == group]
            if len(positions):
                yield group, index, positions


def _shape_of(layer: LayerWeights, geometry: Geometry, group: int, index: int, positions: Ints) -> PartShape:
    return PartShape(
        level=layer.segments[index].level,
        signed=layer.signed,
        rows=geometry.rows,
        cols=layer.weight.shape[0] // layer.groups,
        taps=geometry.taps,
        run=geometry.kernel[1] if geometry.has_runs else 1,
        channels=len(positions),
        pixels=geometry.pixels,
        contiguous=bool(positions[-1] - positions[0] + 1 == len(positions)),
    )


@dataclass(frozen=True)
class Tiling:
    """How the driver walks a layer: blocks of rows, narrow rows done at once, shares of its threads, and the scratch of
    one share (offsets by name, all of it in bytes)."""

    block_rows: int
    rows_at_once: int
    row_shares: int
    column_shares: int
    column_step: int
    scratch: Mapping[str, int]
    scratch_bytes: int

    @property
    def shares(self) -> int:
        """Threads that have work."""
        return self.row_shares * self.column_shares


def tile_layer(parts: Sequence[Part], geometry: Geometry, cols: int, threads: int = 1) -> Tiling:
    """The walk over a layer of ``cols`` output channels by ``threads`` threads."""
    one_group = all(part.cols == cols for part in parts)
    step = lcm(*(part.kernel.spec.tile[1] for part in parts)) if one_group else parts[0].cols
    row_shares, column_shares = shares(geometry.rows, cols, step, threads)
    rows = block_rows(parts, ceil(geometry.rows / row_shares), cols)
    sums_are_dense = one_group and all(cols % part.kernel.spec.tile[1] == 0 for part in parts)
    at_once = max(1, EPILOGUE_COLUMNS // cols) if sums_are_dense and column_shares == 1 else 1
    sizes = {
        "acc": 4 * rows * max(round_up(part.cols, part.kernel.spec.tile[1]) for part in parts),
        "tile": 4 * rows * cols,
        "pointers": 8 * rows * geometry.taps,
        "folded_codes": max(rows * part.k if part.folded else 0 for part in parts),
        "folded_rows": max(rows * part.kernel.a_row_stride(part.k) if part.folded else 0 for part in parts),
    }
    scratch, total = {}, 0
    for name, size in sizes.items():
        scratch[name] = total
        total += round_up(size + GUARD_BYTES, ALIGNMENT_BYTES)
    return Tiling(rows, at_once, row_shares, column_shares, step, scratch, total)


def block_rows(parts: Sequence[Part], rows: int, cols: int) -> int:
    """Rows of a block: see ``TILE_BYTES``."""
    widest = max(cols, *(round_up(part.cols, part.kernel.spec.tile[1]) for part in parts))
    fitting = TILE_BYTES // (4 * widest) // BLOCK_MULTIPLE * BLOCK_MULTIPLE
    return int(min(max(fitting, BLOCK_MULTIPLE), rows))


def shares(rows: int, cols: int, column_step: int, threads: int) -> tuple[int, int]:
    """(row shares, column shares) of a layer, at most ``threads`` together: the split whose largest share is least.

    A share costs its tiles (``BLOCK_MULTIPLE`` rows x ``column_step`` columns), and one column of tiles more for what
    each share of columns does again: packing folded rows, pointers.
    """
    panels = ceil(cols / column_step)

    def largest(split: tuple[int, int]) -> int:
        return ceil(ceil(rows / split[0]) / BLOCK_MULTIPLE) * (ceil(panels / split[1]) + 1)

    splits = [(min(by_row, rows), min(threads // by_row, panels)) for by_row in range(1, threads + 1)]
    return min(splits, key=lambda split: (largest(split), split[1]))


def layer_struct(
    layer: LayerWeights,
    geometry: Geometry,
    parts: Sequence[Part],
    tiling: Tiling,
    *,
    images: Sequence[tuple[Strips, int]],
    scratch: int,
    codes_out: Sequence[Mapping[str, Any]],
    **outputs: Any,
) -> LayerStruct:
    """The arguments of the driver.

    Args:
        images: the bordered strips of each part, and their address.
        scratch: address of ``tiling.shares`` times its scratch.
        codes_out: ``codes`` (address) and the requantisation's vectors ``[cols]`` of each quantizer of the output.
        outputs: residual, relu_first, relu_last, out, as in ``SoniqLayer``.
    """
    cols, at_once = layer.weight.shape[0], tiling.rows_at_once
    structs = [
        part.struct(layer, geometry, strips, image, at_once, **_place(part, parts))
        for part, (strips, image) in zip(parts, images, strict=True)
    ]
    outs = [
        CodesOutStruct(ld=cols, **{name: _repeated(value, at_once) for name, value in out.items()}) for out in codes_out
    ]
    flat = geometry.is_flat
    return LayerStruct(
        rows=geometry.rows,
        cols=cols,
        block_rows=tiling.block_rows,
        rows_at_once=at_once,
        row_shares=tiling.row_shares,
        column_shares=tiling.column_shares,
        column_step=tiling.column_step,
        out_height=1 if flat else geometry.out_size[0],
        out_width=geometry.rows if flat else geometry.out_size[1],
        height=1 if flat else geometry.height,
        n_strips=geometry.pixels if flat else geometry.batch * geometry.height,
        kernel_height=geometry.kernel[0],
        stride_height=geometry.stride[0],
        stride_width=geometry.stride[1],
        pad_height=geometry.padding[0],
        dilation_height=geometry.dilation[0],
        dilation_width=geometry.dilation[1],
        parts=array_of(PartStruct, structs),
        n_parts=len(parts),
        bias=np.tile(layer.bias, at_once),
        codes_out=array_of(CodesOutStruct, outs),
        n_codes_out=len(outs),
        scratch_bytes=tiling.scratch_bytes,
        **{name: scratch + at for name, at in tiling.scratch.items()},
        **outputs,
    )


def _repeated(value: Any, times: int) -> Any:
    return np.tile(value, times) if isinstance(value, np.ndarray) else value


def _place(part: Part, parts: Sequence[Part]) -> dict[str, int]:
    """Whether ``part`` is the first and the last one of its output channels."""
    peers = [other for other in parts if other.first_column == part.first_column]
    return {"is_first": int(peers[0] is part), "is_last": int(peers[-1] is part)}


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
    folded: bool | None,
    geometry: Geometry,
    layer: LayerWeights,
    segment: int,
    first_column: int,
    positions: Ints,
    integers: NDArray[np.int8],
) -> Part:
    """The part of ``integers [cols, kernel_height, kernel_width, channels]``."""
    level = layer.segments[segment].level
    strips, skipped, taps_per_row, run_codes = _layout(kernel, folded, geometry, positions, len(layer.in_order))
    cols, height, width, channels = integers.shape
    taps = 1 if run_codes else height * taps_per_row
    shaped = integers.reshape(cols, taps, -1)
    grid = grid_of(level.activation_format(signed=layer.signed))
    padded = taps * round_up(shaped.shape[2], kernel.spec.k_group) - height * width * channels
    left, right, offset = corrections(kernel, grid, shaped, padded)
    return Part(
        kernel=kernel,
        segment=segment,
        level=level,
        first_column=first_column,
        cols=cols,
        strips=strips,
        skipped=skipped,
        taps=taps,
        k=shaped.shape[2],
        taps_per_row=taps_per_row,
        run_codes=run_codes,
        packed=kernel.pack_w(np.ascontiguousarray(shaped)),
        left=left,
        right=right,
        offset=offset,
    )


def _layout(
    kernel: Kernel, folded: bool | None, geometry: Geometry, positions: Ints, in_channels: int
) -> tuple[Strips, int, int, int]:
    """(strips, codes skipped in them, pointers per row of the convolution's kernel, codes copied per pointer or 0).

    A run is one k only if nothing pads its pixels, and what lies behind it meets weights of zero.
    """
    first, n, group = int(positions[0]), len(positions), kernel.spec.k_group
    height, width = geometry.kernel
    contiguous = int(positions[-1]) - first + 1 == n
    dense = not geometry.is_flat and granule(kernel) > 0 and n % granule(kernel) == 0
    ends_in_zeros = kernel.spec.wgt == "s8"
    by_tap = height * width * round_up(n, group)
    by_run = height * round_up(width * n, group)
    runs = geometry.has_runs and dense and (width * n % group == 0 or ends_in_zeros) and by_run <= by_tap
    if not contiguous:
        return Strips(None, 0, n, tuple(map(int, positions)), geometry.is_flat), 0, width, n
    if folded is None:
        folded = round_up(height * width * n, group) < FOLD_GAIN * (by_run if runs else by_tap)
    if folded:
        whole_runs = geometry.has_runs and n == in_channels
        strips = Strips(None, 0, in_channels, flat=geometry.is_flat)
        return strips, first, 1 if whole_runs else width, width * n if whole_runs else n
    dense = dense and (runs or n % group == 0 or ends_in_zeros)
    strips = Strips(kernel, first, n, flat=geometry.is_flat, dense=dense)
    return strips, 0, 1 if runs else width, 0
