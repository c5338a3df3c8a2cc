"""All designs as a table: sort, search, take the rows away as CSV or JSON."""

from __future__ import annotations

from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.front import Report
from soniq_dse.report.panels import Base


class TablePanel(Base):
    """The table; its search dims the marks of the figure too."""

    title: ClassVar[str] = "All designs"
    help: ClassVar[str] = (
        "The designs that meet the limits set above. The validation split chose the designs; "
        "the test split was looked at once. Bits per weight is the average over the quantised weights; the ratio is "
        "predicted over measured latency."
    )
    order: ClassVar[int] = 20
    fields: ClassVar[tuple[str, ...]] = ("front", "details")

    def fragment(self, report: Report) -> Markup:
        """Search, downloads and an empty table; the script fills it."""
        return Markup("""
<div class="controls">
  <label class="wide">Search
    <input type="search" id="filter-text" placeholder="name, palette" autocomplete="off"></label>
</div>
<div class="table-head">
  <p id="row-count" class="help" aria-live="polite"></p>
  <p class="actions"><button type="button" class="quiet" id="download-csv">Download CSV</button>
  <button type="button" class="quiet" id="download-json">Download JSON</button></p>
</div>
<div class="scroll" tabindex="0" role="region" aria-label="Table of designs">
  <table id="designs"><thead></thead><tbody></tbody></table>
</div>
<p><button type="button" class="quiet" id="more-rows" hidden></button></p>
<div id="reproduce" class="reproduce"></div>
""")
