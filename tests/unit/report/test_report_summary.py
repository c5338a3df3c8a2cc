from __future__ import annotations

from typing import Any

import pytest
from report_factory import toy_report

from soniq_dse.records.front import Report
from soniq_dse.report.summary import summarise


def report_of(*points: dict[str, Any], unit: str = "%", direction: str = "max") -> Report:
    """A report of bare points; latencies are predicted unless ``measured`` is given."""
    base = toy_report(1, references=False, measured=False)
    made = []
    for index, given in enumerate(points):
        values = {"role": "design", "dominated": False, "measured": None, **given}
        made.append(
            base.front.points[0].model_copy(
                update={
                    "id": f"p{index}",
                    "name": values.get("name", f"p{index}"),
                    "role": values["role"],
                    "palette": values.get("palette", "w1a1"),
                    "width": values.get("width", 1.0),
                    "metric_val": values["metric"],
                    "latency_predicted_us": values["us"],
                    "latency_low_us": None if values["us"] is None else 0.9 * values["us"],
                    "latency_high_us": None if values["us"] is None else 1.1 * values["us"],
                    "latency_measured_us": values["measured"],
                    "dominated": values["dominated"],
                }
            )
        )
    task = base.front.task.model_copy(update={"metric_unit": unit, "direction": direction})
    return base.model_copy(update={"front": base.front.model_copy(update={"points": tuple(made), "task": task})})


FP32 = {"role": "fp32", "palette": "fp32", "metric": 98.0, "us": 80.0}
INT8 = {"role": "int8", "palette": "w8a8", "metric": 97.9, "us": 34.0}


def test_the_finding_is_the_fastest_near_fp32() -> None:
    summary = summarise(
        report_of({"metric": 97.5, "us": 20.0}, {"metric": 97.0, "us": 10.0}, {"metric": 96.9, "us": 5.0}, FP32, INT8)
    )
    assert summary.finding_id == "p1"
    assert summary.finding == (
        "Fastest design within 1 point of FP32: p1, 97.0 % at 10 µs (predicted), 3.4x faster than INT8."
    )
    assert summary.speedup_over_int8 == pytest.approx(3.4)
    assert summary.speedup_over_fp32 == pytest.approx(8.0)
    assert summary.speedup_kind == "predicted"


def test_measured_latency_goes_before_predicted() -> None:
    fast = {"metric": 97.5, "us": 30.0, "measured": 10.0}
    slow = {"metric": 97.5, "us": 10.0, "measured": 30.0}
    summary = summarise(report_of(slow, fast, FP32, {**INT8, "measured": 20.0}))
    assert summary.finding_id == "p1"
    assert summary.speedup_over_int8 == pytest.approx(2.0)
    assert summary.speedup_over_fp32 is None, "FP32 was not measured: no ratio of a measurement to a prediction"


def test_a_narrow_design_is_compared_with_int8_of_its_own_width() -> None:
    narrow = {"metric": 97.5, "us": 5.0, "width": 0.5}
    rival = {"metric": 97.5, "us": 10.0, "width": 0.5, "palette": "w8a8"}
    finding = summarise(report_of(narrow, rival, FP32, INT8)).finding
    assert finding.endswith("p0, 97.5 % at 5 µs (predicted), 2.0x faster than INT8 at the same width.")
    alone = summarise(report_of(narrow, FP32, INT8))
    assert alone.finding.endswith("p0, 97.5 % at 5 µs (predicted).")
    assert alone.speedup_over_int8 is None


@pytest.mark.parametrize(
    ("us", "words"), [(10.0, "3.4x faster than INT8"), (34.0, "as fast as INT8"), (68.0, "2.0x slower than INT8")]
)
def test_it_says_slower_where_it_is_slower(us: float, words: str) -> None:
    assert summarise(report_of({"metric": 97.9, "us": us}, FP32, INT8)).finding.endswith(f"{words}.")


def test_it_admits_that_none_is_near() -> None:
    summary = summarise(report_of({"metric": 90.0, "us": 5.0}, {"metric": 94.0, "us": 9.0}, FP32))
    assert (
        summary.finding
        == "No design comes within 1 point of FP32 (98.0 %); the closest is p1, 94.0 % at 9 µs (predicted)."
    )
    assert summary.finding_id == "p1"


def test_fractions_count_in_points_of_per_cent() -> None:
    points = ({"metric": 0.972, "us": 5.0}, {"metric": 0.965, "us": 3.0}, {**FP32, "metric": 0.98})
    summary = summarise(report_of(*points, unit="fraction"))
    assert summary.finding.startswith("Fastest design within 1 point of FP32: p0, 97.2 % at 5 µs")


def test_lower_is_better_where_the_metric_says_so() -> None:
    points = (
        {"metric": 21.5, "us": 5.0},
        {"metric": 19.0, "us": 1.0},
        {"metric": 30.0, "us": 0.5},
        {**FP32, "metric": 20.0},
    )
    summary = summarise(report_of(*points, unit="", direction="min"))
    assert summary.finding_id == "p1"


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ((), "No design was trained to the end yet."),
        ((FP32,), "No design was trained to the end yet."),
        (({"metric": 90.0, "us": None},), "No latency is known yet."),
        (({"metric": 90.0, "us": 4.0},), "Best design: p0, 90.0 % at 4 µs (predicted)."),
    ],
)
def test_little_is_said_where_little_is_known(points: tuple[dict[str, Any], ...], words: str) -> None:
    assert summarise(report_of(*points)).finding == words


def test_the_knee_is_that_of_the_figure_and_no_reference() -> None:
    # On log latency the line from (90, 1) to (98, 100) passes 94 at 10 us; p1 lies 3.5 points above it, p2 0.4 points.
    points = (
        {"metric": 90.0, "us": 1.0},
        {"metric": 97.5, "us": 10.0},
        {"metric": 97.6, "us": 50.0},
        {"metric": 98.0, "us": 100.0},
    )
    summary = summarise(report_of(*points, {**FP32, "metric": 99.9, "us": 2.0}))
    assert summary.knee_id == "p1"
    assert "accuracy" in summary.knee_reason


def test_two_designs_have_no_knee() -> None:
    summary = summarise(report_of({"metric": 90.0, "us": 1.0}, {"metric": 98.0, "us": 100.0}))
    assert (summary.knee_id, summary.knee_reason) == (None, "")


def test_agreement_counts_what_was_both_predicted_and_measured() -> None:
    points: list[dict[str, Any]] = [
        {"metric": 90.0, "us": 10.0, "measured": 10.0},  # ratio 1, within 9..11
        {"metric": 91.0, "us": 10.0, "measured": 20.0},  # ratio 0.5, outside
        {"metric": 92.0, "us": 15.0, "measured": 10.0},  # ratio 1.5, outside; |ln 1.5| < |ln 0.5|
        {"metric": 93.0, "us": 10.0},
    ]
    summary = summarise(report_of(*points))
    assert (summary.n_measured, summary.n_within_interval) == (3, 1)
    assert summary.ratio_median == pytest.approx(1.0)
    assert summary.ratio_worst == pytest.approx(0.5)
