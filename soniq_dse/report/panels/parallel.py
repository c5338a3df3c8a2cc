"""Every quantity of every design at once: parallel coordinates."""

from __future__ import annotations

from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.front import Report
from soniq_dse.report.panels import Base


class ParallelPanel(Base):
    """One line a design, one axis a quantity."""

    title: ClassVar[str] = "All quantities at once"
    help: ClassVar[str] = (
        "One line is one design; on every axis up is better. Latency, size and energy are logarithmic. Designs beyond "
        "the limits are faint; click a line to select its design. Drag along an axis to keep to a part of it."
    )
    order: ClassVar[int] = 15
    fields: ClassVar[tuple[str, ...]] = ("front",)

    def fragment(self, report: Report) -> Markup:
        """Axis labels and a canvas; the script fills them. The table holds the same numbers."""
        return Markup("""
<div id="parallel-top" class="parallel-labels"></div>
<canvas id="parallel-canvas" role="img"
  aria-label="Parallel coordinates of the designs; the table below holds the same numbers."></canvas>
<div id="parallel-bottom" class="parallel-labels"></div>
<p id="parallel-words" class="help"></p>
""")
