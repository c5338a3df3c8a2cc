"""Two designs side by side."""

from __future__ import annotations

from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.front import Report
from soniq_dse.report.panels import Base


class ComparePanel(Base):
    """The selected design against one that was kept, or a reference."""

    title: ClassVar[str] = "Two designs compared"
    help: ClassVar[str] = (
        "The selected design beside another: keep one with the button on its card, then select a second. The square in "
        "the figure is the kept one. A ratio is the selected design's value over the other's."
    )
    order: ClassVar[int] = 35
    fields: ClassVar[tuple[str, ...]] = ("front", "details", "summary", "workload")

    def fragment(self, report: Report) -> Markup:
        """Buttons and two tables; the script fills them."""
        return Markup("""
<div class="actions" id="compare-with" role="group" aria-label="What to compare with"></div>
<p id="compare-words" class="help"></p>
<div id="compare-tables">
<div class="scroll" tabindex="0" role="region" aria-label="Quantities of both designs">
  <table id="compare-points"></table></div>
<h3>Layer by layer</h3>
<div class="scroll" tabindex="0" role="region" aria-label="Layers of both designs">
  <table id="compare-layers"></table></div>
</div>
""")
