"""The walk of the layer driver over a layer: blocks of rows, shares of threads, scratch; and its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, lcm
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from soniq_dse.kernels.layer import LayerWeights, Part
from soniq_dse.kernels.layer_structs import CodesOutStruct, LayerStruct, PartStruct, array_of
from soniq_dse.kernels.library import ALIGNMENT_BYTES, GUARD_BYTES, round_up
from soniq_dse.kernels.strips import Geometry, Strips

TILE_BYTES = 16 * 1024
"""Block of rows: its fp32 tile and its accumulators take this much each, so that both stay in a 32 KiB L1."""
BLOCK_MULTIPLE = 12
"""Blocks hold a multiple of the tiles of 4, 6 and 12 rows, and of 8 where two of these fit."""
EPILOGUE_COLUMNS = 128
"""Narrower layers go through the epilogue several rows at once, so that its loops are about this long."""
WIDE_COLUMNS = 1024
"""Of wider layers so many output channels are done for all rows, then the next: their weights stay in a cache, and are
not read again for every dozen rows."""
DEPTHWISE_COLUMNS = 192
"""Output channels that a depthwise layer does at once: blocks of 12 rows or more of them."""


class Pool(NamedTuple):
    """A max pool that is done on sums, padded by as much as its windows overlap."""

    kernel: tuple[int, int]
    stride: tuple[int, int]


NO_POOL = Pool((1, 1), (1, 1))


class Image(NamedTuple):
    """Strips with their border, in memory."""

    strips: Strips
    address: int


@dataclass(frozen=True)
class Tiling:
    """How the driver walks a layer: blocks of rows and columns, and which of them go on first; narrow rows done at
    once, shares of its threads, rows of a band and windows of the pool that follows it; and the scratch of one share
    (offsets by name, all of it in bytes)."""

    block_rows: int
    block_columns: int
    columns_first: bool
    rows_at_once: int
    row_shares: int
    column_shares: int
    column_step: int
    band_rows: int
    pool: Pool
    scratch: Mapping[str, int]
    scratch_bytes: int

    @property
    def shares(self) -> int:
        """Threads that have work."""
        return self.row_shares * self.column_shares


def tile_layer(parts: Sequence[Part], geometry: Geometry, cols: int, threads: int = 1, pool: Pool = NO_POOL) -> Tiling:
    """The walk over a layer of ``cols`` output channels by ``threads`` threads."""
    one_group = all(part.cols == cols for part in parts)
    step = lcm(*(part.kernel.spec.tile[1] for part in parts)) if one_group else parts[0].cols
    row_shares, column_shares = shares(geometry.rows, cols, step, threads)
    shared_rows = ceil(geometry.rows / row_shares)
    columns, columns_first = cols, False
    if parts[0].depthwise:
        columns = min(cols, DEPTHWISE_COLUMNS)
    elif shared_rows > BLOCK_MULTIPLE:
        columns = min(cols, round_up(WIDE_COLUMNS, step))
        columns_first = columns < cols
    band_rows = 1 if pool == NO_POOL else pool.stride[0] * geometry.out_size[1]
    rows = block_rows(parts, shared_rows, columns)
    if band_rows > 1:
        columns, columns_first = cols, False
        rows = pool.kernel[0] * geometry.out_size[1]
    sums_are_dense = one_group and all(cols % part.kernel.spec.tile[1] == 0 for part in parts)
    at_once = max(1, EPILOGUE_COLUMNS // cols) if sums_are_dense and column_shares == 1 else 1
    sizes = {
        "acc": 4 * rows * max(round_up(min(part.cols, columns), part.kernel.spec.tile[1]) for part in parts),
        "tile": 4 * rows * cols,
        "pointers": 8 * rows * geometry.taps,
        "folded_codes": max(rows * part.k if part.folded else 0 for part in parts),
        "folded_rows": max(rows * part.kernel.a_row_stride(part.k) if part.folded else 0 for part in parts),
    }
    scratch, total = {}, 0
    for name, size in sizes.items():
        scratch[name] = total
        total += round_up(size + GUARD_BYTES, ALIGNMENT_BYTES)
    shared = row_shares, column_shares, step
    return Tiling(rows, columns, columns_first, at_once, *shared, band_rows, pool, scratch, total)


def block_rows(parts: Sequence[Part], rows: int, cols: int) -> int:
    """Rows of a block of ``cols`` columns: see ``TILE_BYTES``."""
    widest = max(cols, *(round_up(min(part.cols, cols), part.kernel.spec.tile[1]) for part in parts))
    return fitting_rows(rows, widest)


def fitting_rows(rows: int, cols: int) -> int:
    """Rows of a block: as many as fit of ``cols`` columns, or fewer where the last block would hold next to none."""
    twice = 2 * BLOCK_MULTIPLE
    most = max(TILE_BYTES // (4 * cols) // twice * twice, BLOCK_MULTIPLE)
    is_thin = 0 < 4 * (rows % most) < most
    return ceil(rows / ceil(rows / most)) if is_thin else min(most, rows)


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
    images: Sequence[Image],
    pad_codes: NDArray[np.uint8],
    scratch: int,
    codes_out: Sequence[Mapping[str, Any]],
    **outputs: Any,
) -> LayerStruct:
    """The arguments of the driver.

    Args:
        images: the packed input of each part.
        pad_codes: a pixel of codes for what lies outside the image, guard bytes behind it.
        scratch: address of ``tiling.shares`` times its scratch.
        codes_out: ``codes`` (address) and the requantisation's vectors ``[cols]`` of each quantizer of the output.
        outputs: residual, relu_first, relu_last, out, as in ``SoniqLayer``.
    """
    cols, at_once = layer.weight.shape[0], tiling.rows_at_once
    structs = [
        part.struct(geometry, image.strips, image.address, pad_codes, at_once, **_place(part, parts))
        for part, image in zip(parts, images, strict=True)
    ]
    outs = [
        CodesOutStruct(ld=cols, rectifies=_rectifies(out), **{name: _repeated(v, at_once) for name, v in out.items()})
        for out in codes_out
    ]
    flat = geometry.is_flat
    return LayerStruct(
        rows=geometry.rows,
        cols=cols,
        block_rows=tiling.block_rows,
        block_columns=tiling.block_columns,
        columns_first=tiling.columns_first,
        rows_at_once=at_once,
        row_shares=tiling.row_shares,
        column_shares=tiling.column_shares,
        column_step=tiling.column_step,
        band_rows=tiling.band_rows,
        pool_height=tiling.pool.kernel[0],
        pool_width=tiling.pool.kernel[1],
        pool_row_step=tiling.pool.stride[0],
        pool_column_step=tiling.pool.stride[1],
        pool_bands=geometry.out_size[0] // tiling.pool.stride[0],
        out_height=1 if flat else geometry.out_size[0],
        out_width=geometry.rows if flat else geometry.out_size[1],
        height=1 if flat else geometry.height,
        width=geometry.width,
        n_strips=geometry.pixels if flat else geometry.batch * geometry.height,
        kernel_height=geometry.kernel[0],
        stride_height=geometry.stride[0],
        stride_width=geometry.stride[1],
        pad_height=geometry.padding[0],
        pad_width=geometry.padding[1],
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


def _rectifies(out: Mapping[str, Any]) -> int:
    """Whether one rule makes all codes, and gives 0 to what is not positive."""
    no_offset = not out["shift"].any() and not out["lo"].any()
    return int(no_offset and np.ptp(out["inverse"]) == 0 and np.ptp(out["hi"]) == 0)


def _repeated(value: Any, times: int) -> Any:
    return np.tile(value, times) if isinstance(value, np.ndarray) else value


def _place(part: Part, parts: Sequence[Part]) -> dict[str, int]:
    """Whether ``part`` is the first and the last one of its output channels."""
    peers = [other for other in parts if other.first_column == part.first_column]
    return {"is_first": int(peers[0] is part), "is_last": int(peers[-1] is part)}
