"""Rounding with the straight-through gradient; the step is a constant."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from soniq_dse.quantizers import Base, TensorGrid, fake_quantize, gate


class StraightThrough(Base):
    """The gradient passes between the lowest and the top code, and is clipped to zero beyond them.

    Source: Bengio et al., arXiv 1308.3432.
    """

    exact = True

    @staticmethod
    def apply(values: Tensor, step: Tensor, grid: TensorGrid, noise: Tensor | None = None) -> Tensor:
        """See ``Base.apply``."""
        result: Tensor = _Rounding.apply(values, step, grid)
        return result


class _Rounding(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by mypy
    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor, grid: TensorGrid) -> Tensor:
        ctx.save_for_backward(values, step)
        ctx.grid = grid
        return fake_quantize(values, step, grid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, step = ctx.saved_tensors
        return gate(gradient, values, step * ctx.grid.top, ctx.grid.signed), None, None
