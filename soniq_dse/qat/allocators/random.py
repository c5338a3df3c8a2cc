"""The weakest control: channels drawn at random, over all classes alike."""

from __future__ import annotations

import numpy as np

from soniq_dse.qat.allocators import Base, Levels, Logits, Problem
from soniq_dse.qat.allocators.hardening import harden


class Random(Base):
    """Upgrades in random order. What a unit of cost is worth is drawn, so that a class's size gives it no advantage."""

    learned = False

    def allocate(self, problem: Problem, logits: Logits | None) -> Levels:
        """See ``Base.allocate``. The draw depends on the seed and on each class's place."""
        preference = {}
        for index, size in enumerate(problem.classes):
            words = np.random.PCG64(np.random.SeedSequence([problem.seed, index])).random_raw(size.channels)
            worth = words / 2.0**63 - 1  # of a unit of cost, -1..1
            preference[size.name] = worth[:, None] * np.asarray(problem.channel_costs(size))
        return harden(problem, preference)
