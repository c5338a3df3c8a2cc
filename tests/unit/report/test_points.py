"""Evaluations of several seeds -> points: means, standard errors, dominance, references apart."""

from __future__ import annotations

import math
from typing import Any

import pytest

from soniq_dse.records.cost import Agreement, Estimate, LayerEstimate, Measurement
from soniq_dse.records.front import DesignPoint, TaskInfo
from soniq_dse.report.points import (
    Evaluation,
    details_of,
    hypervolume_of,
    objectives_of,
    point_id,
    points_of,
    search_of,
)

TASK = TaskInfo(
    model="m", data="d", metric="accuracy", metric_unit="%", direction="max", n_train=10, n_val=5, n_test=5
)  # fmt: skip


def estimate(us: float) -> Estimate:
    layer = LayerEstimate(name="conv1", op="conv2d", cycles=1, latency_us=us, bound="port")
    return Estimate(
        hardware="h", hardware_sha256="0", cycles=1, latency_us=us, low_us=0.9 * us, high_us=1.1 * us, bound="port",
        batch=1, threads=1, per_layer=(layer,), model="bound", interval="test",
    )  # fmt: skip


def evaluation(name: str, metric: float, us: float | None, measured: float | None = None, **changes: Any) -> Evaluation:
    fields: dict[str, Any] = {
        "role": "design", "name": name, "palette": name, "command": f"explore {name}", "bits_per_weight": 2.0,
        "metric_val": metric, "metric_test": metric - 1, "size_bytes": 100, "batch": 1, "threads": 1, "seconds": 3.0,
        "estimate": None if us is None else estimate(us),
        "measurement": Measurement(skipped="test") if measured is None else Measurement(median_us=measured),
        "agreement": Agreement(ratio=None, within=None, reason="test"),
    }  # fmt: skip
    return Evaluation(**{**fields, **changes})


def by_name(points: tuple[DesignPoint, ...]) -> dict[str, DesignPoint]:
    return {point.name: point for point in points}


def test_one_point_per_design_in_order_of_appearance() -> None:
    points = points_of([evaluation("b", 90, 10), evaluation("a", 91, 20), evaluation("b", 92, 14)], TASK)
    assert [point.name for point in points] == ["b", "a"]
    assert [point.id for point in points] == [point_id("b"), point_id("a")]


def test_means_over_seeds_by_hand() -> None:
    seeds = [
        evaluation("a", 90, 10, 9, size_bytes=100, bits_per_weight=2.0),
        evaluation("a", 92, 14, 11, size_bytes=103, bits_per_weight=2.2),
        evaluation("a", 97, 12, None, size_bytes=102, bits_per_weight=2.1),
    ]
    (point,) = points_of(seeds, TASK)
    assert (point.metric_val, point.metric_test, point.n_seeds) == (93, 92, 3)
    # Deviations -3, -1, 4: squares 26, over n - 1 = 2 is 13; sqrt(13) / sqrt(3).
    assert point.metric_se == pytest.approx(math.sqrt(13 / 3))
    assert point.latency_predicted_us == 12
    assert (point.latency_low_us, point.latency_high_us) == (pytest.approx(9.0), pytest.approx(15.4))
    assert point.latency_measured_us == 10
    assert (point.size_bytes, point.bits_per_weight) == (102, pytest.approx(2.1))


def test_the_budget_is_held_against_the_seed_that_takes_most() -> None:
    seeds = [evaluation("a@9us", 90, 8, budget=9.0, budget_unit="us", budget_used=used) for used in (8.5, 9.5, 8.0)]
    (point,) = points_of(seeds, TASK)
    assert (point.budget, point.budget_unit, point.budget_used) == (9.0, "us", 9.5)


