"""Cycles of one linear layer or convolution over mixed segments, part by part as the layer driver runs them.

A part is one segment of one group on one kernel. Parts follow one another, so that a layer is the sum of its segments,
plus what it pays once: bias and activation, requantisation, the step itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from soniq_dse.cost.choice import Chooser, Kernel
from soniq_dse.cost.memory import Hierarchy, Nest
from soniq_dse.cost.vector_loops import (
    ACCUMULATE_OPERATIONS,
    FINISH_OPERATIONS,
    GATHER_CYCLES,
    POINTER_CYCLES,
    ROW_CYCLES,
    TILE_CYCLES,
    VectorLoops,
)
from soniq_dse.kernels.layer import BLOCK_MULTIPLE, FOLD_GAIN, TILE_BYTES
from soniq_dse.records.cost import Bound
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Segment

MatmulLayer = GemmLayer | Conv2dLayer


@dataclass(frozen=True)
class PartCost:
    """Cycles of one part and how it was laid out; ``padded_macs`` include padding of k and of columns."""

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

    @property
    def cycles(self) -> float:
        """The sum of the terms."""
        return self.compute + self.memory + self.packing + self.epilogue + self.overhead


class LayerCoster:
    """Costs of parts on one machine."""

    def __init__(self, hw: HardwareModel, chooser: Chooser, threads: int = 1) -> None:
        self._chooser, self.loops = chooser, VectorLoops(hw)
        self.hierarchy, self.threads = Hierarchy(hw, threads), threads
        self.call_cycles = hw.overhead.call_ns.value * hw.clock_ghz.value

    def parts(
        self, layer: MatmulLayer, segments: Sequence[Segment] | None, *, signed: bool, home: int = 0
    ) -> tuple[PartCost, ...]:
        """Costs of a layer's parts; ``segments`` None: one in fp32. ``home``: the level where its weights start.

        Raises:
            UserError: a level has no kernel and no recipe on this machine.
        """
        rows = -(-layer.rows // self.threads)
        out_group = layer.out_channels // layer.n_groups
        if segments is None:
            chosen = [(self._chooser.fp32(), layer.segment_channels, layer.n_groups)]
        else:
            chosen = []
            for segment in segments:
                kernel = self._chooser.choose(segment.level, signed=signed, rows=rows, cols=out_group)
                n_groups = min(layer.n_groups, segment.channels)
                chosen.append((kernel, -(-segment.channels // n_groups), n_groups))
        return tuple(self._part(layer, kernel, k, rows, home, n) for kernel, k, n in chosen)

    def finish(self, layer: MatmulLayer) -> float:
        """Cycles of bias and activation, once per layer."""
        rows = -(-layer.rows // self.threads)
        return rows * ROW_CYCLES + self.loops.floats(rows * layer.out_channels, FINISH_OPERATIONS)

    def _part(self, layer: MatmulLayer, kernel: Kernel, channels: int, rows: int, home: int, n_groups: int) -> PartCost:
        """One part in each of ``n_groups`` groups: costs are those of all of them."""
        cols = layer.out_channels // layer.n_groups
        folded, taps, k = _fold(kernel, layer.taps, channels)
        panels, padded_k = -(-cols // kernel.cols), _round_up(k, kernel.k_group)
        block = block_rows_of(layer.out_channels, kernel, cols, rows)
        tiles, compute = _tiles(kernel, rows, block, taps * padded_k)
        row_bytes = taps * padded_k * kernel.activation_bits / 8
        pixels = rows if folded else _input_pixels(layer, self.threads)
        nest = Nest(
            rows=rows,
            block_rows=block,
            tile_rows=min(kernel.rows, rows),
            panels=panels,
            panel_bytes=kernel.cols * taps * padded_k * kernel.weight_bits / 8,
            row_bytes=row_bytes,
            image_bytes=pixels * row_bytes / taps,
        )
        traffic = self.hierarchy.traffic(nest, home)
        compute *= panels
        n_blocks = -(-rows // block)
        overhead = panels * tiles * TILE_CYCLES + n_blocks * self.call_cycles + rows * taps * POINTER_CYCLES
        packing = self.loops.pack(pixels, k, kernel.algorithm, kernel.activation_bits)
        if folded:
            packing += rows * layer.taps * GATHER_CYCLES
        epilogue = rows * ROW_CYCLES + self.loops.floats(rows * cols, ACCUMULATE_OPERATIONS)
        return PartCost(
            kernel=kernel,
            compute=n_groups * compute,
            memory=n_groups * max(0.0, traffic.cycles - compute),
            packing=n_groups * packing if kernel.priced_by != "fp32" else 0.0,
            epilogue=n_groups * epilogue if kernel.priced_by != "fp32" else 0.0,
            overhead=n_groups * overhead,
            bound=traffic.bound if traffic.cycles > compute else kernel.loop.bound,
            macs=n_groups * rows * cols * layer.taps * channels,
            padded_macs=float(n_groups * rows * panels * kernel.cols * taps * padded_k),
            folded=folded,
        )


def block_rows_of(out_channels: int, kernel: Kernel, cols: int, rows: int) -> int:
    """Rows that the layer driver takes at a time (``kernels.layer.block_rows``)."""
    widest = max(out_channels, _round_up(cols, kernel.cols))
    fitting = TILE_BYTES // (4 * widest) // BLOCK_MULTIPLE * BLOCK_MULTIPLE
    return min(max(fitting, BLOCK_MULTIPLE), rows)


def _fold(kernel: Kernel, taps: int, channels: int) -> tuple[bool, int, int]:
    """(folded, taps, k) as the kernel sees them: taps x channels become one k where that wastes less padding."""
    direct, folded = taps * _round_up(channels, kernel.k_group), _round_up(taps * channels, kernel.k_group)
    if taps > 1 and folded < FOLD_GAIN * direct:
        return True, 1, taps * channels
    return False, taps, channels


def _tiles(kernel: Kernel, rows: int, block: int, padded_k: int) -> tuple[int, float]:
    """(tiles, cycles of their loops) of one panel. A tile of fewer rows takes its share, but waits as long for sums."""
    passes, loop_cycles = padded_k / kernel.pass_k, kernel.loop.expected_cycles
    n_tiles, cycles = 0, 0.0
    for size, count in ((block, rows // block), (rows % block, 1)):
        full, tail = divmod(size, kernel.rows)
        n_tiles += count * (full + (tail > 0))
        cycles += count * full * loop_cycles
        if tail:
            cycles += count * max(loop_cycles * tail / kernel.rows, kernel.loop.latency_cycles)
    return n_tiles, passes * cycles


def _input_pixels(layer: MatmulLayer, threads: int) -> int:
    if isinstance(layer, GemmLayer):
        return -(-layer.m // threads)
    return -(-layer.batch * layer.height * layer.width // threads)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
