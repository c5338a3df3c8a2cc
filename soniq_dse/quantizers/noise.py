"""Noise in the place of rounding: SONIQ's phase 1, where precisions are still mixed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from soniq_dse.quantizers import Base, TensorGrid, fused


class UniformNoise(Base):
    """``clamp(x) + half * noise`` between the outer edges of the grid's cells, no noise where x saturates.

    ``half`` is half the distance of two levels. Source: SONIQ, arXiv 2311.14114, phase 1; SMOL, NeurIPS 2022.
    """

    exact = False

    @staticmethod
    def apply(values: Tensor, step: Tensor, grid: TensorGrid, key: Tensor | None = None) -> Tensor:
        """See ``Base.apply``.

        Raises:
            ValueError: no key is given.
        """
        if key is None:
            raise ValueError("key: expected an int64 scalar to make noise from, got None")
        half, edge = noise_range(step, grid)
        return add_noise(values, half, edge, key, signed=grid.signed)


def noise_range(step: Tensor, grid: TensorGrid) -> tuple[Tensor, Tensor]:
    """(half the distance of two levels, outer edge of the top cell).

    An unsigned grid ends at 0, not half a step below: zeros behind a ReLU stay zeros.
    """
    half = step * grid.multiplier / 2
    return half, step * grid.top + half


def add_noise(values: Tensor, half: Tensor, edge: Tensor, key: Tensor, *, signed: bool) -> Tensor:
    """``clamp(values, -edge or 0, edge) + half * noise`` where strictly inside, with gradients to all but the key.

    ``half`` and ``edge`` (of one shape) may be mixtures over levels: mixing magnitudes costs one pass, whatever the
    palette.
    """
    place = fused.arrange(values, half.shape)
    flat = _AddNoise.apply(
        place.flat(fused.wide(values)), place.spread(half), place.spread(edge), place.inner, signed, key
    )
    return place.restore(flat, values)


class _AddNoise(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by mypy
    @staticmethod
    def forward(ctx: Any, values: Tensor, half: Tensor, edge: Tensor, inner: int, signed: bool, key: Tensor) -> Tensor:
        ctx.save_for_backward(values, edge, key)
        ctx.inner, ctx.signed = inner, signed
        return fused.noise_op(values, half, edge, inner, signed, key)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, edge, key = ctx.saved_tensors
        gradients = fused.noise_backward_op(gradient.contiguous(), values, edge, ctx.inner, ctx.signed, key)
        return (*gradients, None, None, None)
