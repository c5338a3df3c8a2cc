"""The same shares of levels in every class: what a palette gives without learning where its bits belong."""

from __future__ import annotations

import numpy as np

from soniq_dse.qat.allocators import Base, Levels, Logits, Problem
from soniq_dse.qat.allocators.hardening import harden


class Uniform(Base):
    """Every class is filled alike, from its first channel on: a class that is emptier is always served first.

    Narrow levels are used up before wide ones, so that a budget between two levels mixes those two.
    """

    learned = False

    def allocate(self, problem: Problem, logits: Logits | None) -> Levels:
        """See ``Base.allocate``."""
        n_levels = len(problem.palette.levels)
        preference = {}
        for size in problem.classes:
            filled = np.arange(size.channels) / size.channels
            costs = problem.channel_costs(size)
            gains = [(costs[j + 1] - costs[j]) * -(j + filled) for j in range(n_levels - 1)]
            preference[size.name] = np.cumsum([np.zeros(size.channels), *gains], axis=0).T
        if problem.limit is None:
            return {size.name: (n_levels - 1,) * size.channels for size in problem.classes}
        return harden(problem, preference)
