"""Dominance with error bars, the front, hypervolume and the knee. A point is a sequence of values, one per objective.

A value may be None (not known, for example a latency that was not predicted): such a point neither dominates nor joins
the front. An interval says how far a value can be trusted: an order that the intervals leave open does not dominate.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Direction = Literal["max", "min"]
Values = Sequence[float | None]


class Interval(NamedTuple):
    """Where a value lies: ``low <= value <= high``, in the value's unit."""

    low: float
    high: float


class Knee(NamedTuple):
    """The point of the front where the trade turns: its position among the points given, and why."""

    position: int
    reason: str


def dominates(a: Values, b: Values, directions: Sequence[Direction]) -> bool:
    """True where ``a`` is nowhere worse than ``b`` and somewhere better."""
    left, right = _as_costs(a, directions), _as_costs(b, directions)
    if left is None or right is None:
        return False
    return all(x <= y for x, y in zip(left, right, strict=True)) and left != right


def dominates_surely(a: Sequence[Interval], b: Sequence[Interval], directions: Sequence[Direction]) -> bool:
    """True where ``a`` dominates ``b`` wherever in their intervals the true values lie.

    The worst end of ``a`` is as good as the best end of ``b`` in every objective, and somewhere better (imprecise
    dominance: Limbourg and Aponte, "An optimization algorithm for imprecise multi-objective problem functions", 2005).
    """
    worst = [x.low if direction == "max" else x.high for x, direction in zip(a, directions, strict=True)]
    best = [y.high if direction == "max" else y.low for y, direction in zip(b, directions, strict=True)]
    return dominates(worst, best, directions)


def dominated(
    points: Sequence[Values],
    directions: Sequence[Direction],
    intervals: Sequence[Sequence[Interval | None]] | None = None,
) -> list[bool]:
    """For every point, whether another one dominates it; with ``intervals`` (None: exact), surely.

    A point with a value that is not known counts as dominated.
    """
    none: list[Interval | None] = [None] * len(directions)
    known = [
        None if _as_costs(point, directions) is None else _widened(point, bars)
        for point, bars in zip(points, intervals or [none] * len(points), strict=True)
    ]
    if len(directions) == 2:
        return _dominated_in_the_plane(known, directions)
    return [
        mine is None or any(other is not None and dominates_surely(other, mine, directions) for other in known)
        for mine in known
    ]


def _dominated_in_the_plane(known: Sequence[list[Interval] | None], directions: Sequence[Direction]) -> list[bool]:
    """``dominated`` for two objectives in O(n log n): worst ends sorted by the first, with the least second so far."""
    bars = [mine for mine in known if mine is not None]
    ends = sorted(_ends(mine, directions, worst=True) for mine in bars)
    firsts = [x for x, _ in ends]
    least = list(itertools.accumulate((y for _, y in ends), min))

    def behind(x: float, y: float) -> bool:
        i = bisect.bisect_left(
            firsts, x
        )  # before i: better in the first objective; from i on: equal, best second first
        return (i > 0 and least[i - 1] <= y) or (i < len(ends) and ends[i][0] == x and ends[i][1] < y)

    return [mine is None or behind(*_ends(mine, directions, worst=False)) for mine in known]


def _ends(bars: Sequence[Interval], directions: Sequence[Direction], *, worst: bool) -> tuple[float, float]:
    """The worst or best end of two intervals as costs."""
    x, y = (
        -(b.low if worst else b.high) if d == "max" else (b.high if worst else b.low)
        for b, d in zip(bars, directions, strict=True)
    )
    return x, y


Standing = Literal["front", "dominated", "uncertain"]
"""Whether some point surely dominates a point; ``uncertain``: some does by the values, none surely."""


def standings(
    points: Sequence[Values], directions: Sequence[Direction], intervals: Sequence[Sequence[Interval | None]]
) -> list[Standing]:
    """The standing of every point."""
    surely, by_value = dominated(points, directions, intervals), dominated(points, directions)
    return [
        "dominated" if sure else "uncertain" if likely else "front"
        for sure, likely in zip(surely, by_value, strict=True)
    ]


