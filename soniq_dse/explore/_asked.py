"""What single options mean."""

from __future__ import annotations

from collections.abc import Sequence

from soniq_dse import registry
from soniq_dse.records.design import Candidate
from soniq_dse.search import epochs_of

SEARCH_SHARE = 0.1
"""Of the epochs of all designs: the budget of a search that was given none."""


def known(kind: str, name: str) -> str:
    """``name``, if there is such a unit.

    Raises:
        UserError: there is none.
    """
    registry.load(kind, name)
    return name


def search_budget(search: str, epochs: int | None, designs: Sequence[Candidate]) -> int | None:
    """Epochs that a search may spend: those asked for, else a tenth of all, one design's at least; None: any number."""
    if epochs is not None or search == "exhaustive":
        return epochs
    all_epochs = [epochs_of(candidate) for candidate in designs]
    return max(round(SEARCH_SHARE * sum(all_epochs)), *all_epochs[:1], 1)
