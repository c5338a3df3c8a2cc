"""Designs drawn at random, without replacement: what every other strategy has to beat."""

from __future__ import annotations

import random
from collections.abc import Sequence

from soniq_dse.records.design import Candidate
from soniq_dse.search import Base, Space


class Random(Base):
    """One shuffle of the space (Bergstra and Bengio, "Random search for hyper-parameter optimization", 2012)."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._order = list(self.space.candidates)
        random.Random(space.seed).shuffle(self._order)

    def propose(self) -> Sequence[Candidate]:
        """All that is left, in the order drawn."""
        return [candidate for candidate in self._order if self.is_new(candidate)]
