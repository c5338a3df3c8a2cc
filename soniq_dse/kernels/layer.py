"""One linear layer or convolution over mixed segments, laid out for the layer driver ``cpu/layer.cpp``.

A *part* is one segment of one group, done by one kernel on one layout of its input (``strips.py``). Its k is the
channels of a tap, or those of a run of taps, or ``taps x channels`` folded into one where that wastes less padding
(narrow layers) or where the group's channels do not lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.formats import Grid, grid_of
from soniq_dse.kernels.catalog import MASKED_ENDS, PLAIN_CODES, token_bits
from soniq_dse.kernels.layer_structs import PartStruct
from soniq_dse.kernels.library import Kernel, round_up
from soniq_dse.kernels.strips import Geometry, Ints, Strips, granule
from soniq_dse.records.choice import PartShape
from soniq_dse.records.palette import Level

MERGED_COLUMNS = 16
"""Groups of fewer output channels than the narrowest vector tiles are done together."""
FOLD_GAIN = 0.85
"""Folding gathers codes per output row; it is chosen where it brings the padded k below this part of the other ways."""


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

    @property
    def grids(self) -> tuple[Grid, ...]:
        """What the codes of each segment mean."""
        return tuple(grid_of(segment.level.activation_format(signed=self.signed)) for segment in self.segments)

    @property
    def is_depthwise(self) -> bool:
        """Whether every output channel reads one input channel of several, and one rule turns sums into asked ones."""
        return self.groups == len(self.in_order) > 1 and len({grid.multiplier for grid in self.grids}) == 1


@dataclass(frozen=True, eq=False)
class Part:
    """One segment of one group on one kernel.

    ``strips`` are its packed input, in which it begins ``skipped`` bytes into a pixel; ``taps`` and ``k`` are as the
    kernel sees them; ``taps_per_row`` pointers lead to what lies under a row of the convolution's kernel.
    ``run_codes``: codes of each that are copied into the folded k, 0 where nothing is folded. ``packed`` are its
    weights; ``left``, ``offset`` and ``right`` turn raw sums into the asked ones.
    """

    kernel: Kernel
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
    scale: NDArray[np.float32]
    depthwise: bool = False

    @property
    def folded(self) -> bool:
        """Whether codes are gathered per output row."""
        return self.run_codes > 0

    @property
    def padded_k(self) -> int:
        """Multiply-accumulates per output, padding included."""
        return self.taps * round_up(self.k, self.kernel.spec.k_group)

    def struct(
        self, geometry: Geometry, strips: Strips, image: int, pad_codes: NDArray[np.uint8], at_once: int, **place: int
    ) -> PartStruct:
        """Its arguments for the driver; ``image`` is the address of ``strips``, its own with their border, and
        ``pad_codes`` a pixel for what lies outside of bare ones."""
        return PartStruct(
            kernel=self.kernel.address,
            weights=self.packed,
            offset=np.tile(self.offset, at_once),
            scale=np.tile(self.scale, at_once),
            left=self.left,
            right=self.right,
            taps=self.taps,
            k=self.k if strips.dense else self.padded_k // self.taps,  # padding needs no masks
            first_column=self.first_column,
            cols=self.cols,
            image=image + self.skipped,
            ld_image=strips.ld(geometry),
            pixel_bytes=strips.pixel_bytes,
            column_bytes=int(self.depthwise),
            pad_pixel=pad_codes if strips.bare and not strips.flat else None,
            first_pixel=0 if strips.flat or strips.bare else strips.left - geometry.padding[1],
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


def merge_groups(layer: LayerWeights) -> LayerWeights:
    """The same layer with fewer groups, up to ``MERGED_COLUMNS`` output channels each, zeros between those that were
    apart: no more work than the padding of narrow columns, in fewer parts. Where a level has no zero, or the channels
    are not in their order, the layer as it is.
    """
    out_group, in_group = layer.weight.shape[0] // layer.groups, layer.weight.shape[1]
    in_order = np.array_equal(layer.in_order, np.arange(len(layer.in_order)))
    has_zero = all(segment.level.weight_bits == 8 for segment in layer.segments)
    fitting = [n for n in range(1, layer.groups + 1) if layer.groups % n == 0 and n * out_group <= MERGED_COLUMNS]
    if layer.is_depthwise or not (fitting and in_order and has_zero):
        return layer
    n = fitting[-1]
    apart = layer.weight.reshape(-1, n, out_group, in_group, *layer.weight.shape[2:])
    merged = np.zeros((len(apart), n, out_group, n, in_group, *layer.weight.shape[2:]), np.int8)
    for index in range(n):
        merged[:, index, :, index] = apart[:, index]
    weight = merged.reshape(len(layer.weight), n * in_group, *layer.weight.shape[2:])
    return replace(layer, weight=weight, groups=layer.groups // n)


def plan_parts(
    layer: LayerWeights, geometry: Geometry, choose: Choose, depthwise: Kernel | None = None
) -> tuple[Part, ...]:
    """The parts of a layer, groups outermost, segments in palette order; one for all of a depthwise convolution where
    its kernel is given.

    Raises:
        UserError: a sum could overflow int32.
    """
    if depthwise is not None and layer.is_depthwise:
        return (_depthwise_part(depthwise, geometry, layer),)
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
    shaped = _whole_pixels(kernel, strips, integers).reshape(cols, taps, -1)
    grid = grid_of(level.activation_format(signed=layer.signed))
    padded = taps * round_up(shaped.shape[2], kernel.spec.k_group) - height * width * channels
    left, right, offset = corrections(kernel, grid, integers.reshape(cols, 1, -1), padded)
    return Part(
        kernel=kernel,
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
        scale=layer.scale[segment, first_column : first_column + cols],
    )


def _whole_pixels(kernel: Kernel, strips: Strips, integers: NDArray[np.int8]) -> NDArray[np.int8]:
    """The weights with those of code 0 that meet what pads the pixels of ``strips``."""
    channels = integers.shape[-1]
    behind = round_up(channels, granule(kernel)) - channels if strips.dense else 0
    code_0 = 0 if kernel.spec.wgt == "s8" else 1 - 2 ** token_bits(kernel.spec.wgt)
    return np.pad(integers, (*[(0, 0)] * 3, (0, behind)), constant_values=code_0) if behind else integers


def _depthwise_part(kernel: Kernel, geometry: Geometry, layer: LayerWeights) -> Part:
    """All output channels, each with the offset and the scale of its input channel's level."""
    cols, per_group = len(layer.weight), len(layer.weight) // layer.groups
    positions = np.argsort(layer.in_order)[np.arange(cols) // per_group]
    integers = np.ascontiguousarray(layer.weight.reshape(cols, geometry.taps, 1))
    offset, scale, left, right = np.empty(cols, np.int32), np.empty(cols, np.float32), 0, 0
    for index, (segment, grid) in enumerate(zip(layer.segments, layer.grids, strict=True)):
        columns = (positions >= segment.first) & (positions < segment.first + segment.channels)
        left, right, offset[columns] = corrections(kernel, grid, integers[columns], 0)
        scale[columns] = layer.scale[index, columns]
    as_they_are = np.array_equal(positions, np.arange(cols))
    return Part(
        kernel=kernel,
        first_column=0,
        cols=cols,
        strips=Strips(None, 0, cols, bare=True)
        if as_they_are and not geometry.is_flat
        else Strips(None, 0, cols, tuple(map(int, positions)), geometry.is_flat),
        skipped=0,
        taps=geometry.taps,
        k=1,
        taps_per_row=geometry.kernel[1],
        run_codes=0,
        packed=kernel.pack_w(integers),
        left=left,
        right=right,
        offset=offset,
        scale=scale,
        depthwise=True,
    )


def _layout(
    kernel: Kernel, folded: bool | None, geometry: Geometry, positions: Ints, in_channels: int
) -> tuple[Strips, int, int, int]:
    """(strips, codes skipped in them, pointers per row of the convolution's kernel, codes copied per pointer or 0).

    A run is one k only if its pixels lie side by side, padded to whole granules where that is less work, and what lies
    behind it is masked or meets weights of zero.
    """
    first, n, group = int(positions[0]), len(positions), kernel.spec.k_group
    height, width = geometry.kernel
    contiguous = int(positions[-1]) - first + 1 == n
    joinable, whole = not geometry.is_flat and granule(kernel) > 0, round_up(n, max(1, granule(kernel)))
    any_end = kernel.spec.wgt == "s8" or kernel.spec.algorithm in MASKED_ENDS
    by_tap = height * width * round_up(n, group)
    by_run = height * round_up(width * whole, group)
    fits = joinable and (by_run <= by_tap if n == whole else by_run < by_tap)
    runs = geometry.has_runs and fits and (width * whole % group == 0 or any_end)
    if not contiguous:
        return Strips(None, 0, n, tuple(map(int, positions)), geometry.is_flat), 0, width, n
    if folded is None:
        folded = round_up(height * width * n, group) < FOLD_GAIN * (by_run if runs else by_tap)
    if folded:
        whole_runs = geometry.has_runs and n == in_channels
        strips = Strips(None, 0, in_channels, flat=geometry.is_flat)
        return strips, first, 1 if whole_runs else width, width * n if whole_runs else n
    if geometry.is_flat and kernel.spec.algorithm in PLAIN_CODES and (n % group == 0 or kernel.spec.wgt == "s8"):
        return Strips(None, 0, in_channels, flat=True, bare=True), first, 1, 0
    dense = joinable and (runs or (n == whole and (n % group == 0 or any_end)))
    strips = Strips(kernel, first, n, flat=geometry.is_flat, dense=dense)
    return strips, 0, 1 if runs else width, 0
