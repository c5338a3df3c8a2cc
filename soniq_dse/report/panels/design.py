"""The selected design from the inside: bits per channel, where its time goes, how it was trained."""

from __future__ import annotations

from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.front import Report
from soniq_dse.report.panels import Base


class DesignPanel(Base):
    """Bit map, latency per layer, training curves, confusion, samples of text."""

    title: ClassVar[str] = "Inside the design"
    help: ClassVar[str] = "What the selected design gives to every layer, and where its time goes."
    order: ClassVar[int] = 30
    fields: ClassVar[tuple[str, ...]] = ("front", "details", "workload")

    def fragment(self, report: Report) -> Markup:
        """The parts; the script fills them."""
        return Markup("""
<div class="design-head"><h3 id="design-name"></h3>
  <label id="seed-choice" hidden>Seed <select id="seed"></select></label></div>
<dl id="design-facts" class="wide-list"></dl>
<div id="interval"></div>
<h4>Bits of every channel</h4>
<p class="help">One row is a layer, one cell an input channel; the colour says how many bits its weights take.
  Pinned layers keep their precision in every design.</p>
<div id="bit-map"></div>
<h4>Latency by layer</h4>
<p class="help">Predicted time per layer, split into what it is spent on; the bound names what the layer waits for most.
  Padding is the part of the multiply-accumulates spent on filling vectors up.</p>
<div id="bound-legend" class="legend"></div>
<div class="scroll" tabindex="0" role="region" aria-label="Latency by layer"><table id="layers"></table></div>
<p id="layer-note" class="help"></p>
<div id="training-part">
<h4>Training</h4>
<p class="help">Loss per epoch (solid) and validation score (dots). SONIQ first trains with noise to find the bits,
  then fine-tunes with the bits fixed.</p>
<div id="training-plot" class="plot"></div>
</div>
<div id="confusion-part">
<h4>What it takes for what</h4>
<p class="help">Test examples of the first seed: a row is the true class, a column what the integer network says.
  Figures off the diagonal are mistakes.</p>
<p id="confusion-words"></p>
<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table id="confusion"></table></div>
</div>
<div id="samples-part">
<h4>What it says</h4>
<p class="help">Test examples, evenly spread and not chosen: what the integer network of the first seed makes of them,
  by its likeliest token each time.</p>
<div id="samples"></div>
</div>
""")
