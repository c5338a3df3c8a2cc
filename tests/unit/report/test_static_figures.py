"""Predicted against measured, and the inside of a design, as static pictures."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from report_factory import toy_report

from soniq_dse.records.front import Report
from soniq_dse.report.agreement_figure import agreement_svg
from soniq_dse.report.build import build_report
from soniq_dse.report.design_figure import BITS, TERMS, design_svg
from soniq_dse.report.summary import summarise

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script>&\x00"


def summarised(report: Report) -> Report:
    return report.model_copy(update={"summary": summarise(report)})


def test_marks_below_the_diagonal_are_predicted_too_fast() -> None:
    report = toy_report()
    root = ElementTree.fromstring(agreement_svg(report) or "")
    places = {}
    for path in root.iter(f"{SVG}path"):
        title = path.find(f"{SVG}title")
        if title is not None:
            x, y = map(float, re.findall(r"-?[\d.]+", path.get("transform", "")))
            places[title.text] = (x - 72) - (460 - y)  # to the right of the diagonal: positive
    assert set(places) == {point.name for point in report.front.points}
    for point in report.front.points:
        slower = (point.latency_measured_us or 0) / (point.latency_predicted_us or 1)
        assert (places[point.name] > 0) == (slower > 1) or abs(places[point.name]) < 0.2


def test_the_strips_have_the_bits_and_the_bars_the_times() -> None:
    report = summarised(toy_report())
    assert report.summary is not None
    detail = next(d for d in report.details if d.id == report.summary.finding_id)
    root = ElementTree.fromstring(design_svg(report) or "")
    strips: dict[str, float] = {}
    for rect in root.iter(f"{SVG}rect"):
        if rect.find(f"{SVG}title") is not None and rect.get("y") == "118":  # the second row: conv2 reads body1
            strips[rect.get("fill", "")] = strips.get(rect.get("fill", ""), 0.0) + float(rect.get("width", "0"))
    segments = detail.assignments[0].segments("body1")
    assert set(strips) == {BITS[s.weight_bits] for s in segments}
    for segment in segments:
        assert strips[BITS[segment.weight_bits]] == pytest.approx(330 * segment.channels / 32, abs=0.5)
    assert detail.estimate is not None
    compute = [
        float(r.get("width", "0"))
        for r in root.iter(f"{SVG}rect")
        if r.get("fill") == TERMS["compute"] and r.get("height") == "19"
    ]
    times = [layer.latency_us for layer in detail.estimate.per_layer]
    assert [width / max(compute) for width in compute] == pytest.approx([t / max(times) for t in times], rel=0.02)


@pytest.mark.parametrize("figure", [agreement_svg, design_svg])
def test_they_are_deterministic_well_formed_and_escaped(figure: object) -> None:
    report = summarised(toy_report(title=HOSTILE, names=dict.fromkeys(range(14), HOSTILE)))
    report = report.model_copy(update={"hardware_title": HOSTILE})
    assert callable(figure)
    svg = figure(report)
    assert svg == figure(report)
    root = ElementTree.fromstring(svg)
    assert not list(root.iter(f"{SVG}script"))
    assert "alert(1)" in "".join(root.itertext())


def test_no_figure_of_what_is_not_there(tmp_path: Path) -> None:
    build_report(toy_report(), tmp_path)
    assert {path.name for path in tmp_path.glob("*.svg")} == {"front.svg", "agreement.svg", "design.svg"}
    build_report(toy_report(0, references=False), tmp_path)
    assert {path.name for path in tmp_path.glob("*.svg")} == {"front.svg"}
