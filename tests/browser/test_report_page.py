"""The report page: it opens, tells, selects, compares, follows light and dark."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from opened_page import HOSTILE, Opened, assert_selected, front_of
from report_factory import toy_report

from soniq_dse.records.front import Report

pytestmark = pytest.mark.slow
REPORT = toy_report()


@pytest.mark.parametrize(
    "report",
    [
        toy_report(),
        toy_report(0, references=False),
        toy_report(1, references=False, n_seeds=1),
        toy_report(measured=False, n_seeds=1),
        toy_report(title=HOSTILE, names={0: HOSTILE}),
    ],
    ids=["full", "empty", "one point", "not measured", "hostile"],
)
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_without_request_or_complaint(open_report: Callable[..., Opened], report: Report, width: int) -> None:
    opened = open_report(report, viewport={"width": width, "height": 844})
    page = opened.page
    assert page.locator("h1").text_content() == report.title
    page.wait_for_selector("html[data-complete]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


def test_hover_tells_the_design(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    point = front_of(REPORT)[-1]
    opened.page.mouse.move(*opened.position(point))
    text = opened.page.locator("#front-plot .hoverlayer .hovertext").text_content() or ""
    assert point.name in text
    assert f"measured {point.latency_measured_us:.3g}" in text
    ratio = (point.latency_predicted_us or 0) / (point.latency_measured_us or 1)
    assert f"predicted/measured {ratio:.3g}" in text
    assert "conv2 " in text, "bits per layer"
    assert "KiB" in text


def test_a_click_on_a_point_selects_it_everywhere(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    point = front_of(REPORT)[-1]
    opened.page.mouse.click(*opened.position(point))
    assert_selected(opened, point)
    assert f"design={point.id}" in opened.page.url


def test_a_click_on_a_row_selects_it_everywhere(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    point = REPORT.front.points[5]
    opened.row(point.id).click()
    assert_selected(opened, point)


def test_the_keyboard_walks_the_front_and_the_rows(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    front = front_of(REPORT)
    opened.page.focus("#front-plot")
    for _ in front:
        opened.page.keyboard.press("ArrowLeft")
    assert_selected(opened, front[0])
    opened.page.keyboard.press("ArrowRight")
    assert_selected(opened, front[1])
    ids = opened.shown_ids()
    opened.row(ids[0]).locator("button").focus()
    opened.page.keyboard.press("ArrowDown")
    assert_selected(opened, next(point for point in REPORT.front.points if point.id == ids[1]))


def test_the_knee_and_the_finding_lead_to_their_designs(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    read = Report.from_json((opened.folder / "report.json").read_bytes())
    assert read.summary is not None
    points = {point.id: point for point in REPORT.front.points}
    assert read.summary.finding_id is not None
    assert_selected(opened, points[read.summary.finding_id])
    opened.page.locator("#knee button").click()
    assert read.summary.knee_id is not None
    assert_selected(opened, points[read.summary.knee_id])
    assert read.summary.knee_reason in opened.page.locator("#knee").inner_text()


def test_two_designs_are_compared(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    page, (first, second) = opened.page, front_of(REPORT)[:2]
    opened.row(first.id).click()
    page.click("#keep")
    assert page.locator("#compare-tables").is_hidden()
    opened.row(second.id).click()
    assert page.locator("#compare-words").inner_text() == f"{second.name} against {first.name}"
    rows = {
        row.locator("th").inner_text(): row.locator("td").all_inner_texts()
        for row in page.locator("#compare-points tbody tr").all()
    }
    size = rows["Size (KiB)"]
    assert [float(cell) for cell in size[:2]] == pytest.approx(
        [second.size_bytes / 1024, first.size_bytes / 1024], rel=5e-3
    )
    assert float(size[3]) == pytest.approx(second.size_bytes / first.size_bytes, rel=5e-3)
    assert size[4] == ("better" if second.size_bytes < first.size_bytes else "worse")
    assert [r.locator("th").inner_text() for r in page.locator("#compare-layers tbody tr").all()] == [
        "conv1",
        "conv2",
        "conv3",
        "fc",
    ]
    assert f"other={first.id}" in page.url
    again = open_report(fragment="#" + page.url.split("#")[1])
    assert again.page.locator("#compare-words").inner_text() == f"{second.name} against {first.name}"
    page.click("#swap")
    assert page.locator("#compare-words").inner_text() == f"{first.name} against {second.name}"
    page.click("#compare-int8")
    assert "against INT8" in page.locator("#compare-words").inner_text()


def test_a_click_on_a_line_of_all_quantities_selects_it(open_report: Callable[..., Opened]) -> None:
    opened = open_report(fragment="#design=fp32")
    canvas = opened.page.locator("#parallel-canvas")
    canvas.scroll_into_view_if_needed()
    names = opened.page.locator("#parallel-top strong").all_inner_texts()
    assert {"Validation accuracy (%)", "Measured latency (µs)", "Size (KiB)", "Bits per weight"} <= set(names)
    box = canvas.bounding_box()
    assert box
    best = max(REPORT.front.points, key=lambda p: (p.role == "design", p.metric_val))
    low, high = (f(p.metric_val for p in REPORT.front.points) for f in (min, max))
    part = (best.metric_val - low) / (high - low)
    opened.page.mouse.click(
        box["x"] + box["width"] * 0.5 / len(names), box["y"] + 12 + (1 - part) * (box["height"] - 24)
    )
    assert_selected(opened, best)


def test_a_budget_is_told_with_its_unit_and_what_is_left_of_it(open_report: Callable[..., Opened]) -> None:
    report = toy_report()
    points = report.front.points
    budgets = {points[0].id: (30.0, "us", 29.4), points[1].id: (2.0, "bits", 2.1)}
    names = ("budget", "budget_unit", "budget_used")
    with_budgets = tuple(p.model_copy(update=dict(zip(names, budgets.get(p.id, ()), strict=False))) for p in points)
    front = report.front.model_copy(update={"points": with_budgets})
    opened = open_report(report.model_copy(update={"front": front}))
    assert "98.0 %\nof 30.0 µs" in opened.row(points[0].id).inner_text()
    assert "105.0 %\nof 2.00 bits per weight" in opened.row(points[1].id).inner_text()
    opened.row(points[0].id).click()
    card = " ".join(opened.page.locator("#card").inner_text().split())
    assert "Budget 30.0 µs takes 29.4 µs, 2.0 % under" in card
    opened.row(points[1].id).click()
    assert "takes 2.10 bits per weight, 5.0 % over" in opened.page.locator("#card").inner_text()


def test_dark_follows_the_system_and_the_button(open_report: Callable[..., Opened]) -> None:
    opened = open_report(color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "document.getElementById('front-plot')._fullLayout.font.color"
    dark_paper, dark_ink = opened.page.evaluate(paper), opened.page.evaluate(ink)
    opened.page.click("#theme")
    assert opened.page.evaluate(paper) == "rgb(255, 255, 255)" != dark_paper
    assert opened.page.evaluate(ink) != dark_ink
    light = open_report(color_scheme="light")
    assert light.page.evaluate(paper) == "rgb(255, 255, 255)"


def test_nothing_offers_to_share_with_a_cloud(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    opened.page.hover("#front-plot")
    titles = [str(b.get_attribute("data-title")) for b in opened.page.locator("#front-plot .modebar-btn").all()]
    assert titles, "the figure's buttons are there"
    assert not [title for title in titles if "share" in title.lower() or "cloud" in title.lower()]
    assert opened.page.locator('a[href*="plotly"], a[href^="http"]').count() == 0


def test_strings_stay_strings(open_report: Callable[..., Opened]) -> None:
    report = toy_report(title=HOSTILE, names={0: HOSTILE}).model_copy(update={"command": HOSTILE, "notes": (HOSTILE,)})
    opened = open_report(report, fragment="#design=d0000")
    page = opened.page
    assert page.locator("#card-name").text_content() == HOSTILE
    assert HOSTILE in (page.locator("#samples dd.said").text_content() or "")
    assert page.locator("#design-name").text_content() == HOSTILE
    assert opened.row("d0000").locator("button").text_content() == HOSTILE
    page.mouse.move(*opened.position(report.front.points[0]))
    assert "<script>alert(1)</script>" in (page.locator("#front-plot .hoverlayer .hovertext").text_content() or "")
    assert page.locator("main script, main img, header script, header img").count() == 0


def test_two_thousand_designs(open_report: Callable[..., Opened]) -> None:
    opened = open_report(toy_report(2000, n_seeds=1))
    assert len(opened.shown_ids()) == 100
    opened.page.click("#more-rows")
    assert opened.page.locator("#designs tbody tr").count() == 2002
    opened.filter(filter_text="soniq-1999")
    assert opened.shown_ids() == ["d1999"]