def _widened(values: Values, bars: Sequence[Interval | None]) -> list[Interval]:
    pairs = zip(values, bars, strict=True)
    return [bar or Interval(value, value) for value, bar in pairs if value is not None]


def front(points: Sequence[Values], directions: Sequence[Direction]) -> list[int]:
    """Indices of the points that none dominates, sorted by the first objective, best first."""
    flags = dominated(points, directions)
    sign = -1.0 if directions[0] == "max" else 1.0
    return sorted((i for i, flag in enumerate(flags) if not flag), key=lambda i: (sign * (points[i][0] or 0.0), i))


def hypervolume(points: Sequence[Values], reference: Sequence[float], directions: Sequence[Direction]) -> float:
    """Volume that ``points`` dominate and that dominates ``reference``, in the product of the objectives' units.

    Exact, by slicing along the last objective (While et al., "A faster algorithm for calculating hypervolume", 2006,
    without its heuristics): O(n log n) for two objectives; meant for the tens of points that a front has.
    """
    limit = _as_costs(reference, directions)
    assert limit is not None
    costs = {cost for point in points if (cost := _as_costs(point, directions)) is not None}
    inside = sorted(cost for cost in costs if all(x < r for x, r in zip(cost, limit, strict=True)))
    return _volume(inside, limit)


def _volume(costs: list[tuple[float, ...]], limit: tuple[float, ...]) -> float:
    if not costs:
        return 0.0
    if len(limit) == 1:
        return limit[0] - min(cost[0] for cost in costs)
    if len(limit) == 2:
        return _area(costs, limit)
    heights = sorted({cost[-1] for cost in costs})
    total = 0.0
    for low, high in zip(heights, [*heights[1:], limit[-1]], strict=True):
        total += (high - low) * _volume(sorted(cost[:-1] for cost in costs if cost[-1] <= low), limit[:-1])
    return total


def _area(costs: list[tuple[float, ...]], limit: tuple[float, ...]) -> float:
    """Area of two objectives: a staircase from the best first objective on; ``costs`` are sorted."""
    total, floor = 0.0, limit[1]
    for x, y in costs:
        if y < floor:
            total += (limit[0] - x) * (floor - y)
            floor = y
    return total


def knee(points: Sequence[Values], directions: Sequence[Direction], labels: Sequence[str]) -> Knee | None:
    """The point of a front of two objectives that lies farthest from the straight line between its two ends.

    Both objectives are scaled to 0..1 between the ends (Das, "On characterizing the knee of the Pareto curve", 1999).
    None where the front has fewer than three points, or none of them lies beyond the line: then no point is special.
    """
    if len(directions) != 2:
        raise ValueError(f"knee: expected two objectives, got {len(directions)}")
    indices = front(points, directions)
    costs = [cost for i in indices if (cost := _as_costs(points[i], directions)) is not None]
    if len(costs) < 3:
        return None
    (x0, y0), (x1, y1) = costs[0], costs[-1]
    if x0 == x1 or y0 == y1:
        return None
    gains = [1.0 - (x - x0) / (x1 - x0) - (y - y1) / (y0 - y1) for x, y in costs]
    best = max(range(len(gains)), key=lambda i: (gains[i], -i))
    if gains[best] <= 1e-9:
        return None
    (x, y) = costs[best]
    reason = (
        f"gives up {_percent((x - x0) / (x1 - x0))} of the front's range in {labels[0]} "
        f"for {_percent((y0 - y) / (y0 - y1))} of its range in {labels[1]}"
    )
    return Knee(indices[best], reason)


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


def _as_costs(values: Values, directions: Sequence[Direction]) -> tuple[float, ...] | None:
    """Values turned so that smaller is better; None where one is missing.

    Raises:
        ValueError: the lengths differ, or a value is not a number.
    """
    costs: list[float] = []
    for value, direction in zip(values, directions, strict=True):
        if value is None:
            return None
        if math.isnan(value):
            raise ValueError("objectives: expected numbers, got nan")
        costs.append(-value if direction == "max" else float(value))
    return tuple(costs)
