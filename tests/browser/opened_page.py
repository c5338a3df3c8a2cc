"""What the tests of the report page share: the page as opened, its front, what selecting a design changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from playwright.sync_api import Locator, Page

from soniq_dse.records.front import DesignPoint, Report

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u2028&amp;'\""


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
