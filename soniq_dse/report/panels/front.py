"""Accuracy against latency, with the front, the references, and a card of the selected design."""

from __future__ import annotations

from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.front import Report
from soniq_dse.report.panels import Base


class FrontPanel(Base):
    """The main figure."""

    title: ClassVar[str] = "Accuracy against latency"
    help: ClassVar[str] = (
        "One mark is one trained design; its palette (the precisions it may mix: w2a4 is 2-bit weights with 4-bit "
        "activations) sets colour and shape. The line is the front: no other design is both faster and better. "
        "Click a mark to see the design everywhere on this page; Box Select (a button of the figure) keeps to those "
        "in a box."
    )
    order: ClassVar[int] = 10
    fields: ClassVar[tuple[str, ...]] = ("front", "details", "summary", "workload")

    def fragment(self, report: Report) -> Markup:
        """Controls, figure, legend and card; the script fills them."""
        return Markup("""
<div class="controls">
  <label>Horizontal axis <select id="axis-x"></select></label>
  <label>Vertical axis <select id="axis-y"></select></label>
  <label class="check"><input type="checkbox" id="show-dominated"> Dominated designs</label>
  <label class="check"><input type="checkbox" id="show-bars"> Uncertainty</label>
  <label class="check"><input type="checkbox" id="log-x"> Log scale</label>
</div>
<div class="front-grid">
  <div>
    <div id="front-plot" class="plot tall" role="group" tabindex="0"
      aria-label="Figure of all designs. Left and right arrow keys walk along the front."></div>
    <div id="legend" class="legend" role="group" aria-label="Palettes: press to show or hide"></div>
    <p id="knee" class="help"></p>
  </div>
  <aside id="card" class="card" aria-label="Selected design"></aside>
</div>
""")
