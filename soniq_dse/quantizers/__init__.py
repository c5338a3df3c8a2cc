"""Fake quantization with a gradient, in torch.

Every unit is one function ``apply(values, step, grid, noise)``: fp32 in, fp32 of the same shape out. ``step`` and the
members of ``grid`` are numbers or tensors that broadcast against ``values`` (one per channel, or per output and input
channel of a weight); ``step`` may be learned. The exact units give in the forward pass, bit for bit, what ``formats``
gives: ``step`` times the integer of the code.

To add one: a new file here with one class deriving from ``Base``; ``tests/contracts/test_quantizers.py`` finds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from soniq_dse.formats import Grid

HELPERS: frozenset[str] = frozenset()
"""Modules of this package that are no quantizers."""


@dataclass(frozen=True)
class TensorGrid:
    """``formats.Grid`` as numbers, or as fp32 tensors that broadcast against the values, so that channels may differ.

    All channels are ``signed``, from ``-top`` to ``top``, or all unsigned, from 0.
    """

    multiplier: Tensor | float
    offset: Tensor | float
    lo: Tensor | float
    hi: Tensor | float
    signed: bool

    @classmethod
    def of(cls, grid: Grid) -> TensorGrid:
        """One grid for all values."""
        return cls(float(grid.multiplier), float(grid.offset), float(grid.lo), float(grid.hi), signed=grid.offset != 0)

    @classmethod
    def stacked(cls, grids: Sequence[Grid]) -> TensorGrid:
        """Tensors ``[len(grids)]``."""
        each = torch.tensor([[float(part) for part in grid] for grid in grids])
        return cls(each[:, 0], each[:, 1], each[:, 2], each[:, 3], signed=grids[0].offset != 0)

    def map(self, change: Callable[[Tensor], Tensor]) -> TensorGrid:
        """A stacked grid with every tensor changed alike (indexed, reshaped)."""
        multiplier, offset, lo, hi = (
            change(torch.as_tensor(part)) for part in (self.multiplier, self.offset, self.lo, self.hi)
        )
        return TensorGrid(multiplier, offset, lo, hi, signed=self.signed)

    @cached_property
    def top(self) -> Tensor | float:
        """The greatest integer."""
        return self.multiplier * self.hi - self.offset

    @cached_property
    def shift(self) -> Tensor | float:
        """The (fractional) code of the value 0."""
        return self.offset / self.multiplier


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


_hardtanh_backward = torch.ops.aten.hardtanh_backward.default


def fake_quantize(values: Tensor, step: Tensor, grid: TensorGrid) -> Tensor:
    """The forward pass of the exact units: quantize, then dequantize, without a gradient."""
    with torch.no_grad():
        codes = values * (1.0 / (grid.multiplier * step))
        if grid.signed:
            codes.add_(grid.shift)
        codes.round_()
        if isinstance(grid.lo, float):
            codes.clamp_(grid.lo, grid.hi)
        else:
            torch.minimum(torch.maximum(codes, grid.lo, out=codes), grid.hi, out=codes)
        if grid.signed:
            codes.mul_(grid.multiplier).sub_(grid.offset)
        return codes.mul_(step)


def gate(gradient: Tensor, values: Tensor, top: Tensor, signed: bool) -> Tensor:
    """``gradient`` where ``values`` lie strictly between ``-top`` (``signed``) or 0 and ``top``, else 0.

    One pass where ``top`` is a number, two where it differs by channel; masks and comparisons would take four.
    """
    low = -1.0 if signed else 0.0
    if top.numel() == 1:
        return _hardtanh_backward(gradient, values, low * float(top), float(top))
    return _hardtanh_backward(gradient, values * top.reciprocal(), low, 1.0)


def summed_product(first: Tensor, second: Tensor, shape: torch.Size) -> Tensor:
    """``first * second`` summed to ``shape``, to which both broadcast back."""
    if shape.numel() == 1:
        return torch.dot(first.flatten(), second.flatten()).reshape(shape)
    return (first * second).sum_to_size(shape)
