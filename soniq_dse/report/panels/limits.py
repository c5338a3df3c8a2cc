"""What a design must meet: sliders for latency, metric and size."""

from __future__ import annotations

from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.front import Report
from soniq_dse.report.panels import Base


class LimitsPanel(Base):
    """The limits; every other panel keeps to them."""

    title: ClassVar[str] = "What it must meet"
    help: ClassVar[str] = (
        "Move a slider or type a number: every figure and table below keeps to the limits. Latency is that of the "
        "figure's axis, the metric too. Ranges that you draw over axes further down appear here."
    )
    order: ClassVar[int] = 5
    fields: ClassVar[tuple[str, ...]] = ("front",)

    def fragment(self, report: Report) -> Markup:
        """A slider and a number for each limit; the script fills them."""
        return Markup("""
<div class="limits" id="limits"></div>
<div id="brushes" class="legend" role="group" aria-label="Ranges drawn over axes: press to lift"></div>
<div class="table-head"><p id="limits-words" class="help" aria-live="polite"></p>
  <button type="button" class="quiet" id="clear-filter">Clear all limits</button></div>
""")
