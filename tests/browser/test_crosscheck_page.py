"""The crosscheck page in a real browser, offline: no complaint, both figures drawn, nothing asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from soniq_dse.crosscheck._scores import goals_of, summarise
from soniq_dse.hardware.host import detect_host
from soniq_dse.records.crosscheck import Crosscheck, CrosscheckRow
from soniq_dse.report.crosscheck import build_crosscheck

pytestmark = pytest.mark.slow
HOSTILE = "<script>alert(1)</script>&"


def record() -> Crosscheck:
    rows = tuple(
        CrosscheckRow(
            name=f"{HOSTILE} {i}", kind="network" if i == 5 else "layer", group="g", levels="w1a1", threads=1,
            macs=1000, bound=bound, predicted_us=10.0 * (i + 1), low_us=9.0 * (i + 1),
            high_us=11.0 * (i + 1), interval="test",
            measured_us=10.5 * (i + 1), mad_us=0.1, samples=5, settled=True, error_percent=-4.8, within=True,
            reason=HOSTILE,
        )
        for i, bound in enumerate(("port", "issue", "l2", "dram", "overhead", "port"))
    )  # fmt: skip
    summary = summarise(rows)
    return Crosscheck(
        command="soniq-dse crosscheck", hardware="toy", hardware_title="Toy", hardware_sha256="0" * 64,
        matches_host=True, not_measured=None, host=detect_host(), compiler="g++ 12",
        predicted_at="2026-01-31T12:00:00+00:00",
        predictions_sha256="1" * 64, measured_at="2026-01-31T12:01:00+00:00", summary=summary,
        goals=goals_of(summary), rows=rows,
    )  # fmt: skip


def test_it_opens_without_request_or_complaint(tmp_path: Path, need_program: Callable[[str, str], str]) -> None:
    page_file = build_crosscheck(record(), tmp_path)
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=need_program("chromium", "chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_context(offline=True).new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if "file://" not in request.url else None)
        page.goto(page_file.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        assert page.locator("#agreement-plot .scatterlayer .trace").count() == 5  # the line, three regimes, the network
        assert page.locator("#regimes-plot .boxlayer .trace").count() == 4
        assert HOSTILE in (page.locator("tbody").last.text_content() or "")
        browser.close()
    assert complaints == []
