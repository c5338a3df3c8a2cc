"""SONIQ's allocator: the logits that phase 1 learned, hardened."""

from __future__ import annotations

from soniq_dse.qat.allocators import Base, Levels, Logits, Problem
from soniq_dse.qat.allocators.hardening import harden


class Soniq(Base):
    """Channels get the levels that temperature-annealed soft assignment gave them. Source: arXiv 2311.14114."""

    learned = True

    def allocate(self, problem: Problem, logits: Logits | None) -> Levels:
        """See ``Base.allocate``."""
        if logits is None:
            raise ValueError("logits: expected those of phase 1, got None")
        return harden(problem, logits)
