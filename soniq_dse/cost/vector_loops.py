"""Cycles of the plain loops around the kernels: packing, requantisation, epilogue, pools, by counting their operations.

The loops are C++ that the compiler vectorises (``kernels/cpu/layer.cpp``, ``runtime/executor.cpp``): each constant
counts the instructions of one pass over a vector, read off the source. They are derived, not measured; the
interval of an estimate allows for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from soniq_dse.errors import UserError
from soniq_dse.records.hardware import HardwareModel, Instruction

COMPILED_WIDTH_BITS = 256
"""Width at which gcc and clang vectorise plain loops by default, on most 512-bit machines too (prefer-vector-width)."""


class Loop(NamedTuple):
    """What one pass over a vector takes: loads, stores, and operations on registers."""

    loads: float
    operations: float
    stores: float

    @property
    def instructions(self) -> float:
        """All of them."""
        return self.loads + self.operations + self.stores


PART = Loop(1, 3, 0)
"""fp32, per part: sum comes in, offset and scale stay in registers; add, convert, multiply."""
MERGE = Loop(1, 1, 1)
"""fp32, per part but one: what the parts before left goes out and comes in, and is added."""
FINISH = Loop(0, 1, 0)
"""fp32, in the pass of the last part: bias is added, from a register."""
EMIT = Loop(4, 6.25, 0.25)
"""fp32 -> codes, in that pass: factor, shift and both limits come in; multiply, add, max, min, convert; of four vectors
narrowing, a shuffle and a store."""
RECTIFY = Loop(0, 4.25, 0.25)
"""fp32 -> unsigned codes behind a ReLU: factor and limit stay in registers, narrowing saturates at 0."""
NORM = Loop(3, 2, 1)
"""fp32 of a normalisation by itself: value, factor and shift come in; multiply, add."""
RESIDUAL = Loop(1, 1, 0)
"""fp32: load, add."""
COPY = Loop(1, 0, 1)
"""Bytes."""
PLANE = Loop(0, 2, 1)
"""Bytes, per bit plane: test into a mask, move the mask; store it."""
CODES = Loop(1, 0, 0)
"""Bytes that planes are taken from."""
TABLE = Loop(1, 7, 1)
"""Bytes: codes of several activations merged into the index of a table row: three times a sign pack."""
BUILD = Loop(1, 8, 1)
"""Bytes of a table that packing builds: a shuffle and an add per element of its step."""
POOL = Loop(1, 1, 0)
"""Per element of a window: max or add."""
ATTEND = Loop(0.625, 1.42, 0)
"""fp32, per multiply-accumulate of attention (``runtime/tokens.cpp``): a vector that 4 rows share, a number of each as
the product's operand; product and sum have pipes of their own, so that they take less than two operations."""
SOFTEN = Loop(3, 24.4, 1)
"""fp32, per score: the largest found, its exponential (20 operations) taken, added."""
SCORES_CYCLES = 25.0
"""Per row of scores of a head, of 4 side by side: the reductions of its largest and its sum."""
TURN_CYCLES = 0.7
"""Per element of keys, which are transposed for their head; 0.5 to 1.7 on a Zen 4 core, as they come from L1 to L3."""
VECTOR_SCORES = 16
"""Scores and their exponentials are worked out by so many."""
CAUSAL_SCORES = 6.0
"""More scores of a row than causal attention needs: whole vectors of them, for 4 rows at once."""
LAYER_NORM = Loop(6, 17, 2)
"""fp32 of LayerNorm: sum; difference; sum of squares; scale, gain and bias: 8 operations, of which sums wait for one
another; 0.7 to 0.9 cycles per element on a Zen 4 core."""
GELU = Loop(1, 24, 1)
"""fp32 of GELU: a polynomial of degree 8, squared three times."""
CLIP = Loop(1, 2, 1)
"""fp32 between two bounds."""
LOOK_UP = Loop(1, 2, 1)
"""fp32 of a table: bytes to numbers, times the row's scale."""
PLACES = Loop(2, 1, 1)
"""fp32: sum of two."""
OTHER = Loop(2, 7, 1)
"""fp32 of an operator without a model of its own (softmax, other norms ...): order of magnitude."""
DEPTHWISE = Loop(0.875, 1.75, 0)
"""Per 8 multiply-accumulates (``depthwise.cpp``): of 64, two loads, half of which cross a line, their two pointers and
half of the four of weights that two rows share; six unpackings, four products, four sums. Two taps at a time."""
DEPTHWISE_DOT = Loop(0.75, 0.75, 0)
"""The same where vpdpbusd sums four taps: of 128, four loads, half of which cross a line, their four pointers and half
of four weights; eight unpackings, four products."""

