"""What narrows the report: limits, ranges, boxes, palettes, axes; links and downloads that carry it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from opened_page import Opened, assert_selected
from report_factory import toy_report

pytestmark = pytest.mark.slow
REPORT = toy_report()


def test_text_filters_rows(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    opened.filter(filter_text="w2a4 soniq")
    expected = {p.id for p in REPORT.front.points if "w2a4" in p.name and "soniq" in p.name}
    assert 0 < len(expected) < len(REPORT.front.points)
    assert set(opened.shown_ids()) == expected
    assert f"{len(expected)} of {len(REPORT.front.points)}" in opened.page.locator("#row-count").inner_text()


def test_limits_filter_rows_and_dim_marks(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    opened.filter(max_latency="12")
    opened.filter(min_metric="96")
    expected = {p.id for p in REPORT.front.points if (p.latency_measured_us or 0) <= 12 and p.metric_val >= 96}
    assert 0 < len(expected) < len(REPORT.front.points)
    assert set(opened.shown_ids()) == expected
    script = """() => Object.fromEntries(document.getElementById("front-plot").data.filter((t) => t.customdata)
      .flatMap((t) => t.customdata.map((id, i) => [id, t.marker.opacity[i]])))"""
    opacity = opened.page.evaluate(script)
    assert {identity for identity, value in opacity.items() if value >= 0.5} == expected
    opened.page.click("#clear-filter")
    assert len(opened.shown_ids()) == len(REPORT.front.points)


def test_a_slider_sets_its_limit_by_mouse_and_keyboard(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    slider = opened.page.locator("#max-size-slider")
    slider.focus()
    assert slider.get_attribute("aria-valuetext") == "no limit"
    for _ in range(60):
        opened.page.keyboard.press("ArrowLeft")
    opened.page.wait_for_timeout(200)
    limit = float(opened.page.input_value("#max-size"))
    expected = {p.id for p in REPORT.front.points if p.size_bytes / 1024 <= limit}
    assert 0 < len(expected) < len(REPORT.front.points)
    assert set(opened.shown_ids()) == expected
    assert f"max_size={limit:g}" in opened.page.url
    designs = [p for p in REPORT.front.points if p.id in expected and p.role == "design"]
    words = opened.page.locator("#limits-words").inner_text()
    assert words.startswith(f"{len(designs)} of {sum(p.role == 'design' for p in REPORT.front.points)} designs")
    opened.page.click("#best")
    assert_selected(opened, max(designs, key=lambda p: p.metric_val))
    opened.page.keyboard.press("End")
    slider.focus()
    opened.page.keyboard.press("End")
    opened.page.wait_for_timeout(200)
    assert opened.page.input_value("#max-size") == ""
    assert len(opened.shown_ids()) == len(REPORT.front.points)


def test_rows_sort_both_ways(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    points = {point.id: point for point in REPORT.front.points}
    opened.page.click('[data-sort="size_bytes"]')
    sizes = [points[identity].size_bytes for identity in opened.shown_ids()]
    assert sizes == sorted(sizes)
    opened.page.click('[data-sort="size_bytes"]')
    assert [points[identity].size_bytes for identity in opened.shown_ids()] == sorted(sizes, reverse=True)
    assert opened.page.locator('th[aria-sort="descending"]').inner_text().startswith("Size")


def test_the_filtered_rows_can_be_taken_away(open_report: Callable[..., Opened], tmp_path: Path) -> None:
    opened = open_report(toy_report(names={2: 'comma, "quoted" w4a4'}))
    opened.filter(filter_text="w4a4")
    ids = opened.shown_ids()
    assert 0 < len(ids) < len(opened.report.front.points)
    with opened.page.expect_download() as taken:
        opened.page.click("#download-csv")
    taken.value.save_as(tmp_path / "taken.csv")
    with (opened.folder / "designs.csv").open(encoding="utf-8", newline="") as file:
        whole = {row["id"]: row for row in csv.DictReader(file)}
    with (tmp_path / "taken.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["id"] for row in found] == ids
    for row in found:
        for column, text in whole[row["id"]].items():
            assert row[column] == text or float(row[column]) == float(text)
    with opened.page.expect_download() as taken:
        opened.page.click("#download-json")
    taken.value.save_as(tmp_path / "taken.json")
    commands = {detail.id: detail.command for detail in opened.report.details}
    points = {point.id: point.to_json_value() for point in opened.report.front.points}
    expected = [{**points[identity], "command": commands[identity]} for identity in ids]
    assert json.loads((tmp_path / "taken.json").read_text(encoding="utf-8")) == expected


def test_a_link_brings_selection_filter_and_axes_back(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    point = next(p for p in REPORT.front.points if "w1a1+w2a2@" in p.name)
    opened.row(point.id).click()
    opened.filter(filter_text="w1a1")
    opened.filter(max_latency="50")
    opened.page.uncheck("#show-bars")
    opened.page.select_option("#axis-y", "metric_test")
    link = opened.page.locator("#permalink").evaluate("a => a.href")
    assert link == opened.page.url
    again = open_report(fragment="#" + link.split("#")[1])
    assert again.page.locator("#card-name").inner_text() == point.name
    assert again.page.input_value("#filter-text") == "w1a1"
    assert again.page.input_value("#max-latency") == "50"
    assert not again.page.is_checked("#show-bars")
    assert again.page.input_value("#axis-y") == "metric_test"
    assert again.shown_ids() == opened.shown_ids()


def test_a_link_that_means_nothing_is_harmless(open_report: Callable[..., Opened]) -> None:
    opened = open_report(fragment="#design=nobody&x=__proto__&max_latency=fast&seed=-3&constructor=1")
    assert len(opened.shown_ids()) == len(REPORT.front.points)
    assert opened.page.locator("#card-name").inner_text()


def test_dominated_designs_can_be_hidden(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    script = "() => document.getElementById('front-plot').data.flatMap((t) => t.customdata || [])"
    assert set(opened.page.evaluate(script)) == {point.id for point in REPORT.front.points}
    opened.page.uncheck("#show-dominated")
    expected = {p.id for p in REPORT.front.points if not p.dominated}
    assert len(expected) < len(REPORT.front.points)
    assert set(opened.page.evaluate(script)) == expected
    assert set(opened.shown_ids()) == expected


def test_a_palette_can_be_hidden(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    chip = opened.page.locator("#legend button", has_text="w2a2").first
    chip.click()
    assert {p.id for p in REPORT.front.points if p.palette != "w2a2"} == set(opened.shown_ids())


def test_the_axes_can_be_chosen(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    opened.page.select_option("#axis-x", "size_bytes")
    line = """(() => { const t = document.getElementById("front-plot").data.find((t) => t.name === "front");
      return t.x.map((x, i) => [x, t.y[i]]); })()"""
    sizes = [(p.size_bytes / 1024, p.metric_val) for p in REPORT.front.points if p.role == "design"]
    expected = [a for a in sizes if not any(b[0] <= a[0] and b[1] >= a[1] and b != a for b in sizes)]
    assert opened.page.evaluate(line) == [list(pair) for pair in sorted(expected)]
    opened.page.select_option("#axis-y", "bits_per_weight")
    assert opened.page.locator("#front-plot .ytitle").text_content() == "bits per weight"
    assert opened.page.locator("#front-plot .xtitle").text_content() == "size (KiB)"


def test_a_range_drawn_over_an_axis_filters_and_is_lifted(open_report: Callable[..., Opened]) -> None:
    opened = open_report(fragment="#x=latency_measured_us&y=metric_val")
    page, points = opened.page, [p for p in REPORT.front.points if p.latency_measured_us is not None]
    page.locator("#parallel-canvas").scroll_into_view_if_needed()
    labels = page.locator("#parallel-top strong").all_inner_texts()
    box = page.locator("#parallel-canvas").bounding_box()
    assert box is not None
    x = box["x"] + box["width"] * (labels.index("Measured latency (µs)") + 0.5) / len(labels)
    page.mouse.move(x, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(x, box["y"] + 60, steps=3)
    page.mouse.move(x, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    (brush,) = page.locator("#brushes button").all_inner_texts()
    low, high = (float(word) for word in brush.split() if word[0].isdigit())
    kept = {p.id for p in points if low <= (p.latency_measured_us or 0) <= high}
    assert 0 < len(kept) < len(points), "the faster half, on a logarithmic axis"
    assert set(opened.shown_ids()) == kept
    again = open_report(fragment=f"#{page.url.partition('#')[2]}")
    assert set(again.shown_ids()) == kept
    again.page.locator("#brushes button").click()
    assert len(again.shown_ids()) == len(REPORT.front.points)


def test_a_box_around_marks_keeps_these(open_report: Callable[..., Opened]) -> None:
    opened = open_report(fragment="#x=latency_measured_us&y=metric_val")
    page = opened.page
    chosen = sorted(REPORT.front.points, key=lambda p: p.latency_measured_us or 0)[:4]
    places = [opened.position(point) for point in chosen]
    page.hover("#front-plot")
    page.locator('#front-plot .modebar-btn[data-title="Box Select"]').click()
    page.mouse.move(min(x for x, _ in places) - 12, min(y for _, y in places) - 12)
    page.mouse.down()
    page.mouse.move(max(x for x, _ in places) + 12, max(y for _, y in places) + 12, steps=4)
    page.mouse.up()
    page.wait_for_selector("#brushes button")
    assert page.locator("#brushes button").count() == 2
    shown = set(opened.shown_ids())
    assert {point.id for point in chosen} <= shown
    assert len(shown) < len(REPORT.front.points)
    page.click("#clear-filter")
    assert len(opened.shown_ids()) == len(REPORT.front.points)
