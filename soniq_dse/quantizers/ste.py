"""Rounding with the straight-through gradient; the step is a constant."""

from __future__ import annotations

from torch import Tensor

from soniq_dse.quantizers import Base, TensorGrid
from soniq_dse.quantizers.lsq import LearnedStep


class StraightThrough(Base):
    """The gradient passes between the lowest and the top code, and is clipped to zero beyond them.

    Source: Bengio et al., arXiv 1308.3432.
    """

    exact = True

    @staticmethod
    def apply(values: Tensor, step: Tensor, grid: TensorGrid, key: Tensor | None = None) -> Tensor:
        """See ``Base.apply``."""
        return LearnedStep.apply(values, step.detach(), grid)
