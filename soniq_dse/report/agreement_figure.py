"""``agreement.svg``: predicted against measured latency as a static picture. Equal reports give equal bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from soniq_dse.records.front import DesignPoint, Report
from soniq_dse.report.marks import marks_of
from soniq_dse.report.svg import GRID, INK, SOFT, drawing, escaped, log_ticks, text

SIDE, LEFT, TOP, RIGHT, BOTTOM = 400, 72, 60, 24, 60
REFERENCE = "M-5,0L0,-5L5,0L0,5Z"


def agreement_svg(report: Report) -> str | None:
    """The figure as SVG text; None where nothing was measured. Both axes are logarithmic, in microseconds."""
    points = [p for p in report.front.points if p.latency_predicted_us and p.latency_measured_us]
    if not points:
        return None
    values = [v for p in points for v in (p.latency_measured_us, *_interval(p)) if v]
    low, high = math.log10(min(values)) - 0.08, math.log10(max(values)) + 0.08

    def place(latency_us: float) -> float:
        return SIDE * (math.log10(latency_us) - low) / (high - low)

    parts = [
        text(LEFT, 26, "Predicted against measured latency", size=16, weight=600),
        text(LEFT, 44, report.hardware_title, colour=SOFT),
        *_axes(log_ticks(low, high), place),
        *_marks(report, points, place),
    ]
    return drawing(f"Predicted against measured: {report.title}", LEFT + SIDE + RIGHT, TOP + SIDE + BOTTOM, parts)


def _interval(point: DesignPoint) -> tuple[float, float]:
    predicted = point.latency_predicted_us or 0.0
    return point.latency_low_us or predicted, point.latency_high_us or predicted


def _axes(ticks: list[float], place: Callable[[float], float]) -> Iterator[str]:
    bottom, right = TOP + SIDE, LEFT + SIDE
    for tick in ticks:
        x, y = LEFT + place(tick), bottom - place(tick)
        yield f'<path d="M{x:.1f},{TOP}V{bottom}M{LEFT},{y:.1f}H{right}" stroke="{GRID}"/>'
        yield text(x, bottom + 18, f"{tick:g}", anchor="middle", colour=SOFT)
        yield text(LEFT - 8, y + 4, f"{tick:g}", anchor="end", colour=SOFT)
    yield f'<path d="M{LEFT},{bottom}L{right},{TOP}" stroke="{SOFT}"/>'
    yield text(LEFT + SIDE / 2, bottom + 44, "measured latency (µs)", anchor="middle")
    label = text(0, 0, "predicted latency (µs)", anchor="middle")
    yield f'<g transform="translate(20,{TOP + SIDE / 2:.1f}) rotate(-90)">{label}</g>'


def _marks(report: Report, points: list[DesignPoint], place: Callable[[float], float]) -> Iterator[str]:
    marks = marks_of(report.front.points)
    for point in sorted(points, key=lambda p: p.id):
        x, y = LEFT + place(point.latency_measured_us or 1.0), TOP + SIDE - place(point.latency_predicted_us or 1.0)
        low, high = (TOP + SIDE - place(end) for end in _interval(point))
        path, colour = REFERENCE, INK
        if point.role == "design":
            path, colour = marks[point.palette].path, marks[point.palette].colour
        yield f'<path d="M{x:.1f},{low:.1f}V{high:.1f}" stroke="{SOFT}"/>'
        yield (
            f'<path transform="translate({x:.1f},{y:.1f})" d="{path}" fill="{colour}" stroke="#ffffff">'
            f"<title>{escaped(point.name)}</title></path>"
        )
