"""Predicted against measured latency."""

from __future__ import annotations

from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.front import Report, Summary
from soniq_dse.report.panels import Base

_FIGURES = Markup("""<p id="agreement-words">{}</p>
<div id="agreement-plot" class="plot square" role="group"
  aria-label="Predicted against measured latency of every measured design."></div>
<div id="regime-part"><h3>Error by what a layer waits for</h3>
<p class="help">Predicted over measured latency of every measured layer: the box spans the middle half, the line in it
  is the median. Above 1 the prediction is too slow. Click a dot to see its design.</p>
<div id="regime-plot" class="plot" role="group"
  aria-label="Predicted over measured latency of layers, by what they wait for."></div></div>
""")


class AgreementPanel(Base):
    """The cross-check: how far to trust a prediction."""

    title: ClassVar[str] = "Predicted against measured"
    help: ClassVar[str] = (
        "On the diagonal a prediction equals its measurement; the vertical bars are the predicted intervals. "
        "Both axes are logarithmic, so equal distances are equal ratios."
    )
    order: ClassVar[int] = 40
    fields: ClassVar[tuple[str, ...]] = ("front", "details", "summary")

    def fragment(self, report: Report) -> Markup:
        """One sentence, and the figure where something was measured."""
        summary = report.summary
        if summary is None or not summary.n_measured:
            words = "Nothing was measured, so no prediction could be checked."
            return Markup('<p class="empty-note" id="agreement-words">{}</p>').format(words)
        return _FIGURES.format(_sentence(summary))


def _sentence(summary: Summary) -> str:
    text = f"{summary.n_within_interval} of {summary.n_measured} measurements lie in their predicted interval"
    if summary.ratio_median is None or summary.ratio_worst is None:
        return f"{text}."
    median, worst = f"{summary.ratio_median:.2f}", f"{summary.ratio_worst:.2f}"
    return f"{text}; predicted over measured is {median} at the median and {worst} at worst."
