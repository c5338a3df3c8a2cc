"""A control: SONIQ's counts in every class, but on channels drawn at random."""

from __future__ import annotations

import numpy as np

from soniq_dse.qat.allocators import Base, Levels, Logits, Problem
from soniq_dse.qat.allocators.hardening import harden


class LayerMatchedRandom(Base):
    """Tells what the choice of channels is worth beyond the choice of counts: phase 1 as SONIQ's, then a shuffle."""

    learned = True

    def allocate(self, problem: Problem, logits: Logits | None) -> Levels:
        """See ``Base.allocate``. The shuffle depends on the seed and on each class's place."""
        if logits is None:
            raise ValueError("logits: expected those of phase 1, got None")
        learned = harden(problem, logits)
        shuffled = {}
        for index, size in enumerate(problem.classes):
            words = np.random.PCG64(np.random.SeedSequence([problem.seed, index])).random_raw(size.channels)
            order = np.argsort(words, kind="stable")
            shuffled[size.name] = tuple(learned[size.name][i] for i in order)
        return shuffled
