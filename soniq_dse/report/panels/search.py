"""How the front came about: hypervolume over the epochs spent."""

from __future__ import annotations

from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.front import Report
from soniq_dse.report.panels import Base


class SearchPanel(Base):
    """What each training brought."""

    title: ClassVar[str] = "How the front grew"
    help: ClassVar[str] = (
        "Hypervolume is the area between the front and the worst accuracy and latency of the run: it grows where a "
        "design adds something. A mark is a design, after its last training; epochs count what the search trained, cut "
        "short or not, but no FP32 start."
    )
    order: ClassVar[int] = 50
    fields: ClassVar[tuple[str, ...]] = ("front", "search")

    def fragment(self, report: Report) -> Markup:
        """The figure, and in words when the front stopped growing."""
        steps = report.search
        if not steps:
            return Markup('<p class="empty-note">{}</p>').format("There are too few designs for a front.")
        last = next(step for step in steps if step.hypervolume == steps[-1].hypervolume)
        names = {point.id: point.name for point in report.front.points}
        return Markup(
            '<p id="search-words">{}</p>\n<div id="search-plot" class="plot" role="group" '
            'aria-label="Hypervolume over the epochs spent."></div>'
        ).format(
            f"The last design that moved the front was {names.get(last.id, last.id)}, after {last.epochs:,} of "
            f"{steps[-1].epochs:,} epochs."
        )
