"""Cycles of the plain loops around the kernels: packing, requantisation, epilogue, pools, by counting their operations.

The loops are C++ that the compiler vectorises (``kernels/cpu/layer.cpp``, ``runtime/executor.cpp``): each constant
counts the vector instructions of one pass over a vector, read off the source. They are derived, not measured; the
interval of an estimate allows for it.
"""

from __future__ import annotations

from soniq_dse.errors import UserError
from soniq_dse.records.hardware import HardwareModel

COMPILED_WIDTH_BITS = 256
"""Width at which gcc and clang vectorise plain loops by default, on most 512-bit machines too (prefer-vector-width)."""

ACCUMULATE_OPERATIONS = 7.0
"""Per fp32 element and part: load sum, load and add offset, convert, load and multiply scale, load tile, add, store."""
FINISH_OPERATIONS = 4.0
"""Per fp32 element: load, load and add bias, max, store."""
EMIT_OPERATIONS = 12.0
"""Per code: load, multiply, add, round, max, min, convert, three steps of narrowing to bytes, their shuffle, store."""
RESIDUAL_OPERATIONS = 2.0
"""Per fp32 element: load, add."""
COPY_OPERATIONS = 2.0
"""Per byte vector: load, store."""
PLANE_OPERATIONS = 3.0
"""Per byte vector and bit plane: test into a mask, move the mask, store it."""
TABLE_OPERATIONS = 9.0
"""Per byte vector: codes of several activations merged into the index of a table row: three times a sign pack."""
BUILD_OPERATIONS = 10.0
"""Per byte vector of a table that packing builds: a shuffle and an add per element of its step, a store."""
POOL_OPERATIONS = 2.0
"""Per element of a window: load, max or add."""
OTHER_OPERATIONS = 10.0
"""Per element of an operator without a model of its own (softmax, norms ...): order of magnitude."""

ROW_CYCLES = 8.0
"""Per row of a plain loop: the call, its prologue, the remainder's branch."""
POINTER_CYCLES = 1.0
"""Per row, tap and part: load the pixel's index, multiply, add, store: 4 scalar operations, 4 to 6 a cycle."""
GATHER_CYCLES = 8.0
"""Per row and tap of a folded part: load the pixel's index, compare, a memcpy of a few bytes."""
DEPTHWISE_OPERATIONS = 2.25
"""Per 8 multiply-accumulates (``depthwise.cpp``): of 64, two loads, six unpackings, four products, four sums, and
half of the four loads of weights that two rows share."""
PIXEL_CYCLES = 30.0
"""Per pixel packed by a call of its own, since its bits fill no whole bytes: 27 to 41 cycles on a Zen 3 core."""
TAP_CYCLES = 10.0
"""Per tile and tap: load the rows' pointers, enter and leave the loop."""
TILE_CYCLES = 12.0
"""Per tile of a kernel: call, loop set-up, the last products' way through the pipe."""

_INDEXED = ("table", "gfni", "shuffle", "tbl")
"""Algorithms that pack several activations into one index."""
_ADDERS = ("vaddps", "fadd", "vfadd.vv")


class VectorLoops:
    """Cycles of operation counts on one machine: operations run at the rate of its fp32 adder."""

    def __init__(self, hw: HardwareModel) -> None:
        name = next((name for name in _ADDERS if name in hw.instructions), None)
        if name is None:
            raise UserError(f"descriptor {hw.name}: expected a vector add of fp32 ({' or '.join(_ADDERS)}), got none")
        adder = hw.instructions[name]
        widths = [width for width in adder.widths if width <= COMPILED_WIDTH_BITS] or list(adder.widths)
        width = max(widths)
        self._cycles_per_operation = adder.widths[width].reciprocal_throughput_cycles.value
        self.adder = name, width
        self._float_lanes, self._byte_lanes = max(1, width // 32), max(1, width // 8)

    def operations(self, cycles: float) -> float:
        """The instructions that ``cycles`` of a plain loop stand for."""
        return cycles / self._cycles_per_operation

    def floats(self, elements: float, operations: float) -> float:
        """Cycles of ``operations`` on each of ``elements`` 32-bit elements."""
        return elements * operations * self._cycles_per_operation / self._float_lanes

    def bytes(self, elements: float, operations: float) -> float:
        """Cycles of ``operations`` on each of ``elements`` bytes."""
        return elements * operations * self._cycles_per_operation / self._byte_lanes

    def pack(self, rows: float, k: float, algorithm: str, packed_bits: float) -> float:
        """Cycles to pack ``rows`` of ``k`` codes for a kernel whose packed activations take ``packed_bits``."""
        if algorithm.startswith("popcount"):
            cycles = self.bytes(rows * k, 1 + PLANE_OPERATIONS * packed_bits)
        elif packed_bits > 8:
            cycles = self.bytes(rows * k * packed_bits / 8, BUILD_OPERATIONS)
        else:
            cycles = self.bytes(rows * k, TABLE_OPERATIONS if algorithm in _INDEXED else COPY_OPERATIONS)
        return rows * ROW_CYCLES + cycles
