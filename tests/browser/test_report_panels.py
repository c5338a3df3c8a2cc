"""The panels below the front, each in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from opened_page import HOSTILE, Opened
from report_factory import toy_report

from soniq_dse.report.overlay import overlay

pytestmark = pytest.mark.slow
REPORT = toy_report()


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
