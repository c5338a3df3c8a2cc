"""The sentence at the top of the report, the knee, and how far predictions agree with measurements."""

from __future__ import annotations

import math
import statistics
from typing import Literal

from soniq_dse import pareto
from soniq_dse.records.front import DesignPoint, ParetoFront, Report, Summary
from soniq_dse.report.reading import (
    designs_of,
    latency_of,
    latency_text,
    metric_factor,
    metric_of,
    metric_text,
    reference,
    rival,
    shown_unit,
)

LatencyKind = Literal["measured", "predicted"]
NEAR_POINTS = 1.0
"""How far below the reference a design may score and still count as near it, in the metric's shown unit."""


def summarise(report: Report) -> Summary:
    """What the report says first, derived from its points alone."""
    front = report.front
    kind = _latency_kind(front)
    found, sentence = _finding(front, kind)
    knee_id, knee_reason = _knee(front)
    ratios = [_ratio(point) for point in front.points]
    known = [ratio for ratio in ratios if ratio is not None]
    return Summary(
        finding=sentence,
        finding_id=found.id if found else None,
        speedup_over_int8=_speedup(found, rival(front, found, "w8a8"), kind),
        speedup_over_fp32=_speedup(found, rival(front, found, "fp32"), kind),
        speedup_kind=kind if found else None,
        knee_id=knee_id,
        knee_reason=knee_reason,
        n_measured=len(known),
        n_within_interval=sum(_is_within(point) for point in front.points),
        ratio_median=statistics.median(known) if known else None,
        ratio_worst=max(known, key=lambda ratio: abs(math.log(ratio))) if known else None,
    )


def _latency_kind(front: ParetoFront) -> LatencyKind:
    return "measured" if any(point.latency_measured_us for point in designs_of(front)) else "predicted"


def _latency(point: DesignPoint | None, kind: LatencyKind) -> float | None:
    if point is None:
        return None
    return point.latency_measured_us if kind == "measured" else point.latency_predicted_us


def _finding(front: ParetoFront, kind: LatencyKind) -> tuple[DesignPoint | None, str]:
    designs = [point for point in designs_of(front) if _latency(point, kind)]
    if not designs:
        return None, "No design was trained to the end yet." if not designs_of(front) else "No latency is known yet."
    sign = 1.0 if front.task.direction == "max" else -1.0
    best = max(designs, key=lambda point: (sign * metric_of(front, point), -(_latency(point, kind) or 0.0)))
    fp32 = reference(front, "fp32")
    if fp32 is None:
        return best, f"Best design: {_described(front, best, kind)}."
    unit = "point" if shown_unit(front.task) == "%" else shown_unit(front.task)
    target = metric_of(front, fp32)
    allowed = NEAR_POINTS / metric_factor(front.task)
    near = [point for point in designs if sign * (target - metric_of(front, point)) <= allowed + 1e-12]
    if near:
        fastest = min(near, key=lambda point: (_latency(point, kind) or 0.0, point.id))
        return fastest, f"Fastest design within {NEAR_POINTS:g} {unit} of FP32: {_described(front, fastest, kind)}."
    score = metric_text(front.task, target)
    far = f"No design comes within {NEAR_POINTS:g} {unit} of FP32 ({score})"
    return best, f"{far}; the closest is {_described(front, best, kind)}."


def _described(front: ParetoFront, point: DesignPoint, kind: LatencyKind) -> str:
    """``NAME, 97.3 % at 14.2 µs (measured), 3.4x faster than INT8``."""
    score, latency = metric_text(front.task, metric_of(front, point)), latency_text(_latency(point, kind) or 0.0)
    text = f"{point.name}, {score} at {latency} ({kind})"
    speedup = _speedup(point, rival(front, point, "w8a8"), kind)
    if speedup is None:
        return text
    int8 = "INT8" if point.width == 1 else "INT8 at the same width"
    if 0.95 <= speedup <= 1.05:
        return f"{text}, as fast as {int8}"
    ratio = f"{speedup:.1f}x faster" if speedup > 1 else f"{1 / speedup:.1f}x slower"
    return f"{text}, {ratio} than {int8}"


def _speedup(point: DesignPoint | None, other: DesignPoint | None, kind: LatencyKind) -> float | None:
    mine, theirs = _latency(point, kind), _latency(other, kind)
    return theirs / mine if mine and theirs else None


def _knee(front: ParetoFront) -> tuple[str | None, str]:
    """The knee on the axes that the figure shows: the metric against the logarithm of the latency."""
    points = [point for point in designs_of(front) if latency_of(front, point) and not point.dominated]
    values = [(metric_of(front, point), math.log(latency_of(front, point) or 1.0)) for point in points]
    knee = pareto.knee(values, (front.task.direction, "min"), (front.task.metric, "log latency"))
    return (points[knee.position].id, knee.reason) if knee else (None, "")


def _ratio(point: DesignPoint) -> float | None:
    if not point.latency_predicted_us or not point.latency_measured_us:
        return None
    return point.latency_predicted_us / point.latency_measured_us


def _is_within(point: DesignPoint) -> bool:
    low, high, measured = point.latency_low_us, point.latency_high_us, point.latency_measured_us
    return low is not None and high is not None and measured is not None and low <= measured <= high
