"""Rounding with the straight-through gradient for the values and a learned step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from soniq_dse.quantizers import Base, TensorGrid, fused


class LearnedStep(Base):
    """Learned step size: with y = step * integer, ``dy/dstep = (y - x [x inside the codes]) / step``.

    The gradient of a value is clipped to zero beyond the lowest and the top code.
    Source: Esser et al., Learned Step Size Quantization, arXiv 1902.08153, equation 3.
    """

    exact = True

    @staticmethod
    def apply(values: Tensor, step: Tensor, grid: TensorGrid, key: Tensor | None = None) -> Tensor:
        """See ``Base.apply``."""
        one = grid.parts.ndim == 1
        shape = step.shape if one else torch.broadcast_shapes(step.shape, grid.parts.shape[1:])
        place = fused.arrange(values, shape)
        table = (
            grid.parts.reshape(4, 1).contiguous() if one else torch.stack([place.spread(part) for part in grid.parts])
        )
        flat = _Rounding.apply(place.flat(fused.wide(values)), place.spread(step), table, place.inner, grid.signed)
        return place.restore(flat, values)


class _Rounding(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by mypy
    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor, table: Tensor, inner: int, signed: bool) -> Tensor:
        ctx.save_for_backward(values, step, table)
        ctx.inner, ctx.signed = inner, signed
        return fused.rounded_op(values, step, table, inner)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients = fused.rounded_backward_op(gradient.contiguous(), *ctx.saved_tensors, ctx.inner, ctx.signed)
        return (*gradients, None, None, None)
