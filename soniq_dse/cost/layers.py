"""Cycles of one linear layer or convolution over mixed segments, part by part as the layer driver runs them.

A part is one segment of one group on one kernel in one layout: the cheapest of all that the machine has for it. Parts
follow one another, so that a layer is the sum of its segments, plus what it pays once: bias and activation,
requantisation, the step itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt

from soniq_dse.cost.choice import DEPTHWISE_COLUMNS, Chooser, Kernel, Way
from soniq_dse.cost.graph import MatmulLayer
from soniq_dse.cost.memory import Hierarchy, Nest
from soniq_dse.cost.vector_loops import (
    DEPTHWISE,
    DEPTHWISE_DOT,
    EMIT,
    FINISH,
    GATHER_CYCLES,
    MERGE,
    PART,
    PART_CYCLES,
    PIECE_CYCLES,
    PIXEL_CYCLES,
    POINTER_CYCLES,
    RECTIFY,
    ROW_CYCLES,
    SHORT_CYCLES,
    STRIP_CYCLES,
    TAP_CYCLES,
    TILE_CYCLES,
    VectorLoops,
)
from soniq_dse.errors import UserError
from soniq_dse.hardware.features import plain
from soniq_dse.kernels.catalog import MASKED_ENDS, PLAIN_CODES, ROW_SUMS
from soniq_dse.kernels.walk import BLOCK_MULTIPLE, EPILOGUE_COLUMNS, WIDE_COLUMNS, fitting_rows
from soniq_dse.records.choice import Choices, KernelChoice, KernelOption, PartShape
from soniq_dse.records.cost import Bound
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import MAX_BITS, Level
from soniq_dse.records.workload import GemmLayer, Segment

TILE_ROWS_OF_WEIGHTS = 2.0
"""Rows' worth of a tile's work that its weights take (loads, unpacking), so that few rows cost more than their share;
1.5 to 2.5 for the table, multiply and byte kernels of a Zen 3 core."""
_FP32 = Level(weight_bits=8, activation_bits=32)
LONGEST_MASKED, SHORT_BYTES = 64, (4, 8, 16)
"""Codes that the 1-bit kernels pack at once, and padded bytes of a pixel that the byte kernels copy as one vector."""
OPTIONS_KEPT = 3
"""Of a choice: what is taken, and the next best."""


@dataclass(frozen=True)
class PartCost:
    """Cycles of one part and how it was laid out; ``padded_macs`` include padding of k and of columns.

    ``bytes_by_level`` is what each cache, and last memory, delivers.
    """

    kernel: Kernel
    compute: float
    memory: float
    packing: float
    epilogue: float
    overhead: float
    bound: Bound
    macs: int
    padded_macs: float
    folded: bool
    bytes_by_level: tuple[float, ...] = ()
    choice: KernelChoice | None = None

    @property
    def cycles(self) -> float:
        """The sum of the terms."""
        return self.compute + self.memory + self.packing + self.epilogue + self.overhead


class LayerCoster:
    """Costs of parts on one machine, each on the kernel that ``choices`` name, else on the cheapest."""

    def __init__(self, hw: HardwareModel, chooser: Chooser, threads: int = 1, choices: Choices | None = None) -> None:
        self._chooser, self.loops = chooser, VectorLoops(hw)
        self._sums_four_taps = {"avx512vnni", "avx512vl"} <= {plain(feature) for feature in hw.features}
        self.hierarchy, self.threads = Hierarchy(hw, threads), threads
        self.call_cycles = hw.overhead.call_ns.value * hw.clock_ghz.value
        self._us_per_cycle = 1e-3 / hw.clock_ghz.value
        self._given = choices or Choices()

    def parts(
        self, layer: MatmulLayer, segments: Sequence[Segment] | None, *, signed: bool, home: int = 0
    ) -> tuple[PartCost, ...]:
        """Costs of a layer's parts; ``segments`` None: one in fp32. ``home``: the level where its weights start.

        Raises:
            UserError: a level has no kernel and no recipe on this machine.
        """
        out, groups = layer.out_channels, layer.n_groups
        if segments is None:
            shape = _shape_of(layer, _FP32, layer.segment_channels, signed=signed)
            return (self._part(shape, self._chooser.fp32(), False, home, out, groups),)
        if layer.n_groups > 1 and layer.segment_channels == 1:
            return (self._depthwise(layer),)
        return tuple(self._segment(layer, segment, signed=signed, home=home) for segment in segments)

    def _depthwise(self, layer: MatmulLayer) -> PartCost:
        """All channels at once by the driver's own kernel, which reads plain codes whatever their levels."""
        rows, cols = -(-layer.rows // self.threads), layer.out_channels
        panels = -(-cols // DEPTHWISE_COLUMNS)
        loop, taps_at_once = (DEPTHWISE_DOT, 4) if self._sums_four_taps else (DEPTHWISE, 2)
        macs = rows * panels * DEPTHWISE_COLUMNS * -(-layer.taps // taps_at_once) * taps_at_once
        compute = self.loops.floats(macs, loop)
        return PartCost(
            kernel=self._chooser.depthwise(compute / macs),
            compute=compute,
            memory=0.0,
            packing=0.0,
            epilogue=rows * ROW_CYCLES + self.loops.floats(rows * cols, PART),
            overhead=PART_CYCLES + rows * layer.taps * POINTER_CYCLES + panels * rows / 2 * TILE_CYCLES,
            bound="issue",
            macs=rows * cols * layer.taps,
            padded_macs=float(macs),
            folded=False,
            bytes_by_level=(0.0,) * len(self.hierarchy.capacity_bytes),
        )

    def choose(self, shape: PartShape, home: int) -> KernelChoice | None:
        """What runs a part on this machine: what was given, else the cheapest; None where only a recipe prices it.

        Raises:
            UserError: as ``parts``.
        """
        return self._way(shape, home)[2]

    def _segment(self, layer: MatmulLayer, segment: Segment, *, signed: bool, home: int) -> PartCost:
        groups = min(layer.n_groups, segment.channels)
        shape = _shape_of(layer, segment.level, -(-segment.channels // groups), signed=signed)
        kernel, folded, choice = self._way(shape, home)
        cost = self._part(shape, kernel, folded, home, layer.out_channels, groups)
        if layer.taps > 1 and not folded and segment.channels < layer.segment_channels * layer.n_groups:
            pixels = -(-shape.pixels // self.threads) * groups
            cost = replace(cost, packing=cost.packing + pixels * _piece_cycles(shape, kernel))
        overhead = cost.overhead + groups * _strips(layer) / self.threads * STRIP_CYCLES
        return replace(cost, choice=choice, overhead=overhead)

    def _way(self, shape: PartShape, home: int) -> Way:
        given = self._given.of(shape)
        if given is not None:
            return self._chooser.named(given.taken.symbol), given.taken.folded, given
        known, key = self._chooser.ways, (shape, home, self.threads)
        if key not in known:
            known[key] = self._cheapest(shape, home)
        return known[key]

    def _cheapest(self, shape: PartShape, home: int) -> Way:
        """The best of all kernels in all layouts by what the part costs on them.

        They come by the rate of their loops, which no part undercuts: the first that is too slow ends the search.
        """
        found: list[tuple[float, Kernel, bool]] = []
        kernels = self._chooser.kernels(shape.level)
        for kernel in kernels:
            least = shape.macs / self.threads * kernel.cycles_per_mac
            if len(found) >= OPTIONS_KEPT and least > found[OPTIONS_KEPT - 1][0]:
                break
            for folded in shape.layouts:
                if _padded_depth(shape, kernel, folded=folded) <= kernel.k_max:
                    found.append((self._part(shape, kernel, folded, home, shape.cols, 1).cycles, kernel, folded))
            found.sort(key=lambda entry: entry[0])
        if not found:
            return kernels[0], min(shape.layouts, key=lambda way: _padded_depth(shape, kernels[0], folded=way)), None
        _, best, folded = found[0]
        if not best.exists:
            return best, folded, None
        options = tuple(
            KernelOption(symbol=kernel.name, folded=folded, latency_us=cycles * self._us_per_cycle)
            for cycles, kernel, folded in found[:OPTIONS_KEPT]
            if kernel.exists
        )
        return best, folded, KernelChoice(shape=shape, source="predicted", options=options)

    def finish(self, layer: MatmulLayer, n_parts: int, written_bytes: float = 0.0, home: int = 0) -> float:
        """Cycles of adding up the parts of each output, and of bias and activation, in the pass of the last part.

        Args:
            written_bytes: of fp32 and codes; a line that is written is read first, and written back.
            home: the level that holds the network; what exceeds the caches of the core is there.
        """
        rows = -(-layer.rows // self.threads)
        elements = rows * layer.out_channels
        cycles = (n_parts - 1) * self.loops.floats(elements, MERGE) + self.loops.floats(elements, FINISH)
        width = min(layer.out_channels // layer.n_groups, WIDE_COLUMNS)
        scratch = 4 * fitting_rows(rows, width) * width
        passes = 2 * n_parts - 1  # over sums, and over what the parts before left: in and out
        cycles += self.hierarchy.cycles(8 * passes * elements, scratch if n_parts == 1 else 2 * scratch)
        if home:  # since that memory was used last, all else has passed by
            beyond = max(written_bytes, self.hierarchy.capacity_bytes[0] + 1)
            cycles += self.hierarchy.cycles(2 * written_bytes / self.threads, beyond, home)
        return cycles

    def emit(self, layer: MatmulLayer, *, signed: bool = True) -> float:
        """Cycles to write codes of the layer's output, in the same pass."""
        rows = -(-layer.rows // self.threads)
        return self.loops.floats(rows * layer.out_channels, EMIT if signed else RECTIFY)

    def _part(
        self, shape: PartShape, kernel: Kernel, folded: bool, home: int, out_channels: int, n_groups: int
    ) -> PartCost:
        """One part in each of ``n_groups`` groups: costs are those of all of them."""
        rows, cols, pixels = -(-shape.rows // self.threads), shape.cols, -(-shape.pixels // self.threads)
        taps, k = _depth(shape, kernel, folded=folded)
        panels, padded_k = -(-cols // kernel.cols), _round_up(k, kernel.k_group)
        windows = -(-cols // WIDE_COLUMNS) if rows > BLOCK_MULTIPLE else 1
        block = block_rows_of(-(-out_channels // windows), kernel, -(-cols // windows), rows)
        compute, overhead = _product(kernel, rows, block, cols, taps, k)
        row_bytes = taps * padded_k * kernel.activation_bits / 8
        pixels = rows if folded else pixels
        nest = Nest(
            rows=rows,
            block_rows=block,
            tile_rows=min(kernel.rows, rows),
            panels=-(-panels // windows),
            panel_bytes=kernel.cols * taps * padded_k * kernel.stored_bits / 8,
            row_bytes=row_bytes,
            image_bytes=pixels * row_bytes / (1 if folded else shape.taps),
            repeats=windows,
        )
        traffic = self.hierarchy.traffic(nest, home)
        overhead += PART_CYCLES + -(-rows // block) * self.call_cycles + rows * taps * POINTER_CYCLES
        packing = 0.0
        if folded or not _reads_codes(shape, kernel):
            # Pixels that lie side by side are packed a row of the image at a time: of a square one.
            by_row = shape.taps > 1 and n_groups == 1 and not folded and _is_dense(shape, kernel)
            joined = isqrt(pixels) if by_row else 1
            packing = self.loops.pack(
                pixels / joined, joined * (k if folded else shape.channels), kernel.algorithm, kernel.activation_bits
            )
        if folded:
            packing += rows * shape.taps * GATHER_CYCLES
        elif shape.taps > 1 and not _is_dense(shape, kernel):
            packing += pixels * (0.0 if _packs_short(shape, kernel) else PIXEL_CYCLES)
        at_once = max(1, EPILOGUE_COLUMNS // out_channels) if cols == out_channels and cols % kernel.cols == 0 else 1
        epilogue = rows / at_once * ROW_CYCLES + self.loops.floats(rows * cols, PART)
        return PartCost(
            kernel=kernel,
            compute=n_groups * compute,
            memory=n_groups * traffic.waited(compute),
            packing=n_groups * packing if kernel.priced_by != "fp32" else 0.0,
            epilogue=n_groups * epilogue if kernel.priced_by != "fp32" else 0.0,
            overhead=n_groups * overhead,
            bound=traffic.bound if traffic.waited(compute) > 0 else kernel.loop.bound,
            macs=n_groups * rows * cols * shape.taps * shape.channels,
            padded_macs=float(n_groups * rows * panels * kernel.cols * taps * padded_k),
            folded=folded,
            bytes_by_level=tuple(n_groups * size for size in traffic.bytes_by_level),
        )


def block_rows_of(out_channels: int, kernel: Kernel, cols: int, rows: int) -> int:
    """Rows that the layer driver takes at a time (``kernels.layer.block_rows``)."""
    widest = max(out_channels, _round_up(cols, kernel.cols))
    return fitting_rows(rows, widest)


def _product(kernel: Kernel, rows: int, block: int, cols: int, taps: int, k: int) -> tuple[float, float]:
    """(cycles of the kernel's calls, one for each block of rows; what is counted beside them)."""
    if kernel.calls is not None:
        with contextlib.suppress(UserError):  # a machine may have figures for a kernel's loop, but not for all its code
            cycles = rows // block * kernel.calls.cycles(block, cols, taps, k)
            return cycles + (kernel.calls.cycles(rows % block, cols, taps, k) if rows % block else 0.0), 0.0
    panels = -(-cols // kernel.cols)
    tiles, compute = _tiles(kernel, rows, block, taps * _round_up(k, kernel.k_group))
    compute = panels * (compute + (kernel.output_cycles + taps * kernel.tap_cycles) * rows * kernel.cols)
    return compute, panels * tiles * (TILE_CYCLES + taps * TAP_CYCLES)


def _tiles(kernel: Kernel, rows: int, block: int, padded_k: int) -> tuple[int, float]:
    """(tiles, cycles of their loops) of one panel. A tile of few rows saves their share only, and waits as long."""
    passes, loop_cycles = padded_k / kernel.pass_k, kernel.loop.expected_cycles
    n_tiles, cycles = 0, 0.0
    for size, count in ((block, rows // block), (rows % block, 1)):
        full, tail = divmod(size, kernel.rows)
        n_tiles += count * (full + (tail > 0))
        cycles += count * full * loop_cycles
        if tail:
            share = (tail + TILE_ROWS_OF_WEIGHTS) / (kernel.rows + TILE_ROWS_OF_WEIGHTS)
            cycles += count * max(loop_cycles * share, kernel.loop.latency_cycles)
    return n_tiles, passes * cycles


def _depth(shape: PartShape, kernel: Kernel, *, folded: bool) -> tuple[int, int]:
    """(taps, k) as the kernel sees them (``kernels.layer``).

    Taps side by side are one k where nothing pads their pixels and what follows is masked or meets weights of zero.
    """
    joined = shape.run * _whole_channels(shape, kernel)
    any_end = kernel.weight_bits == MAX_BITS or (kernel.activation_bits == 1 and kernel.algorithm in MASKED_ENDS)
    if folded:
        return 1, shape.taps * shape.channels
    if shape.run > 1 and _is_dense(shape, kernel) and (joined % kernel.k_group == 0 or any_end):
        return shape.taps // shape.run, joined
    return shape.taps, shape.channels


def _is_dense(shape: PartShape, kernel: Kernel) -> bool:
    """Whether packed pixels are whole bytes and nothing else, and so lie side by side."""
    return kernel.algorithm not in ROW_SUMS and _whole_channels(shape, kernel) * kernel.activation_bits % 8 == 0


def _whole_channels(shape: PartShape, kernel: Kernel) -> int:
    """Channels of a packed pixel that lies beside the next: of 1 bit, padded to whole bytes where that is less work."""
    n, group = shape.channels, kernel.k_group
    if kernel.activation_bits != 1 or kernel.algorithm not in MASKED_ENDS:
        return n
    whole = _round_up(n, 8)
    return whole if _round_up(shape.run * whole, group) < shape.run * _round_up(n, group) else n


def _reads_codes(shape: PartShape, kernel: Kernel) -> bool:
    """Whether a layer without windows finds its input in the tensor of codes itself, so that nothing is packed."""
    flat = shape.taps == 1 and shape.rows == shape.pixels
    any_end = kernel.weight_bits == MAX_BITS or shape.channels % kernel.k_group == 0
    return flat and kernel.algorithm in PLAIN_CODES and any_end


def _packs_short(shape: PartShape, kernel: Kernel) -> bool:
    """Whether the kernel packs a pixel of so few channels without a call (``pack_a`` of the kernels)."""
    if kernel.algorithm in MASKED_ENDS:
        return shape.channels <= LONGEST_MASKED
    return "avx512vnni" in kernel.name and _round_up(shape.channels, kernel.k_group) in SHORT_BYTES


def _piece_cycles(shape: PartShape, kernel: Kernel) -> float:
    """Cycles per pixel of a segment that is packed by itself, out of the pixels of a wider layer."""
    if _packs_short(shape, kernel):
        return SHORT_CYCLES
    return PIECE_CYCLES if kernel.activation_bits == MAX_BITS else PIXEL_CYCLES


def _padded_depth(shape: PartShape, kernel: Kernel, *, folded: bool) -> int:
    taps, k = _depth(shape, kernel, folded=folded)
    return taps * _round_up(k, kernel.k_group)


def _strips(layer: MatmulLayer) -> int:
    """Rows of the images that a convolution with windows reads."""
    if isinstance(layer, GemmLayer) or (layer.taps == 1 and layer.stride == (1, 1)):
        return 0
    return layer.batch * layer.height


def _shape_of(layer: MatmulLayer, level: Level, channels: int, *, signed: bool) -> PartShape:
    """The shape of a part of a layer with ``channels`` in each group, as the runtime derives it too."""
    if isinstance(layer, GemmLayer):
        pixels, run = layer.m, 1
    else:
        pixels = layer.batch * layer.height * layer.width
        run = layer.kernel[1] if layer.dilation[1] == 1 else 1
    return PartShape(
        level=level,
        signed=signed,
        rows=layer.rows,
        cols=layer.out_channels // layer.n_groups,
        taps=layer.taps,
        run=run,
        channels=channels,
        pixels=pixels,
    )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
