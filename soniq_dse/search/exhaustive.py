"""Every design of the space with every seed."""

from __future__ import annotations

from collections.abc import Sequence

from soniq_dse.records.design import Candidate
from soniq_dse.search import Base


class Exhaustive(Base):
    """All at once, in the order of the space."""

    repeats = False

    def propose(self) -> Sequence[Candidate]:
        """All that is left."""
        return [candidate for candidate in self.space.candidates if self.is_new(candidate)]
