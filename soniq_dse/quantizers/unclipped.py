"""Rounding whose gradient passes beyond the codes, too."""

from __future__ import annotations

import torch
from torch import Tensor

from soniq_dse.quantizers import Base, TensorGrid
from soniq_dse.quantizers.lsq import LearnedStep


class Unclipped(Base):
    """As ``LearnedStep``, but a value that saturates keeps its gradient: it may come back by itself.

    Source: the plain straight-through estimator, Bengio et al., arXiv 1308.3432.
    """

    exact = True
    clipped = False

    @staticmethod
    def apply(values: Tensor, step: Tensor, grid: TensorGrid, key: Tensor | None = None) -> Tensor:
        """See ``Base.apply``."""
        top = (step * grid.top).detach()
        low = -top if grid.signed else torch.zeros_like(top)
        saturated = (values.detach() > top) | (values.detach() < low)
        return LearnedStep.apply(values, step, grid) + torch.where(saturated, values - values.detach(), 0.0)
