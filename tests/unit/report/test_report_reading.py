from __future__ import annotations

import itertools

import pytest
from report_factory import toy_report

from soniq_dse.report.marks import COLOURS, SHAPES, marks_of
from soniq_dse.report.reading import date_text, latency_field, latency_text, metric_field, metric_text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0.1234, "0.123 µs"),
        (14.23, "14.2 µs"),
        (999.4, "999 µs"),
        (999.9, "1 ms"),
        (1420.0, "1.42 ms"),
        (2_500_000.0, "2.5 s"),
    ],
)
def test_latency_text(microseconds: float, text: str) -> None:
    assert latency_text(microseconds) == text


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [("%", 97.31, "97.3 %"), ("fraction", 0.9731, "97.3 %"), ("BLEU", 27.123, "27.1 BLEU"), ("", 8.5, "8.5")],
)
def test_metric_text(unit: str, value: float, text: str) -> None:
    task = toy_report(0).front.task.model_copy(update={"metric_unit": unit})
    assert metric_text(task, value) == text


@pytest.mark.parametrize(
    ("created", "text"),
    [
        ("2025-01-31T12:00:00+00:00", "31 January 2025, 12:00 UTC"),
        ("2025-01-31T12:00:00Z", "31 January 2025, 12:00 UTC"),
        ("2025-01-31T12:00:00", "31 January 2025, 12:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_date_text(created: str, text: str) -> None:
    assert date_text(created) == text


def test_the_axes_are_the_objectives() -> None:
    measured, predicted = toy_report(1).front, toy_report(1, measured=False).front
    assert (metric_field(measured), latency_field(measured)) == ("metric_val", "latency_measured_us")
    assert latency_field(predicted) == "latency_predicted_us"
    assert latency_field(measured.model_copy(update={"objectives": ()})) == "latency_predicted_us"


def test_42_palettes_have_42_marks_and_neighbours_differ_in_both() -> None:
    front = toy_report(1, references=False).front
    points = tuple(front.points[0].model_copy(update={"palette": f"p{i:02d}"}) for i in range(42))
    marks = list(marks_of(points).values())
    assert len({(mark.colour, mark.symbol) for mark in marks}) == len(COLOURS) * len(SHAPES) == 42
    for left, right in itertools.pairwise(marks):
        assert left.colour != right.colour
        assert left.symbol != right.symbol


def test_marks_do_not_depend_on_the_order_of_the_points() -> None:
    front = toy_report(14).front
    backwards = front.model_copy(update={"points": tuple(reversed(front.points))})
    assert marks_of(front.points) == marks_of(backwards.points)