ROW_CYCLES = 4.0
"""Per row of a plain loop: its pointers, the remainder's branch."""
POOL_CYCLES = 8.0
"""Per pixel of a window: the call, two bounds, a loop over a few vectors and its remainder."""
POINTER_CYCLES = 1.0
"""Per row, tap and part: load the pixel's index, multiply, add, store: 4 scalar operations, 4 to 6 a cycle."""
GATHER_CYCLES = 8.0
"""Per row and tap of a folded part: load the pixel's index, compare, a memcpy of a few bytes."""
PIXEL_CYCLES = 30.0
"""Per pixel packed by a call of its own, since its bits fill no whole bytes: 27 to 41 cycles on a Zen 3 core."""
PIECE_CYCLES = 15.0
"""Per pixel of a segment that is copied by itself, out of the pixels of a wider layer: a memcpy of a few bytes."""
REORDER_CYCLES = 1.0
"""Per element of a tensor whose channels change their order as they become codes: a load each, where a vector would do;
0.28 ns more on a Zen 4 core."""
STRIP_CYCLES = 80.0
"""Per row of an image and part: the call that packs it, the border on both sides, where its pointers begin; 70 to 105
cycles on a Zen 4 core."""
INTERLEAVE_CYCLES = 3.0
"""Per pixel of an image given channels first, of few channels: its codes are interleaved one by one; 2.6 to 3.2 cycles
on a Zen 4 core."""
SHORT_CYCLES = 5.0
"""Per pixel of a few channels where the kernel packs it without a call: 3.2 to 5.2 cycles on a Zen 4 core."""
PART_CYCLES = 300.0
"""Per part of a layer and per pool: set-up, indirect calls, branches that turn out otherwise than for the part before;
what layers with next to no work take on a Zen 4 core."""
COLD_CYCLES = 100.0
"""Per layer of a network besides: caches and predictors hold the other layers'; by tiny networks on that core."""
TAP_CYCLES = 10.0
"""Per tile and tap: load the rows' pointers, enter and leave the loop."""
TILE_CYCLES = 12.0
"""Per tile of a kernel: call, loop set-up, the last products' way through the pipe."""

_INDEXED = ("table", "gfni", "shuffle", "tbl")
"""Algorithms that pack several activations into one index."""
_FLOAT_ADDERS, _INTEGER_ADDERS = ("vaddps", "fadd", "vfadd.vv"), ("vpaddd", "add", "vadd.vv")


class VectorLoops:
    """Cycles of such loops on one machine: its loads, stores, vector operations or front end, whichever takes longest.

    Vector operations run at the mean of the rates of its fp32 and its integer adder: the loops mix both.
    """

    def __init__(self, hw: HardwareModel) -> None:
        name, adder = _adder(hw, _FLOAT_ADDERS)
        widths = [width for width in adder.widths if width <= COMPILED_WIDTH_BITS] or list(adder.widths)
        width = max(widths)
        self.adder = name, width
        self._operation_cycles = adder.widths[width].reciprocal_throughput_cycles.value
        with contextlib.suppress(UserError):
            integer = _adder(hw, _INTEGER_ADDERS)[1].widths.get(width)
            if integer is not None:
                self._operation_cycles = (self._operation_cycles + integer.reciprocal_throughput_cycles.value) / 2
        self._load_cycles, self._store_cycles = (_rate(hw, key, width) for key in ("load", "store"))
        self._slot_cycles = 1 / hw.issue_width.value
        self._float_lanes, self._byte_lanes = max(1, width // 32), max(1, width // 8)

    def operations(self, cycles: float) -> float:
        """About the instructions that ``cycles`` of a plain loop stand for."""
        return cycles / self._operation_cycles

    def floats(self, elements: float, loop: Loop) -> float:
        """Cycles of ``loop`` over ``elements`` of 32 bits."""
        return elements * self._cycles(loop) / self._float_lanes

    def bytes(self, elements: float, loop: Loop) -> float:
        """Cycles of ``loop`` over ``elements`` of a byte."""
        return elements * self._cycles(loop) / self._byte_lanes

    def pack(self, rows: float, k: float, algorithm: str, packed_bits: float) -> float:
        """Cycles to pack ``rows`` of ``k`` codes for a kernel whose packed activations take ``packed_bits``."""
        if algorithm.startswith("popcount"):
            cycles = self.bytes(rows * k, CODES) + packed_bits * self.bytes(rows * k, PLANE)
        elif packed_bits > 8:
            cycles = self.bytes(rows * k * packed_bits / 8, BUILD)
        else:
            cycles = self.bytes(rows * k, TABLE if algorithm in _INDEXED else COPY)
        return rows * ROW_CYCLES + cycles

    def _cycles(self, loop: Loop) -> float:
        return max(
            loop.loads * self._load_cycles,
            loop.operations * self._operation_cycles,
            loop.stores * self._store_cycles,
            loop.instructions * self._slot_cycles,
        )


def _adder(hw: HardwareModel, names: Sequence[str]) -> tuple[str, Instruction]:
    name = next((name for name in names if name in hw.instructions and max(hw.instructions[name].widths)), None)
    if name is None:
        raise UserError(f"descriptor {hw.name}: expected a vector add ({' or '.join(names)}), got none")
    return name, hw.instructions[name]


def _rate(hw: HardwareModel, key: str, width_bits: int) -> float:
    """Cycles of a load or store at a width; where the descriptor lists none there, of the nearest width it lists."""
    listed = hw.instructions[key].widths if key in hw.instructions else {}
    if not listed:
        return 1.0
    return listed[min(listed, key=lambda width: abs(width - width_bits))].reciprocal_throughput_cycles.value
