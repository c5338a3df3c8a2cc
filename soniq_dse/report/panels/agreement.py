"""Predicted against measured latency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.cost import BOUND_WORDS, LayerEstimate
from soniq_dse.records.front import Report, Summary
from soniq_dse.report.panels import Base
from soniq_dse.report.timelines import timelines_html

_FIGURES = Markup("""<p id="agreement-words">{}</p>
<div id="agreement-plot" class="plot square" role="group"
  aria-label="Predicted against measured latency of every measured design."></div>
<div id="regime-part"><h3>Error by what a layer waits for</h3>
<p class="help">Predicted over measured latency of every measured layer: the box spans the middle half, the line in it
  is the median. Above 1 the prediction is too slow. Click a dot to see its design.</p>
<div id="regime-plot" class="plot" role="group"
  aria-label="Predicted over measured latency of layers, by what they wait for."></div></div>
<div id="worst-part">{}</div>
""")


_WORST = Markup("""<h3>The layers farthest off</h3>
<p class="help">In microseconds, whether predicted too slow (+) or too fast (-). Below, the loops of their kernels as
  the model of the core sees them: where an instruction waits, and for what.</p>
<div class="scroll" tabindex="0" role="region" aria-label="The layers farthest off"><table id="worst">
<thead><tr><th scope="col">Design</th><th scope="col">Layer</th><th scope="col" class="number">Predicted (µs)</th>
<th scope="col" class="number">Measured (µs)</th><th scope="col" class="number">Difference (µs)</th>
<th scope="col">Waits for</th><th scope="col">Kernel</th></tr></thead><tbody>{}</tbody></table></div>
{}""")
WORST = 8


class AgreementPanel(Base):
    """The cross-check: how far to trust a prediction."""

    title: ClassVar[str] = "Predicted against measured"
    help: ClassVar[str] = (
        "On the diagonal a prediction equals its measurement; the vertical bars are the predicted intervals. "
        "Both axes are logarithmic, so equal distances are equal ratios."
    )
    order: ClassVar[int] = 40
    fields: ClassVar[tuple[str, ...]] = ("front", "details", "summary", "timelines")

    def fragment(self, report: Report) -> Markup:
        """One sentence, and the figure where something was measured."""
        summary = report.summary
        if summary is None or not summary.n_measured:
            words = "Nothing was measured, so no prediction could be checked."
            return Markup('<p class="empty-note" id="agreement-words">{}</p>').format(words)
        return _FIGURES.format(_sentence(summary), _worst(report))


def _worst(report: Report) -> Markup:
    """The layers farthest off, and what the model says of their kernels' loops."""
    names = {point.id: point.name for point in report.front.points}
    found = sorted(_layers(report), key=lambda one: -abs(one[1].latency_us - one[2]))[:WORST]
    if not found:
        return Markup("")
    rows = Markup("\n").join(
        Markup(
            '<tr><th scope="row"><button type="button" class="link" data-design="{}">{}</button></th><td>{}</td>'
            '<td class="number">{:.3g}</td><td class="number">{:.3g}</td><td class="number">{:+.3g}</td><td>{}</td>'
            '<td class="kernels">{}</td></tr>'
        ).format(
            identity,
            names[identity],
            layer.name,
            layer.latency_us,
            measured_us,
            layer.latency_us - measured_us,
            BOUND_WORDS[layer.bound],
            ", ".join(layer.kernels) or layer.note,
        )
        for identity, layer, measured_us in found
    )
    return _WORST.format(rows, timelines_html(report.timelines))


def _layers(report: Report) -> Iterator[tuple[str, LayerEstimate, float]]:
    """(design, layer, measured microseconds) of every measured layer of integers."""
    for detail in report.details:
        measured = detail.measurement.per_layer_us if detail.measurement else {}
        for layer in detail.estimate.per_layer if detail.estimate else ():
            if layer.name in measured and detail.assignments:
                yield detail.id, layer, measured[layer.name]


def _sentence(summary: Summary) -> str:
    text = f"{summary.n_within_interval} of {summary.n_measured} measurements lie in their predicted interval"
    if summary.ratio_median is None or summary.ratio_worst is None:
        return f"{text}."
    median, worst = f"{summary.ratio_median:.2f}", f"{summary.ratio_worst:.2f}"
    return f"{text}; predicted over measured is {median} at the median and {worst} at worst."
