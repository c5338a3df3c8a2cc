"""A report in a real browser (Debian's chromium), offline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opened_page import Opened
from playwright.sync_api import Browser, sync_playwright
from report_factory import toy_report

from soniq_dse.records.front import Report
from soniq_dse.report.build import build_report

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
REPORT = toy_report()


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