def test_dominance_leaves_the_references_out() -> None:
    points = by_name(
        points_of(
            [
                evaluation("fp32", 99, 1, role="fp32"),
                evaluation("int8", 98, 5, role="int8"),
                evaluation("good", 97, 10),
                evaluation("slow", 97, 20),
                evaluation("best", 98, 30),
                evaluation("unpredicted", 99, None),
            ],
            TASK,
        )
    )
    dominated = {name for name, point in points.items() if point.dominated}
    assert dominated == {"slow", "unpredicted"}


def test_an_order_within_the_standard_errors_does_not_dominate() -> None:
    def dominated(loser: float) -> bool:
        better = [evaluation("better", 95 + shift, 10) for shift in (-1, 0, 1)]  # se 0.58
        worse = [evaluation("worse", loser + shift, 12) for shift in (-1, 0, 1)]
        return by_name(points_of([*better, *worse], TASK))["worse"].dominated

    assert not dominated(94.0)
    assert dominated(93.5)


def test_an_order_within_measured_intervals_is_uncertain() -> None:
    def standing(us: float, *, calibrated: bool) -> tuple[bool, bool]:
        given = [estimate(at).model_copy(update={"calibrated": calibrated}) for at in (10.0, us)]
        found = [evaluation(name, 95, 1, estimate=e) for name, e in zip(("fast", "slow"), given, strict=True)]
        point = by_name(points_of(found, TASK))["slow"]
        return point.dominated, point.order_uncertain

    # Intervals of 10 %: 9..11 and 10.8..13.2 overlap, 9..11 and 13.5..16.5 do not.
    assert standing(12.0, calibrated=True) == (False, True)
    assert standing(15.0, calibrated=True) == (True, False)
    assert standing(12.0, calibrated=False) == (True, False)  # tolerances are of errors that both share


def test_direction_of_the_task() -> None:
    perplexity = TASK.model_copy(update={"metric": "perplexity", "direction": "min", "metric_unit": ""})
    points = by_name(points_of([evaluation("low", 20, 10), evaluation("high", 30, 10)], perplexity))
    assert (points["low"].dominated, points["high"].dominated) == (False, True)
    assert [objective.direction for objective in objectives_of(perplexity)] == ["min", "min"]


def test_hypervolume_by_hand() -> None:
    # Reference: the worst metric and the slowest of all points, (90, 40). a: (95 - 90) * (40 - 10) = 150;
    # b adds (97 - 95) * (40 - 20) = 40. The slow FP32 point only sets the reference.
    seeds = [evaluation("a", 95, 10), evaluation("b", 97, 20), evaluation("c", 90, 30)]
    points = points_of([*seeds, evaluation("fp32", 99, 40, role="fp32")], TASK)
    assert hypervolume_of(points, TASK) == 190
    assert hypervolume_of(points[:1], TASK) is None


def test_the_search_grows_to_the_hypervolume() -> None:
    # The points of test_hypervolume_by_hand. c adds nothing; b is there after its second seed; d was cut short.
    seeds = [evaluation("a", 95, 10), evaluation("c", 90, 30), evaluation("b", 96, 20), evaluation("b", 98, 20)]
    points = points_of([evaluation("fp32", 99, 40, role="fp32"), *seeds], TASK)
    spent = [("a", 8), ("b", 8), ("d", 2), ("c", 8), ("b", 8)]
    steps = search_of(spent, points, TASK)
    assert [(step.id, step.epochs, step.hypervolume) for step in steps] == [
        (point_id("a"), 8, 150),
        (point_id("c"), 26, 150),
        (point_id("b"), 34, 190),
    ]
    assert steps[-1].hypervolume == hypervolume_of(points, TASK)
    assert search_of(spent, points[:2], TASK) == ()


def test_details() -> None:
    first, second = details_of([evaluation("a", 95, 10, 9), evaluation("a", 96, 11, 8), evaluation("b", 97, 20)])
    assert (first.id, second.id) == (point_id("a"), point_id("b"))
    assert first.command == "explore a"
    assert first.estimate == estimate(10)
    assert first.seconds == 6
