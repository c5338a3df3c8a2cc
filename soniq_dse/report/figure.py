"""``front.svg``: accuracy against latency as a static picture, without a browser. Equal reports give equal bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from soniq_dse.records.front import DesignPoint, ParetoFront, Report
from soniq_dse.report.marks import marks_of
from soniq_dse.report.reading import (
    designs_of,
    latency_field,
    latency_of,
    metric_factor,
    metric_field,
    metric_of,
    shown_unit,
)
from soniq_dse.report.svg import GRID, INK, SOFT, drawing, escaped, linear_ticks, log_ticks, text

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 72, 190, 56, 60
STAR = "M0,-7L1.7,-2.2L6.7,-2.2L2.7,0.8L4.1,5.7L0,2.8L-4.1,5.7L-2.7,0.8L-6.7,-2.2L-1.7,-2.2Z"
CROSS = "M-5,-3L-3,-5L0,-2L3,-5L5,-3L2,0L5,3L3,5L0,2L-3,5L-5,3L-2,0Z"


class _Frame(NamedTuple):
    """The window of the figure in data units: log10 of microseconds, and shown metric units."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, latency_us: float) -> float:
        part = (math.log10(latency_us) - self.x0) / (self.x1 - self.x0)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def y(self, shown: float) -> float:
        return TOP + (self.y1 - shown) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)


def front_svg(report: Report) -> str:
    """The figure as SVG text; points whose latency is not known are left out."""
    front = report.front
    points = [point for point in front.points if latency_of(front, point)]
    parts = [text(LEFT, 26, report.title, size=16, weight=600), text(LEFT, 44, report.hardware_title, colour=SOFT)]
    if points:
        frame = _frame(front, points)
        parts += [*_axes(front, frame), *_line(front, frame), *_points(front, points, frame), *_legend(front)]
    else:
        parts.append(text(LEFT, HEIGHT / 2, "No latency is known yet.", colour=SOFT))
    return drawing(report.title, WIDTH, HEIGHT, parts)


def _frame(front: ParetoFront, points: list[DesignPoint]) -> _Frame:
    xs = [math.log10(latency_of(front, point) or 1.0) for point in points]
    ys = [value for point in points for value in _bar(front, point)]
    dx, dy = max(0.06 * (max(xs) - min(xs)), 0.1), max(0.08 * (max(ys) - min(ys)), 1e-3 * max(map(abs, ys)), 1e-9)
    return _Frame(min(xs) - dx, max(xs) + dx, min(ys) - dy, max(ys) + dy)


def _bar(front: ParetoFront, point: DesignPoint) -> tuple[float, float]:
    """The metric less and plus its standard error, as shown."""
    value, error = metric_of(front, point), point.metric_se or 0.0
    return (value - error) * metric_factor(front.task), (value + error) * metric_factor(front.task)


def _axes(front: ParetoFront, frame: _Frame) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in log_ticks(frame.x0, frame.x1):
        x = frame.x(tick)
        yield f'<path d="M{x:.1f},{TOP}V{bottom}" stroke="{GRID}"/>'
        yield text(x, bottom + 18, f"{tick:g}", anchor="middle", colour=SOFT)
    for tick in linear_ticks(frame.y0, frame.y1):
        y = frame.y(tick)
        yield f'<path d="M{LEFT},{y:.1f}H{right}" stroke="{GRID}"/>'
        yield text(LEFT - 8, y + 4, f"{tick:g}", anchor="end", colour=SOFT)
    kind = "measured" if latency_field(front) == "latency_measured_us" else "predicted"
    split = "test" if metric_field(front) == "metric_test" else "validation"
    unit = f" ({shown_unit(front.task)})" if shown_unit(front.task) else ""
    middle = (TOP + bottom) / 2
    yield text((LEFT + right) / 2, HEIGHT - 16, f"{kind} latency (µs)", anchor="middle")
    label = text(0, 0, f"{split} {front.task.metric}{unit}", anchor="middle")
    yield f'<g transform="translate(20,{middle:.1f}) rotate(-90)">{label}</g>'


def _line(front: ParetoFront, frame: _Frame) -> Iterator[str]:
    """The staircase of the designs that no faster one equals."""
    sign = 1.0 if front.task.direction == "max" else -1.0
    known = [point for point in designs_of(front) if latency_of(front, point)]
    best, path = -math.inf, ""
    for point in sorted(known, key=lambda p: (latency_of(front, p) or 0.0, -sign * metric_of(front, p), p.id)):
        if sign * metric_of(front, point) <= best:
            continue
        best = sign * metric_of(front, point)
        x, y = frame.x(latency_of(front, point) or 1.0), frame.y(metric_of(front, point) * metric_factor(front.task))
        path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f},{y:.1f}"
    if path:
        yield f'<path d="{path}" fill="none" stroke="{SOFT}" stroke-width="1.5"/>'


def _points(front: ParetoFront, points: list[DesignPoint], frame: _Frame) -> Iterator[str]:
    marks = marks_of(front.points)
    for point in sorted(points, key=lambda p: (p.role != "design", not p.dominated, p.id)):
        x, y = frame.x(latency_of(front, point) or 1.0), frame.y(metric_of(front, point) * metric_factor(front.task))
        low, high = (frame.y(value) for value in _bar(front, point))
        if point.metric_se:
            yield f'<path d="M{x:.1f},{low:.1f}V{high:.1f}" stroke="{SOFT}"/>'
        if point.role == "design":
            path, colour = marks[point.palette].path, marks[point.palette].colour
        else:
            path, colour = (STAR if point.role == "fp32" else CROSS), INK
            yield text(x, y - 11, point.role.upper(), anchor="middle")
        faint = ' opacity="0.45"' if point.dominated and point.role == "design" else ""
        yield (
            f'<path transform="translate({x:.1f},{y:.1f})" d="{path}" fill="{colour}" stroke="#ffffff"{faint}>'
            f"<title>{escaped(point.name)}</title></path>"
        )


def _legend(front: ParetoFront) -> Iterator[str]:
    left = WIDTH - RIGHT + 22
    marks = list(marks_of(front.points).items())
    room = (HEIGHT - TOP - BOTTOM) // 22
    for row, (name, mark) in enumerate(marks[:room]):
        y = TOP + 8 + 22 * row
        yield f'<path transform="translate({left},{y})" d="{mark.path}" fill="{mark.colour}"/>'
        yield text(left + 14, y + 4, name if len(name) <= 24 else f"{name[:23]}…")
    if len(marks) > room:
        yield text(left - 6, TOP + 12 + 22 * room, f"and {len(marks) - room} palettes more", colour=SOFT)
