"""The report page of 2,000 designs: its size, and how long a browser takes to open it."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._frame import ROOT, Goal, Result, main
from soniq_dse.records.front import Report
from soniq_dse.report.build import build_report

N_DESIGNS = 2000
SAMPLE = ROOT / "reports" / "sample" / "report.json"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SIZES = {"desktop": (1400, 900), "phone": (390, 844)}


def many_designs(n: int) -> Report:
    """The kept sample with its designs again and again, each copy a little apart from the one before."""
    report = Report.from_json(SAMPLE.read_bytes())
    details = {detail.id: detail for detail in report.details}
    designs = [point for point in report.front.points if point.role == "design"]
    points, found = [point for point in report.front.points if point.role != "design"], []
    found += [details[point.id] for point in points]
    for i in range(n):
        point, factor = designs[i % len(designs)], 1 + (i * 0.61803) % 1
        scaled = {
            key: getattr(point, key) and getattr(point, key) * factor
            for key in ("latency_predicted_us", "latency_low_us", "latency_high_us", "latency_measured_us")
        }
        changed = {**scaled, "id": f"{i:012x}", "name": f"{point.name}-{i}", "metric_val": point.metric_val / factor}
        points.append(point.model_copy(update={**changed, "dominated": i >= len(designs)}))
        found.append(details[point.id].model_copy(update={"id": f"{i:012x}"}))
    front = report.front.model_copy(update={"points": tuple(points)})
    return report.model_copy(update={"front": front, "details": tuple(found)})


def opening_s(page: Path, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """(seconds until numbers and the front are drawn and answer, until every figure is) by size of the window; nothing
    without playwright or chromium. Each in a profile of its own, after one warm-up."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    if chromium is None:
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name, (width, height) in SIZES.items():
            times = [_open(browser, page, width, height) for _ in range(repeats + 1)]
            found[name] = times[1:]
        browser.close()
    return found


def _open(browser: Any, page: Path, width: int, height: int) -> tuple[float, float]:
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    tab = context.new_page()
    tab.set_default_timeout(120_000)  # a slow page is a result
    start = time.perf_counter()
    tab.goto(page.as_uri(), wait_until="commit")
    tab.wait_for_selector("html[data-ready]", state="attached")
    ready = time.perf_counter() - start
    tab.wait_for_selector("html[data-complete]", state="attached")
    whole = time.perf_counter() - start
    context.close()
    return ready, whole


def measure(quick: bool) -> Result:
    """Build the page once, open it several times."""
    with tempfile.TemporaryDirectory() as folder:
        page = build_report(many_designs(N_DESIGNS), Path(folder))
        size_mb = page.stat().st_size / 1e6
        times = opening_s(page, 3 if quick else 5)
    rows: list[dict[str, Any]] = []
    for name, pairs in times.items():
        ready, whole = ([pair[i] for pair in pairs] for i in (0, 1))
        median = statistics.median(ready)
        mad = statistics.median(abs(one - median) for one in ready)
        rows.append({"window": name, "front_drawn_s": median, "mad_s": mad,
                     "all_drawn_s": statistics.median(whole), "opened": len(pairs)})  # fmt: skip
    slowest = max((row["front_drawn_s"] for row in rows), default=None)
    goals = [
        Goal("P1", f"page of {N_DESIGNS} designs, until the front is drawn and answers", "s", slowest, at_most=2.0),
        Goal("P2", f"page of {N_DESIGNS} designs, its size", "MB", size_mb, at_most=8.0),
    ]
    return Result(goals, rows, () if rows else ("Not opened: needs playwright and chromium.",))


if __name__ == "__main__":
    main("report", "The report page", measure)
