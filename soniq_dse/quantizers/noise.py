"""Noise in the place of rounding: SONIQ's phase 1, where precisions are still mixed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from soniq_dse.quantizers import Base, TensorGrid, inside


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
        half, low, high = noise_range(step, grid)
        return add_noise(values, half, low, high, noise)


def noise_range(step: Tensor, grid: TensorGrid) -> tuple[Tensor, Tensor, Tensor]:
    """(half distance of two levels, lower and upper edge of the cells).

    An unsigned grid ends at 0, not half a step below: zeros behind a ReLU stay zeros.
    """
    half = step * grid.multiplier / 2
    bottom = step * grid.bottom
    return half, torch.where(grid.bottom == 0, bottom, bottom - half), step * grid.top + half


def add_noise(values: Tensor, half: Tensor, low: Tensor, high: Tensor, noise: Tensor) -> Tensor:
    """``clamp(values, low, high) + half * noise`` where strictly inside, with gradients to all but the noise.

    ``half``, ``low`` and ``high`` may be mixtures over levels: mixing magnitudes costs one pass, whatever the palette.
    """
    result: Tensor = _AddNoise.apply(values, half, low, high, noise)
    return result


class _AddNoise(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by mypy
    @staticmethod
    def forward(ctx: Any, values: Tensor, half: Tensor, low: Tensor, high: Tensor, noise: Tensor) -> Tensor:
        mask = inside(values, low, high)
        ctx.save_for_backward(values, half, low, high, noise, mask)
        one = low.numel() == 1 and high.numel() == 1
        clamped = values.clamp(float(low), float(high)) if one else torch.clamp(values, low, high)
        return clamped.addcmul_(noise * mask, half)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, half, low, high, noise, mask = ctx.saved_tensors
        _, _, need_low, need_high, _ = ctx.needs_input_grad
        to_values = gradient * mask
        to_half = (to_values * noise).sum_to_size(half.shape)
        to_low = (gradient * (values <= low)).sum_to_size(low.shape) if need_low else None
        to_high = (gradient * (values >= high)).sum_to_size(high.shape) if need_high else None
        return to_values, to_half, to_low, to_high, None
