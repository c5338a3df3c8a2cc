"""Rounding with the straight-through gradient for the values and a learned step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from soniq_dse.quantizers import Base, TensorGrid, fake_quantize, gate, summed_product


class LearnedStep(Base):
    """Learned step size: with y = step * integer, ``dy/dstep = (y - x [x inside the codes]) / step``.

    The gradient of a value is clipped to zero beyond the lowest and the top code.
    Source: Esser et al., Learned Step Size Quantization, arXiv 1902.08153, equation 3.
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
        rounded = fake_quantize(values, step, grid)
        ctx.save_for_backward(values, step, rounded)
        ctx.grid = grid
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        values, step, rounded = ctx.saved_tensors
        to_values = gate(gradient, values, step * ctx.grid.top, ctx.grid.signed)
        if step.numel() == 1:
            to_step = summed_product(gradient, rounded, step.shape) - summed_product(values, to_values, step.shape)
        else:
            to_step = (gradient * rounded).addcmul_(values, to_values, value=-1).sum_to_size(step.shape)
        return to_values, to_step / step, None
