"""A control by experiment: the loss with one class rounded at one level, all else in floating point."""

from __future__ import annotations

import torch

from soniq_dse.qat.allocators import Base, Levels, Logits, Problem
from soniq_dse.qat.allocators.hardening import harden
from soniq_dse.qat.sensitivity import Probe

N_BATCHES = 4


class GreedySensitivity(Base):
    """What a level adds to the loss, tried out class by class and shared alike by the class's channels; then greedy
    upgrades by loss saved per bit."""

    learned = False
    measured = True

    def measure(self, probe: Probe) -> Logits:
        """See ``Base.measure``: a forward pass per class, level and batch."""
        batches = list(probe.batches(N_BATCHES))
        added = probe.nothing()

        def mean_loss() -> float:
            return sum(float(probe.loss(inputs, targets)) for inputs, targets in batches) / len(batches)

        with probe.passing(), torch.no_grad():
            reference = mean_loss()
            for name, of_class in added.items():
                for level in range(of_class.shape[1]):
                    with probe.rounded(name, level):
                        of_class[:, level] = (mean_loss() - reference) / len(of_class)
        return probe.logits(added)

    def allocate(self, problem: Problem, logits: Logits | None) -> Levels:
        """See ``Base.allocate``."""
        if logits is None:
            raise ValueError("logits: expected what measure saw, got None")
        return harden(problem, logits)
