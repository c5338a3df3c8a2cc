"""How the report reads a front: which fields are its axes, which points are references, how figures are worded."""

from __future__ import annotations

import datetime

from soniq_dse.records.front import DesignPoint, ParetoFront, TaskInfo


def metric_field(front: ParetoFront) -> str:
    """The point's field that the front's metric objective names (``metric_val`` where it names none)."""
    return next((o.field for o in front.objectives if o.field.startswith("metric")), "metric_val")


def latency_field(front: ParetoFront) -> str:
    """The point's field that the front's latency objective names (``latency_predicted_us`` where it names none)."""
    return next((o.field for o in front.objectives if o.field.startswith("latency")), "latency_predicted_us")


def metric_of(front: ParetoFront, point: DesignPoint) -> float:
    """The point's value of the metric objective, in the task's unit."""
    return float(getattr(point, metric_field(front)))


def latency_of(front: ParetoFront, point: DesignPoint) -> float | None:
    """The point's value of the latency objective in microseconds; None where it is not known."""
    value = getattr(point, latency_field(front))
    return None if value is None else float(value)


def designs_of(front: ParetoFront) -> list[DesignPoint]:
    """The points that are designs, references left out."""
    return [point for point in front.points if point.role == "design"]


def reference(front: ParetoFront, role: str) -> DesignPoint | None:
    """The first reference point of a role (``fp32`` or ``int8``)."""
    return next((point for point in front.points if point.role == role), None)


def rival(front: ParetoFront, point: DesignPoint | None, palette: str) -> DesignPoint | None:
    """What ``point`` is fairly compared with: the network of the same width in ``palette`` (``w8a8``, ``fp32``)."""
    if point is None:
        return None
    alike = (other for other in front.points if other.palette == palette and other.width == point.width)
    return next((other for other in alike if other.id != point.id), None)


def metric_factor(task: TaskInfo) -> float:
    """What a metric value is multiplied by before it is shown: fractions are shown in per cent."""
    return 100.0 if task.metric_unit == "fraction" else 1.0


def shown_unit(task: TaskInfo) -> str:
    """The unit that goes with ``metric_factor``."""
    return "%" if task.metric_unit == "fraction" else task.metric_unit


def metric_text(task: TaskInfo, value: float) -> str:
    """``97.3 %``; three decimals for a metric that is no percentage."""
    unit = shown_unit(task)
    number = f"{value * metric_factor(task):.1f}" if unit == "%" else f"{value:.3g}"
    return f"{number} {unit}".strip()


def latency_text(microseconds: float) -> str:
    """``14.2 µs``, ``1.42 ms`` or ``1.42 s``: three significant digits, rounded before the unit is chosen."""
    value = float(f"{microseconds:.3g}")
    for factor, unit in ((1.0, "µs"), (1e3, "ms")):
        if value < 1000 * factor:
            return f"{_plain(value / factor)} {unit}"
    return f"{_plain(value / 1e6)} s"


def date_text(created: str) -> str:
    """``31 January 2025, 12:00 UTC`` for an ISO time; any other text as it is."""
    try:
        time = datetime.datetime.fromisoformat(created.replace("Z", "+00:00"))
    except ValueError:
        return created
    return f"{time.day} {time:%B %Y, %H:%M %Z}".strip()


def _plain(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
