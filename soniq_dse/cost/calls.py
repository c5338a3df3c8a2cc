"""Cycles of whole calls of a compiled kernel: every loop of it, short or long, its prologues and its epilogues.

The path of a call is that of its machine code (``kernels/code.py``), followed through the simulated core. Tiles of the
same height follow one another at the same distance, so that a call is a sum over its tiles; the distance is simulated
at a few depths of k and heights, from one panel of columns to the next, and lies on lines between them.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soniq_dse.cost.branches import mispredicted
from soniq_dse.cost.core import Core, Operation
from soniq_dse.cost.remembered import place_of, recall, remember
from soniq_dse.errors import UserError
from soniq_dse.kernels.code import KernelCode
from soniq_dse.native.disassembly import record_of
from soniq_dse.native.emulate import Trace
from soniq_dse.records.hardware import HardwareModel

_DEPTHS = (1, 6, 24, 144)
"""k groups at which tiles are simulated: short loops, and long ones, over which what happens rarely averages."""
_DEEPEST_CYCLES = 3000
"""A tile that takes longer at the last depth is not simulated there."""
_TAP_DEPTHS = (1, 24)
_LOOP_PASSES = 18
"""Of a loop that only repeats itself, so many passes are simulated; the last third of them stands for the others."""

Floats = NDArray[np.float64]
Sizes = NDArray[np.int64]
Line = tuple[float, ...]


@dataclass
class CallCosts:
    """Calls of one kernel on one machine, data in the nearest cache; all is simulated once, when first asked for.

    Raises:
        UserError: (on use) the descriptor has no figures for a vector instruction of the kernel.
    """

    hw: HardwareModel
    code: KernelCode
    _operations: dict[int, Operation] = field(default_factory=dict)
    _tiles: dict[int, tuple[Line, Line]] = field(default_factory=dict)
    _fixed: float | None = None
    _refused: UserError | None = None

    def __post_init__(self) -> None:
        self._core = Core(self.hw, self.code.spec.symbol)

    def cycles(self, rows: int, cols: int, taps: int, k: int) -> float:
        """Cycles of one call, ``[rows, taps, k] x [cols, taps, k]``."""
        height, width, _ = self.code.spec.tile
        n_tiles, panels, groups = -(-rows // height), -(-cols // width), -(-k // self.code.spec.k_group)
        low, n_high = divmod(rows, n_tiles)  # blocks of rows are all of nearly one height (``tile.h``)
        tiles = (n_tiles - n_high) * self._tile(low, taps, groups)
        if n_high:
            tiles += n_high * self._tile(low + 1, taps, groups)
        return self._call_cycles() + panels * tiles

    def batch(self, rows: Sizes, cols: Sizes, taps: Sizes, k: Sizes) -> Floats:
        """``cycles`` of many calls, arrays that broadcast together."""
        height, width, _ = self.code.spec.tile
        n_tiles, panels, groups = -(-rows // height), -(-cols // width), -(-k // self.code.spec.k_group)
        low, n_high = rows // n_tiles, rows % n_tiles
        by_height = np.stack([self._tiles_of(h, taps, groups) for h in range(1, height + 1)])
        low = np.broadcast_to(low, by_height.shape[1:])
        tiles = (n_tiles - n_high) * np.take_along_axis(by_height, (low - 1)[None], 0)[0]
        high = np.minimum(low, height - 1)[None]  # of no weight where all blocks are full
        tiles = tiles + n_high * np.take_along_axis(by_height, high, 0)[0]
        return np.asarray(self._call_cycles() + panels * tiles, float)

    def _tiles_of(self, height: int, taps: Sizes, groups: Sizes) -> Floats:
        parts = [
            share * (_lines(groups, _DEPTHS, one) + (taps - 1) * _lines(groups, _TAP_DEPTHS, more))
            for share, (one, more) in self._between(height)
        ]
        return np.asarray(sum(parts), float)

    def _tile(self, height: int, taps: int, groups: int) -> float:
        """Cycles from one tile of ``height`` rows to the next."""
        return sum(
            share * (_line(groups, _DEPTHS, one) + (taps - 1) * _line(groups, _TAP_DEPTHS, more))
            for share, (one, more) in self._between(height)
        )

    def _between(self, height: int) -> list[tuple[float, tuple[Line, Line]]]:
        """The simulated heights around ``height``, each with its share."""
        full = self.code.spec.tile[0]
        nodes = sorted({1, -(-full // 2), full})
        above = next(node for node in nodes if node >= height)
        below = max(node for node in nodes if node <= height)
        if above == below:
            return [(1.0, self._of_height(height))]
        share = (height - below) / (above - below)
        return [(1 - share, self._of_height(below)), (share, self._of_height(above))]

    def _of_height(self, height: int) -> tuple[Line, Line]:
        """(cycles of a tile with one tap at ``_DEPTHS``, what a further tap adds at ``_TAP_DEPTHS``)."""
        self._recall()
        if self._refused is not None:
            raise self._refused
        if height not in self._tiles:
            one = [self._distance(height, 1, depth) for depth in _DEPTHS[:-1]]
            deep = _line(_DEPTHS[-1], _DEPTHS[:-1], one)
            # Where groups are long, nothing happens more rarely than in each of them.
            one.append(self._distance(height, 1, _DEPTHS[-1]) if deep < _DEEPEST_CYCLES else deep)
            more = [self._distance(height, 2, depth) - _line(depth, _DEPTHS, one) for depth in _TAP_DEPTHS]
            self._tiles[height] = tuple(one), tuple(more)
            self._remember()
        return self._tiles[height]

    def _distance(self, height: int, taps: int, groups: int) -> float:
        """Cycles from the second of three panels of one tile to the third."""
        call = self.code.call(height, 3 * self.code.spec.tile[1], taps, groups * self.code.spec.k_group)
        if len(call.panels) != 3:  # a kernel that goes through its rows in another way
            return self._retired(call.trace, [len(call.trace.path) - 1])[0] / 3
        begin, end = self._retired(call.trace, call.panels[1:])
        return end - begin

    def _call_cycles(self) -> float:
        """Cycles of a call besides its tiles, from two calls one after another."""
        self._recall()
        if self._fixed is None:
            height, width, _ = self.code.spec.tile
            trace = self.code.call(height, width, 1, self.code.spec.k_group).trace
            n = len(trace.path)
            begin, end = self._retired(Trace(trace.codes, trace.path * 2, trace.addresses * 2), [n - 1, 2 * n - 1])
            self._fixed = max(0.0, end - begin - self._of_height(height)[0][0])
            self._remember()
        return self._fixed

    @cached_property
    def _file(self) -> Path:
        """Where results stay between runs."""
        return place_of("calls", self.hw, self.code.identity)

    def _recall(self) -> None:
        if self._tiles or self._fixed is not None:
            return
        known = recall(self._file)
        with contextlib.suppress(TypeError, ValueError, KeyError):
            self._tiles.update({int(h): (tuple(one), tuple(more)) for h, (one, more) in known["tiles"].items()})
            self._fixed = known["fixed"]

    def _remember(self) -> None:
        remember(self._file, {"tiles": self._tiles, "fixed": self._fixed})

    def _retired(self, trace: Trace, positions: Sequence[int]) -> list[float]:
        """Cycles at which the instructions at ``positions`` of a path retire."""
        operations = self._translated(trace)
        wrong: frozenset[int] = frozenset()
        if self.hw.branches is not None:
            is_branch = {i: operation.is_branch for i, operation in operations.items()}
            wrong = mispredicted(trace.path, is_branch, int(self.hw.branches.history.value))
        kept, skips = shortened(trace.path[: positions[-1] + 1], _LOOP_PASSES)
        place = {position: i for i, position in enumerate(kept)}
        line = self._core.run(
            [operations[trace.path[position]] for position in kept],
            [trace.addresses[position] for position in kept],
            frozenset(place[position] for position in wrong if position in place),
        )
        found = []
        for position in positions:
            late = sum(
                skip.passes * (line.retired[place[skip.at]] - line.retired[place[skip.since]]) / skip.measured
                for skip in skips
                if skip.at < position
            )
            found.append(line.retired[place[position]] + late)
        return found

    def _translated(self, trace: Trace) -> dict[int, Operation]:
        try:
            for i in sorted(set(trace.path) - self._operations.keys()):
                following = trace.codes[i : i + 2]
                self._operations[i] = self._core.operations([record_of(code) for code in following])[0]
        except UserError as error:
            self._refused = error
            raise
        return self._operations


@dataclass(frozen=True)
class Skip:
    """``passes`` of a loop left out after position ``at``, where the last ``measured`` passes began at ``since``."""

    at: int
    since: int
    passes: int
    measured: int


def shortened(path: Sequence[int], passes: int) -> tuple[list[int], list[Skip]]:
    """Positions of ``path`` without what repeats: of a loop without inner jumps, ``passes`` passes remain."""
    kept: list[int] = []
    skips: list[Skip] = []
    position, n = 0, len(path)
    while position < n:
        kept.append(position)
        length = path[position] - path[position + 1] + 1 if position + 1 < n else 0
        if length > 0:
            body = path[position + 1 : position + 1 + length]
            repeats, start = 0, position + 1
            while path[start + repeats * length : start + (repeats + 1) * length] == body:
                repeats += 1
            if body[-1] == path[position] and repeats > passes:
                measured = passes // 3
                end = start + passes * length
                kept.extend(range(start, end))
                skips.append(Skip(end - 1, end - 1 - measured * length, repeats - passes, measured))
                position = start + repeats * length
                continue
        position += 1
    return kept, skips


def _line(at: int, nodes: Sequence[int], values: Sequence[float]) -> float:
    """Between the nodes straight lines, beyond the last one the last line."""
    i = min(bisect_right(nodes, at), len(nodes) - 1)
    slope = (values[i] - values[i - 1]) / (nodes[i] - nodes[i - 1])
    return values[i - 1] + slope * (at - nodes[i - 1])


def _lines(at: Sizes, nodes: Sequence[int], values: Line) -> Floats:
    """``_line`` of many."""
    i = np.minimum(np.searchsorted(nodes, at, side="right"), len(nodes) - 1)
    x, y = np.array(nodes), np.array(values)
    return np.asarray(y[i - 1] + (y[i] - y[i - 1]) / (x[i] - x[i - 1]) * (at - x[i - 1]), float)
