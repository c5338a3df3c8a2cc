"""The report in a real browser (Debian's chromium), offline."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from report_factory import toy_report

from soniq_dse.records.front import DesignPoint, Report
from soniq_dse.report.build import build_report
from soniq_dse.report.overlay import overlay

pytestmark = pytest.mark.slow

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u2028&amp;'\""
REPORT = toy_report()


@dataclasses.dataclass
class Opened:
    """A page, and whatever it asked for or complained about."""

    page: Page
    folder: Path
    report: Report
    complaints: list[str]

    def row(self, identity: str) -> Locator:
        return self.page.locator(f'#designs tr[data-id="{identity}"]')

    def shown_ids(self) -> list[str]:
        return list(
            self.page.evaluate("Array.from(document.querySelectorAll('#designs tbody tr'), (tr) => tr.dataset.id)")
        )

    def filter(self, **fields: str) -> None:
        """Type into the filter fields and wait until the table has followed."""
        for identity, text in fields.items():
            self.page.fill(f"#{identity.replace('_', '-')}", text)
            self.page.wait_for_timeout(800)

    def position(self, point: DesignPoint) -> tuple[float, float]:
        """Where a point of the figure lies in the window, in pixels."""
        script = """([x, y]) => {
          const div = document.getElementById("front-plot"), full = div._fullLayout;
          div.scrollIntoView({ block: "center", behavior: "instant" });
          const box = div.getBoundingClientRect();
          return [box.left + full.xaxis._offset + full.xaxis.d2p(x), box.top + full.yaxis._offset + full.yaxis.d2p(y)];
        }"""
        x, y = self.page.evaluate(script, [point.latency_measured_us, point.metric_val])
        return float(x), float(y)


@pytest.fixture(scope="module")
def browser(need_program: Callable[[str, str], str]) -> Iterator[Browser]:
    chromium = need_program("chromium", "chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """``open_report(report, hash="", **context)``; a request or a complaint of the page fails the test at its end."""
    opened: list[Opened] = []
    contexts = []

    def open_one(report: Report = REPORT, fragment: str = "", **context: Any) -> Opened:
        path = build_report(report, tmp_path / str(len(opened)))
        options = {"viewport": {"width": 1280, "height": 900}, **context}
        made = browser.new_context(offline=True, **options)
        contexts.append(made)
        page = made.new_page()
        found = Opened(page, path.parent, report, [])
        page.on(
            "request",
            lambda r: (
                r.url.startswith(path.as_uri())
                or r.url.startswith(("data:", "blob:"))
                or found.complaints.append(r.url)
            ),
        )
        page.on("console", lambda m: m.type in ("error", "warning") and found.complaints.append(m.text))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (found.complaints.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri() + fragment)
        page.wait_for_selector("html[data-ready]")
        opened.append(found)
        return found

    yield open_one
    for found in opened:
        assert found.complaints == []
    for made in contexts:
        made.close()


def front_of(report: Report) -> list[DesignPoint]:
    """The designs on the line of the figure, fastest first."""
    designs = [point for point in report.front.points if point.role == "design" and not point.dominated]
    return sorted(designs, key=lambda point: point.latency_measured_us or 0.0)


def assert_selected(opened: Opened, point: DesignPoint) -> None:
    """Every panel shows ``point``."""
    page = opened.page
    assert page.locator("#card-name").inner_text() == point.name
    assert page.locator("#design-name").inner_text() == point.name
    assert opened.row(point.id).get_attribute("aria-current") == "true"
    assert page.locator("#designs tr[aria-current]").count() == 1
    detail = next(detail for detail in opened.report.details if detail.id == point.id)
    assert page.locator("#reproduce code").inner_text() == detail.command
    ring = page.evaluate(
        "(() => { const t = document.getElementById('front-plot').data.at(-1); return [t.x[0], t.y[0]]; })()"
    )
    assert ring == [point.latency_measured_us, point.metric_val]


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


def test_the_inside_of_a_design(open_report: Callable[..., Opened]) -> None:
    point, detail = REPORT.front.points[6], REPORT.details[6]
    opened = open_report(fragment=f"#design={point.id}")
    page = opened.page
    assert [row.inner_text() for row in page.locator(".map-name").all()] == ["conv1", "conv2", "conv3", "fc"]
    levels = detail.assignments[0].level_of_channel["body2"]
    words = ", ".join(
        f"{levels.count(i)} × {level.name}"
        for i, level in enumerate(detail.assignments[0].palette.levels)
        if i in levels
    )
    assert page.locator(".map-words").nth(2).inner_text() == words
    page.select_option("#seed", "2")
    levels = detail.assignments[2].level_of_channel["body2"]
    assert page.locator(".map-words").nth(2).inner_text().startswith(f"{levels.count(0)} × ")
    assert detail.estimate is not None
    assert detail.measurement is not None
    cells = page.locator("#layers tbody tr").nth(1).locator("td, th").all_inner_texts()
    layer = detail.estimate.per_layer[1]
    assert cells[0].startswith(layer.name)
    assert float(cells[2]) == pytest.approx(layer.latency_us, rel=5e-3)
    assert float(cells[3]) == pytest.approx(detail.measurement.per_layer_us[layer.name], rel=5e-3)
    assert layer.bound in cells[5]
    page.locator("#training-plot").scroll_into_view_if_needed()
    page.wait_for_selector("#training-plot .scatterlayer .trace")
    losses = page.evaluate("document.getElementById('training-plot').data[0].y")
    assert losses == [epoch.loss for epoch in detail.epochs[:12]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_no_serious_barrier(open_report: Callable[..., Opened], scheme: str, width: int) -> None:
    """axe-core's rules; 'serious' and 'critical' are its two worst grades."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python").Axe()
    opened = open_report(fragment="#other=int8", color_scheme=scheme, viewport={"width": width, "height": 900})
    opened.page.wait_for_selector("html[data-complete]")
    response = axe.run(opened.page).response
    assert len(response["passes"]) > 20, "the rules were run"
    found = response["violations"]
    bad = [
        (v["id"], v["help"], [node["html"][:200] for node in v["nodes"]][:3])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert bad == []


def test_every_layer_is_in_the_error_by_regime(open_report: Callable[..., Opened]) -> None:
    page = open_report().page
    page.wait_for_selector("html[data-complete]")
    found = page.evaluate("document.getElementById('regime-plot').data.map((t) => [t.name, t.y])")
    expected: dict[str, list[float]] = {}
    for detail in REPORT.details:
        assert detail.estimate is not None
        assert detail.measurement is not None
        for layer in detail.estimate.per_layer:
            ratio = layer.latency_us / detail.measurement.per_layer_us[layer.name]
            expected.setdefault(layer.bound, []).append(ratio)
    assert {name: sorted(y) for name, y in found} == {
        f"{bound} ({len(ratios)})": sorted(ratios) for bound, ratios in expected.items()
    }


def test_the_layers_farthest_off(open_report: Callable[..., Opened]) -> None:
    page = open_report(fragment="#design=int8").page
    apart = {
        (detail.id, layer.name): layer.latency_us - detail.measurement.per_layer_us[layer.name]
        for detail in REPORT.details
        if detail.estimate and detail.measurement and detail.assignments
        for layer in detail.estimate.per_layer
    }
    worst = sorted(apart, key=lambda key: -abs(apart[key]))
    rows = page.locator("#worst tbody tr")
    shown = [
        (row.locator("button").get_attribute("data-design"), row.locator("td").first.inner_text()) for row in rows.all()
    ]
    assert shown == worst[:8]
    rows.first.locator("button").click()
    names = {point.id: point.name for point in REPORT.front.points}
    assert page.locator("#card-name").inner_text() == names[worst[0][0]]
    page.locator("#worst-part summary").first.click()
    assert page.locator("#worst-part .lane i").count() == 4


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


def test_the_front_over_the_epochs_spent(open_report: Callable[..., Opened]) -> None:
    opened = open_report()
    page = opened.page
    page.wait_for_selector("html[data-complete]")
    trace = page.evaluate("(({ x, y }) => ({ x, y }))(document.getElementById('search-plot').data[0])")
    assert trace["x"] == [step.epochs for step in REPORT.search]
    assert trace["y"] == [step.hypervolume for step in REPORT.search]
    opened.row(REPORT.search[2].id).click()
    assert page.evaluate("document.getElementById('search-plot').data.at(-1).x[0]") == REPORT.search[2].epochs


def test_the_machine_with_the_source_of_each_figure(open_report: Callable[..., Opened]) -> None:
    page = open_report().page
    machine = REPORT.machine
    assert machine is not None
    rows = [row.locator("td").all_inner_texts() for row in page.locator("#hardware-panel details[open] tbody tr").all()]
    clock = next(row for row in rows if row[0] == "clock_ghz")
    assert float(clock[1]) == pytest.approx(machine.clock_ghz.value, rel=1e-5)
    assert clock[3:5] == [machine.clock_ghz.kind, machine.clock_ghz.source]
    summaries = page.locator("#hardware-panel summary").all_inner_texts()
    assert any(text.startswith("Instructions (") for text in summaries)
    assert any(text.startswith(f"Sources ({len(machine.sources)})") for text in summaries)


def test_what_a_figure_of_the_machine_is_worth(open_report: Callable[..., Opened]) -> None:
    opened = open_report(fragment="#design=d0003&other=int8")
    question = REPORT.what_if[0]
    rows = opened.page.locator("#what-if tbody tr")
    for column, identity in ((0, "d0003"), (1, "int8")):
        point = next(p for p in REPORT.front.points if p.id == identity)
        ratio, us = question.latency_ratio[identity], point.latency_predicted_us
        text = rows.nth(0).locator("td").nth(column).inner_text()
        assert text.startswith(f"−{100 * (1 - ratio):.1f} %")
        assert us is not None
        assert float(text.split()[-2]) == pytest.approx(us * ratio, rel=5e-3)
    assert rows.nth(1).locator("td").all_inner_texts() == ["–", "–", "–"]
    rows.nth(0).locator("button").click()
    assert opened.page.locator("#card-name").inner_text() == REPORT.front.points[0].name


def test_what_it_takes_for_what(open_report: Callable[..., Opened]) -> None:
    detail = REPORT.details[3]
    opened = open_report(fragment=f"#design={detail.id}")
    assert detail.confusion is not None
    wrong = sum(n for i, row in enumerate(detail.confusion) for j, n in enumerate(row) if i != j)
    total = sum(map(sum, detail.confusion))
    assert opened.page.locator("#confusion-words").inner_text().startswith(f"{wrong} of {total} examples")
    cells = [row.locator("td").all_inner_texts() for row in opened.page.locator("#confusion tbody tr").all()]
    assert [[int(cell.replace("·", "0")) for cell in row] for row in cells] == [list(row) for row in detail.confusion]
    (sample,) = detail.samples
    assert opened.page.locator("#samples dd").all_inner_texts() == [sample.source, sample.reference, sample.output]
    opened.row("fp32").click()
    assert opened.page.locator("#confusion-part").is_hidden()
    assert opened.page.locator("#samples-part").is_hidden()


def test_machines_lie_over_one_another(open_report: Callable[..., Opened]) -> None:
    other = toy_report(9).model_copy(update={"hardware": HOSTILE, "hardware_title": HOSTILE})
    opened = open_report(overlay(REPORT, [other]))
    page, n, n_other = opened.page, len(REPORT.front.points), len(other.front.points)
    assert len(opened.shown_ids()) == n + n_other
    symbols = page.evaluate(
        "document.getElementById('front-plot').data.filter((t) => t.customdata).flatMap((t) => "
        "t.customdata.map((id, i) => [id.includes('/'), [].concat(t.marker.symbol)[i] ?? t.marker.symbol]))"
    )
    assert len(symbols) == n + n_other
    assert all(symbol.endswith("-open") == elsewhere for elsewhere, symbol in symbols)
    point = other.front.points[2]
    opened.row(f"{HOSTILE}/{point.id}".replace('"', '\\"')).click()
    assert page.locator("#card-name").inner_text() == point.name
    assert HOSTILE in (page.locator("#card dl").text_content() or "")
    page.click("#compare-int8")
    assert page.locator("#compare-words").text_content() == f"{point.name} on {HOSTILE} against INT8 on toy"
    page.locator("#legend button", has_text="open marks").click()
    assert len(opened.shown_ids()) == n
    assert not any("/" in identity for identity in opened.shown_ids())


def test_two_thousand_designs(open_report: Callable[..., Opened]) -> None:
    opened = open_report(toy_report(2000, n_seeds=1))
    assert len(opened.shown_ids()) == 100
    opened.page.click("#more-rows")
    assert opened.page.locator("#designs tbody tr").count() == 2002
    opened.filter(filter_text="soniq-1999")
    assert opened.shown_ids() == ["d1999"]
