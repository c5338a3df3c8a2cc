"""The accuracy tables as a picture: points against FP32 over bits of a weight, marked by how many levels a palette has.

What the paper says of palettes can be read off it: two levels beside three and four, one level above 4 bits beside
FP32, levels that are powers of two beside others, few bits beside many.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks._frame import Row
from soniq_dse.records.palette import Palette
from soniq_dse.report.svg import GRID, INK, SOFT, drawing, linear_ticks, text

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 860, 350, 64, 130, 44, 52
COLOURS = {1: "#0072b2", 2: "#d55e00", 3: "#009e73", 4: "#cc79a7"}
"""By the number of levels; told apart by the colour-blind (Okabe and Ito), and by shape."""
BITS = (1, 2, 4, 8)
Scale = Callable[[float], float]
LABEL, LETTER = 12, 5.6
"""Least distance of two labels' lines, and about the width of a letter, in pixels."""


class Point(NamedTuple):
    """A palette's mean and standard error over seeds."""

    name: str
    bits: float
    points: float
    error: float

    @property
    def bit_widths(self) -> set[int]:
        """All weight and activation bits of the palette."""
        levels = Palette.parse(self.name.partition("@")[0]).levels
        return {bits for level in levels for bits in (level.weight_bits, level.activation_bits or 1)}

    @property
    def n_levels(self) -> int:
        """Of the palette."""
        return len(Palette.parse(self.name.partition("@")[0]).levels)


def figure(panels: Mapping[str, Sequence[Row]]) -> str:
    """An SVG of a panel per heading; rows as they are kept, of accuracies."""
    parts = [part for n, (title, rows) in enumerate(panels.items()) for part in _panel(title, rows, n * PANEL)]
    return drawing("Accuracy against bits of a weight", WIDTH, PANEL * len(panels), parts)


def points_of(rows: Sequence[Row]) -> list[Point]:
    """Of SONIQ's designs by the default recipe, pins aside."""
    found = []
    for name in dict.fromkeys(row["design"] for row in rows if " " not in row["design"]):
        same = [row for row in rows if row["design"] == name]
        gaps = [row["test"] - row["fp32 test"] for row in same]
        if len(gaps) > 1:
            error = statistics.stdev(gaps) / math.sqrt(len(gaps))
            found.append(Point(name, statistics.fmean(row["bits"] for row in same), statistics.fmean(gaps), error))
    return found


def _panel(title: str, rows: Sequence[Row], top: float) -> Iterator[str]:
    points = points_of(rows)
    control = [row["test"] - row["fp32 test"] for row in rows if row["design"] == "fp32 distilled"]
    low = min([p.points - p.error for p in points] + [-0.5])
    high = max([p.points + p.error for p in points] + [0.3, *([statistics.fmean(control)] if control else [])])
    right, floor = WIDTH - RIGHT, top + PANEL - BOTTOM

    def x_of(bits: float) -> float:
        return LEFT + 24 + (right - LEFT - 48) * math.log2(bits) / math.log2(BITS[-1])

    def y_of(value: float) -> float:
        return floor - (floor - top - TOP) * (value - low) / (high - low)

    yield text(LEFT, top + 24, title, size=14, weight=600)
    for tick in linear_ticks(low, high):
        yield _line(LEFT, y_of(tick), right, y_of(tick), GRID)
        yield text(LEFT - 8, y_of(tick) + 4, f"{tick:+g}" if tick else "0", anchor="end", colour=SOFT)
    for bits in BITS:
        yield text(x_of(bits), floor + 18, f"{bits}", anchor="middle", colour=SOFT)
    yield text((LEFT + right) / 2, floor + 38, "bits of a weight, mean", anchor="middle")
    yield text(LEFT - 50, top + 24, "points", size=11, colour=SOFT)
    yield from _reference("FP32", 0.0, y_of(0.0), INK)
    if control:
        mean = statistics.fmean(control)
        apart = LABEL if abs(y_of(mean) - y_of(0)) < LABEL else 0
        yield from _reference("FP32, distilled", mean, y_of(mean), SOFT, apart if mean < 0 else -apart)
    yield from _marks(points, x_of, y_of)
    yield from _key(right + 14, floor - 84)


def _marks(points: Sequence[Point], x_of: Scale, y_of: Scale) -> Iterator[str]:
    """Marks of equal bits stand side by side; a label moves down where another one is."""
    taken: list[tuple[float, float, float]] = []
    beside: dict[int, int] = {}
    for point in sorted(points, key=lambda p: -p.points):
        place = round(x_of(point.bits) / 4)
        x, y = x_of(point.bits) + 9 * beside.get(place, 0), y_of(point.points)
        beside[place] = beside.get(place, 0) + 1
        colour = COLOURS[min(point.n_levels, 4)]
        yield _line(x, y_of(point.points - point.error), x, y_of(point.points + point.error), colour)
        powers = all(bits & (bits - 1) == 0 for bits in point.bit_widths)
        yield _mark(x, y, point.n_levels, colour if powers else "#ffffff", colour)
        start, end, line = x + 9, x + 15 + LETTER * len(point.name), y - 2
        while any(abs(line - other) < LABEL and start < right and left < end for left, right, other in taken):
            line += LABEL
        taken.append((start, end, line))
        yield text(start, line, point.name, size=10, colour=INK)


def _mark(x: float, y: float, n_levels: int, fill: str, colour: str) -> str:
    style = f'fill="{fill}" stroke="{colour}" stroke-width="1.5"'
    if n_levels == 1:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {style}/>'
    sides = {2: 4, 3: 3}.get(n_levels, 4)
    turn = math.pi / 4 if n_levels == 2 else -math.pi / 2
    angles = [turn + 2 * math.pi * i / sides for i in range(sides)]
    corners = " ".join(f"{x + 6 * math.cos(a):.1f},{y + 6 * math.sin(a):.1f}" for a in angles)
    return f'<polygon points="{corners}" {style}/>'


def _reference(name: str, value: float, y: float, colour: str, apart: float = 0.0) -> Iterator[str]:
    dash = "" if value == 0 else ' stroke-dasharray="4 3"'
    yield _line(LEFT, y, WIDTH - RIGHT, y, colour, dash)
    yield text(WIDTH - RIGHT + 8, y + 4 + apart, name, size=11, colour=colour)


def _key(x: float, y: float) -> Iterator[str]:
    for n, colour in COLOURS.items():
        yield _mark(x, y + 16 * n, n, colour, colour)
        yield text(x + 12, y + 16 * n + 4, f"{n} level{'s' * (n > 1)}", size=11, colour=SOFT)
    yield text(x - 6, y + 84, "hollow: 3 bits", size=11, colour=SOFT)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'
