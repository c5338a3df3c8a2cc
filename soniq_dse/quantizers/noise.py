"""Noise in the place of rounding: SONIQ's phase 1, where precisions are still mixed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from soniq_dse.quantizers import Base, TensorGrid, gate, summed_product


class UniformNoise(Base):
    """``clamp(x) + half * noise`` between the outer edges of the grid's cells, no noise where x saturates.

    ``half`` is half the distance of two levels. Source: SONIQ, arXiv 2311.14114, phase 1; SMOL, NeurIPS 2022.
    """

    exact = False

    @staticmethod
    def apply(values: Tensor, step: Tensor, grid: TensorGrid, noise: Tensor | None = None) -> Tensor:
        """See ``Base.apply``.

        Raises:
            ValueError: no noise is given.
        """
        if noise is None:
            raise ValueError("noise: expected uniform numbers of the shape of the values, got None")
        half, edge = noise_range(step, grid)
        return add_noise(values, half, edge, noise, signed=grid.signed)


def noise_range(step: Tensor, grid: TensorGrid) -> tuple[Tensor, Tensor]:
    """(half the distance of two levels, outer edge of the top cell).

    An unsigned grid ends at 0, not half a step below: zeros behind a ReLU stay zeros.
    """
    half = step * grid.multiplier / 2
    return half, step * grid.top + half


def add_noise(values: Tensor, half: Tensor, edge: Tensor, noise: Tensor, *, signed: bool) -> Tensor:
    """``clamp(values, -edge or 0, edge) + half * noise`` where strictly inside, with gradients to all but the noise.

    ``half`` and ``edge`` (of one shape) may be mixtures over levels: mixing magnitudes costs one pass, whatever the
    palette.
    """
    result: Tensor = _AddNoise.apply(values, half, edge, noise, signed)
    return result


class _AddNoise(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by mypy
    @staticmethod
    def forward(ctx: Any, values: Tensor, half: Tensor, edge: Tensor, noise: Tensor, signed: bool) -> Tensor:
        ctx.save_for_backward(values, half, edge, noise)
        ctx.signed = signed
        if edge.numel() == 1:
            clamped = values.clamp(-float(edge) if signed else 0.0, float(edge))
        else:
            clamped = torch.minimum(values, edge)
            clamped = torch.maximum(clamped, -edge, out=clamped) if signed else clamped.clamp_min_(0.0)
        return clamped.addcmul_(gate(noise, values, edge, signed), half)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, half, edge, noise = ctx.saved_tensors
        to_values = gate(gradient, values, edge, ctx.signed)
        to_half = summed_product(to_values, noise, half.shape)
        saturated = gradient - to_values
        if ctx.signed:
            saturated.mul_(values.sign())
        else:
            saturated = torch.ops.aten.threshold_backward(saturated, values, 0.0)
        return to_values, to_half, saturated.sum_to_size(edge.shape), None, None
