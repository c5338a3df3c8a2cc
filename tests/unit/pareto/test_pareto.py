"""Dominance, front, hypervolume and knee: worked by hand, and properties on random points."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.pareto import (
    Interval,
    Knee,
    dominated,
    dominates,
    dominates_surely,
    front,
    hypervolume,
    knee,
    standings,
)

MAX_MIN = ("max", "min")
# accuracy in %, latency in microseconds; hand-sorted: a, c and e are the front, b is behind a (less accurate, slower),
# d is behind c (as accurate, slower), f has no latency.
POINTS = {
    "a": (95.0, 10.0),
    "b": (94.0, 12.0),
    "c": (97.0, 20.0),
    "d": (97.0, 25.0),
    "e": (98.0, 80.0),
    "f": (99.0, None),
}


def test_front_by_hand() -> None:
    names = list(POINTS)
    assert dominated(list(POINTS.values()), MAX_MIN) == [False, True, False, True, False, True]
    assert [names[i] for i in front(list(POINTS.values()), MAX_MIN)] == ["e", "c", "a"]


def test_equal_points_do_not_dominate_one_another() -> None:
    assert dominated([(1.0, 2.0), (1.0, 2.0)], MAX_MIN) == [False, False]


def test_unknown_values_never_dominate() -> None:
    assert not dominates((99.0, None), (1.0, 5.0), MAX_MIN)
    assert not dominates((99.0, 1.0), (1.0, None), MAX_MIN)
    assert dominated([(99.0, None), (1.0, 5.0)], MAX_MIN) == [True, False]


def test_nan_is_an_error() -> None:
    with pytest.raises(ValueError, match="got nan"):
        dominated([(float("nan"), 1.0)], MAX_MIN)


def test_error_bars_by_hand() -> None:
    # 95.0 +- 0.5 against 94.4 +- 0.3: the bars reach from 94.5 and to 94.7, so the order is open although a is faster.
    a, b = (95.0, 10.0), (94.4, 12.0)
    assert dominated([a, b], MAX_MIN) == [False, True]
    assert dominated([a, b], MAX_MIN, [[Interval(94.5, 95.5), None], [Interval(94.1, 94.7), None]]) == [False, False]
    # With +- 0.2 it reaches to 94.6 only if a's bar begins at 94.7: decided.
    assert dominated([a, b], MAX_MIN, [[Interval(94.7, 95.3), None], [Interval(94.2, 94.6), None]]) == [False, True]
    # The same holds for latencies.
    assert dominated([a, b], MAX_MIN, [[None, Interval(9.0, 12.5)], [None, Interval(11.0, 13.0)]]) == [False, False]


def test_hypervolume_by_hand() -> None:
    # Reference (90 %, 100 us). Staircase from the most accurate: e (98, 80), c (97, 20), a (95, 10).
    # e: (98-90) * (100-80) = 160; c adds (97-90) * (80-20) = 420; a adds (95-90) * (20-10) = 50. In all 630.
    assert hypervolume(list(POINTS.values()), (90.0, 100.0), MAX_MIN) == 630.0


def test_hypervolume_in_three_dimensions_by_hand() -> None:
    # Minimised, reference (3, 3, 3): boxes of (0,2,2): 3*1*1 = 3, (2,0,2): 1*3*1 = 3, (2,2,0): 1*1*3 = 3; each pair
    # meets in the unit cube from (2,2,2) to (3,3,3), as do all three: 9 - 3 + 1 = 7.
    points = [(0.0, 2.0, 2.0), (2.0, 0.0, 2.0), (2.0, 2.0, 0.0)]
    assert hypervolume(points, (3.0, 3.0, 3.0), ("min",) * 3) == 7.0
    # The same seen as maximisation, and a box in four dimensions: 2 * 3 * 4 * 5.
    assert hypervolume([tuple(-x for x in p) for p in points], (-3.0,) * 3, ("max",) * 3) == 7.0
    assert hypervolume([(0.0,) * 4], (2.0, 3.0, 4.0, 5.0), ("min",) * 4) == 120.0


def test_hypervolume_of_nothing_inside_the_reference() -> None:
    assert hypervolume([], (0.0, 0.0), MAX_MIN) == 0.0
    assert hypervolume([(89.0, 10.0), (95.0, 100.0), (95.0, None)], (90.0, 100.0), MAX_MIN) == 0.0


def test_knee_by_hand() -> None:
    # Ends e (98, 80) and a (95, 10). c gives up 1 of 3 points of accuracy (33 %) for 60 of 70 us (86 %).
    # Beyond the line by 1 - 1/3 - (20-10)/70 = 0.52; no other point is inside the ends.
    points = list(POINTS.values())
    expected = Knee(2, "gives up 33 % of the front's range in accuracy for 86 % of its range in latency")
    assert knee(points, MAX_MIN, ("accuracy", "latency")) == expected


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1.0, 1.0), (2.0, 2.0)],  # two points have no inside
        [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)],  # on the line
        [(1.0, 1.0), (1.2, 2.0), (3.0, 3.0)],  # behind the line
    ],
)
def test_no_knee(points: list[tuple[float, float]]) -> None:
    assert knee(points, MAX_MIN, ("accuracy", "latency")) is None


def test_knee_needs_two_objectives() -> None:
    with pytest.raises(ValueError, match="expected two objectives"):
        knee([(1.0,)], ("max",), ("accuracy",))


numbers = st.integers(0, 9).map(float)
sets = st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[numbers] * n), min_size=1, max_size=7))


@settings(max_examples=200, deadline=None)
@given(points=sets, data=st.data())
def test_dominance_is_a_strict_order_and_the_front_covers_all(
    points: list[tuple[float, ...]], data: st.DataObject
) -> None:
    directions = data.draw(st.tuples(*[st.sampled_from(["max", "min"])] * len(points[0])))
    for a, b, c in itertools.product(points, repeat=3):
        assert not (dominates(a, b, directions) and dominates(b, a, directions))
        if dominates(a, b, directions) and dominates(b, c, directions):
            assert dominates(a, c, directions)
    flags = dominated(points, directions)
    kept = [point for point, flag in zip(points, flags, strict=True) if not flag]
    assert kept
    for point, flag in zip(points, flags, strict=True):
        assert flag == any(dominates(winner, point, directions) for winner in kept)


@settings(max_examples=100, deadline=None)
@given(points=sets, data=st.data())
def test_hypervolume_counts_unit_cubes(points: list[tuple[float, ...]], data: st.DataObject) -> None:
    """On integer points the volume is the number of unit cubes below the reference that some point covers."""
    n = len(points[0])
    reference = data.draw(st.tuples(*[st.integers(0, 9)] * n))
    cubes = itertools.product(*[range(edge) for edge in reference])
    expected = sum(any(all(x <= c for x, c in zip(p, cube, strict=True)) for p in points) for cube in cubes)
    assert hypervolume(points, [float(edge) for edge in reference], ("min",) * n) == expected


@settings(max_examples=100, deadline=None)
@given(points=sets, data=st.data())
def test_wider_error_bars_only_free_points(points: list[tuple[float, ...]], data: st.DataObject) -> None:
    n = len(points[0])
    widths = [data.draw(st.tuples(*[numbers] * n)) for _ in points]
    bars = [[Interval(x - w, x + w) for x, w in zip(p, ws, strict=True)] for p, ws in zip(points, widths, strict=True)]
    plain, sure = dominated(points, ("min",) * n), dominated(points, ("min",) * n, bars)
    assert all(was or not now for was, now in zip(plain, sure, strict=True))
    exact = [[Interval(x, x) for x in p] for p in points]
    assert dominated(points, ("min",) * n, exact) == plain


@settings(max_examples=200, deadline=None)
@given(points=st.lists(st.tuples(numbers, st.none() | numbers), max_size=7), data=st.data())
def test_the_sorted_way_in_the_plane_says_what_pairs_say(
    points: list[tuple[float, float | None]], data: st.DataObject
) -> None:
    directions = data.draw(st.tuples(*[st.sampled_from(["max", "min"])] * 2))
    bars = []
    for point in points:
        widths = data.draw(st.tuples(numbers, numbers))
        found = [None if x is None else Interval(x - w, x + w) for x, w in zip(point, widths, strict=True)]
        bars.append(data.draw(st.sampled_from([found, [None, None]])))

    def widened(index: int) -> list[Interval] | None:
        values = points[index]
        if None in values:
            return None
        return [b or Interval(x, x) for b, x in zip(bars[index], values, strict=True)]

    known = [widened(i) for i in range(len(points))]
    expected = [
        mine is None or any(other is not None and dominates_surely(other, mine, directions) for other in known)
        for mine in known
    ]
    assert dominated(points, directions, bars) == expected


def test_sure_dominance_uses_the_worst_and_best_ends() -> None:
    assert dominates_surely([Interval(5, 6), Interval(1, 1.9)], [Interval(3, 5), Interval(2, 4)], MAX_MIN)
    assert not dominates_surely([Interval(4.9, 6), Interval(1, 2)], [Interval(3, 5), Interval(2, 4)], MAX_MIN)
    assert not dominates_surely([Interval(5, 6), Interval(1, 2.1)], [Interval(3, 5), Interval(2, 4)], MAX_MIN)


def test_standings_tell_sure_from_likely() -> None:
    # (metric up, latency down): b is worse than a by more than the bars, c by less.
    points = [(90.0, 10.0), (90.0, 20.0), (90.0, 10.5)]
    bars = [(None, Interval(9.5, 10.4)), (None, Interval(19.0, 21.0)), (None, Interval(10.0, 11.0))]
    assert standings(points, ("max", "min"), bars) == ["front", "dominated", "uncertain"]
    exact = [(None, None)] * 3
    assert standings(points, ("max", "min"), exact) == ["front", "dominated", "dominated"]
