from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_factory import toy_report

from soniq_dse.records.front import Report
from soniq_dse.report.figure import front_svg
from soniq_dse.report.svg import linear_ticks, log_ticks

SVG = "{http://www.w3.org/2000/svg}"


def marks(svg: str) -> dict[str, tuple[float, float]]:
    """Title -> position of every mark."""
    root = ElementTree.fromstring(svg)
    found = {}
    for path in root.iter(f"{SVG}path"):
        title = path.find(f"{SVG}title")
        if title is not None:
            place = re.fullmatch(r"translate\(([-\d.]+),([-\d.]+)\)", path.get("transform", ""))
            assert place
            found[title.text or ""] = (float(place[1]), float(place[2]))
    return found


def test_every_point_has_its_mark_and_faster_is_further_left() -> None:
    report = toy_report()
    found = marks(front_svg(report))
    points = report.front.points
    assert set(found) == {point.name for point in points}
    by_latency = sorted(points, key=lambda point: point.latency_measured_us or 0)
    xs = [found[point.name][0] for point in by_latency]
    assert xs == sorted(xs)
    by_metric = sorted(points, key=lambda point: -point.metric_val)
    ys = [found[point.name][1] for point in by_metric]
    assert ys == sorted(ys)


def test_it_is_deterministic() -> None:
    assert front_svg(toy_report()) == front_svg(toy_report())


@pytest.mark.parametrize(
    "report",
    [
        toy_report(0, references=False),
        toy_report(1, references=False),
        toy_report(0),
        toy_report(measured=False, n_seeds=1),
        toy_report(title="<script>alert(1)</script>\x00\u2028", names={0: "a & b < c"}),
        toy_report(60),
    ],
    ids=["empty", "one point", "references alone", "predicted alone", "hostile", "many"],
)
def test_it_is_well_formed(report: Report) -> None:
    assert len(marks(front_svg(report))) == len({point.name for point in report.front.points})


def test_an_unknown_latency_leaves_the_point_out() -> None:
    report = toy_report(4, measured=True)
    points = [report.front.points[0].model_copy(update={"latency_measured_us": None}), *report.front.points[1:]]
    changed = report.model_copy(update={"front": report.front.model_copy(update={"points": tuple(points)})})
    assert set(marks(front_svg(changed))) == {point.name for point in points[1:]}


@settings(max_examples=60)
@given(low=st.floats(-3, 6), width=st.floats(0.2, 6))
def testlog_ticks_lie_inside_and_rise(low: float, width: float) -> None:
    ticks = log_ticks(low, low + width)
    assert ticks == sorted(ticks)
    assert all(low <= math.log10(tick) <= low + width for tick in ticks)


@settings(max_examples=60)
@given(low=st.floats(-1e4, 1e4), width=st.floats(1e-3, 1e4))
def testlinear_ticks_lie_inside_and_are_few(low: float, width: float) -> None:
    ticks = linear_ticks(low, low + width)
    assert 2 <= len(ticks) <= 7
    slack = 1e-9 * max(abs(low), width) + 1e-12
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)
