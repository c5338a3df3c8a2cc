"""Every palette at every budget with every seed."""

from __future__ import annotations

from collections.abc import Iterator

from soniq_dse.records.design import Candidate
from soniq_dse.search import Base, Result, Space, budgets_of


class Exhaustive(Base):
    """Breadth first, so that a run that is stopped early has seen the whole range.

    The first seed of every design comes before the second of any; within a seed, the first budget of every palette in
    the order of the choices, then the second budgets, and so on.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._seen: set[str] = set()
        self._order = self._candidates()

    def ask(self) -> Candidate | None:
        """The next candidate that was neither given nor told of."""
        for candidate in self._order:
            if candidate.identity() not in self._seen:
                self._seen.add(candidate.identity())
                return candidate
        return None

    def tell(self, result: Result) -> None:
        """Remember that this candidate is done; its values decide nothing here."""
        self._seen.add(result.candidate.identity())

    def _candidates(self) -> Iterator[Candidate]:
        budgets = [budgets_of(choice) for choice in self.space.choices]
        for seed in self.space.seeds:
            for rank in range(max(map(len, budgets), default=0)):
                for choice, own in zip(self.space.choices, budgets, strict=True):
                    if rank < len(own):
                        changes = {"palette": choice.palette, "seed": seed, **own[rank]}
                        yield self.space.template.model_copy(update=changes)
