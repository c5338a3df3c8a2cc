"""Fake quantization with a gradient, in torch.

Every unit is one function ``apply(values, step, grid, noise)``: fp32 in, fp32 of the same shape out. ``step`` and the
members of ``grid`` are numbers or tensors that broadcast against ``values`` (one per channel, or per output and input
channel of a weight); ``step`` may be learned. The exact units give in the forward pass, bit for bit, what ``formats``
gives: ``step`` times the integer of the code.

To add one: a new file here with one class deriving from ``Base``; ``tests/contracts/test_quantizers.py`` finds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

HELPERS: frozenset[str] = frozenset()
"""Modules of this package that are no quantizers."""


class TensorGrid(NamedTuple):
    """``formats.Grid`` as fp32 tensors that broadcast against the values, so that channels may differ.

    All channels are signed, from ``-top`` to ``top``, or all unsigned, from 0.
    """

    multiplier: Tensor
    offset: Tensor
    lo: Tensor
    hi: Tensor

    @property
    def signed(self) -> bool:
        """Whether the grid goes below 0."""
        return bool(self.offset.any())

    @property
    def top(self) -> Tensor:
        """The greatest integer."""
        return self.multiplier * self.hi - self.offset


class Base(ABC):
    """A fake quantizer."""

    exact: ClassVar[bool]
    """True where the forward pass equals ``formats`` bit for bit."""

    @staticmethod
    @abstractmethod
    def apply(values: Tensor, step: Tensor, grid: TensorGrid, noise: Tensor | None = None) -> Tensor:
        """Values as the number format would hold them, with a gradient.

        Args:
            values: fp32, any shape.
            step: positive, broadcasts against ``values``.
            grid: broadcasts against ``values``.
            noise: uniform in -1..1, of the shape of ``values``; only where the unit is not ``exact``.
        """


def fake_quantize(values: Tensor, step: Tensor, grid: TensorGrid) -> Tensor:
    """The forward pass of the exact units: quantize, then dequantize, without a gradient."""
    shifted = bool(grid.offset.any())
    with torch.no_grad():
        codes = values * (1.0 / (grid.multiplier * step))
        if shifted:
            codes.add_(grid.offset / grid.multiplier)
        codes.round_()
        if grid.lo.numel() == 1:
            codes.clamp_(float(grid.lo), float(grid.hi))
        else:
            torch.minimum(torch.maximum(codes, grid.lo, out=codes), grid.hi, out=codes)
        if shifted:
            codes.mul_(grid.multiplier).sub_(grid.offset)
        return codes.mul_(step)


def gate(gradient: Tensor, values: Tensor, top: Tensor, signed: bool) -> Tensor:
    """``gradient`` where ``values`` lie strictly between ``-top`` (``signed``) or 0 and ``top``, else 0.

    One pass where ``top`` is a number, two where it differs by channel; masks and comparisons would take four.
    """
    low = -1.0 if signed else 0.0
    if top.numel() == 1:
        return torch.ops.aten.hardtanh_backward(gradient, values, low * float(top), float(top))
    return torch.ops.aten.hardtanh_backward(gradient, values * top.reciprocal(), low, 1.0)


def summed_product(first: Tensor, second: Tensor, shape: torch.Size) -> Tensor:
    """``first * second`` summed to ``shape``, to which both broadcast back."""
    if shape.numel() == 1:
        return torch.dot(first.flatten(), second.flatten()).reshape(shape)
    return (first * second).sum_to_size(shape)
