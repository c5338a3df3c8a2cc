"""Fake quantization with a gradient, in torch.

Every unit is one function ``apply(values, step, grid, key)``: values in, values of the same shape and type out.
``step`` and the parts of ``grid`` broadcast against ``values`` (one for all, per channel, or per output and input
channel of a weight); ``step`` may be learned. The exact units give in the forward pass, bit for bit, what ``formats``
gives: ``step`` times the integer of the code. What they share, and their speed, is in ``fused.py``.

To add one: a new file here with one class deriving from ``Base``; ``tests/contracts/test_quantizers.py`` finds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from soniq_dse.formats import Grid

HELPERS = frozenset({"fused"})
"""Modules of this package that are no quantizers."""


@dataclass(frozen=True)
class TensorGrid:
    """``formats.Grid`` as fp32 tensors that broadcast against the values, so that channels may differ.

    ``parts`` ``[4, ...]``: multiplier, offset, lo, hi. All channels are ``signed``, from ``-top`` to ``top``, or all
    unsigned, from 0.
    """

    parts: Tensor
    signed: bool

    @classmethod
    def of(cls, grid: Grid) -> TensorGrid:
        """One grid for all values: ``parts`` ``[4]``."""
        return cls(torch.tensor([float(part) for part in grid]), signed=grid.offset != 0)

    @classmethod
    def stacked(cls, grids: Sequence[Grid]) -> TensorGrid:
        """``parts`` ``[4, len(grids)]``."""
        return cls(torch.stack([cls.of(grid).parts for grid in grids], dim=1), signed=grids[0].offset != 0)

    def map(self, change: Callable[[Tensor], Tensor]) -> TensorGrid:
        """A stacked grid with every tensor changed alike (indexed, reshaped)."""
        return TensorGrid(torch.stack([change(part) for part in self.parts]), signed=self.signed)

    @property
    def multiplier(self) -> Tensor:
        """Distance of two integers."""
        return self.parts[0]

    @property
    def top(self) -> Tensor:
        """The greatest integer."""
        multiplier, offset, _, hi = self.parts
        return multiplier * hi - offset


class Base(ABC):
    """A fake quantizer."""

    exact: ClassVar[bool]
    """True where the forward pass equals ``formats`` bit for bit."""
    clipped: ClassVar[bool] = True
    """True where a value beyond the lowest or the top code gets no gradient."""

    @staticmethod
    @abstractmethod
    def apply(values: Tensor, step: Tensor, grid: TensorGrid, key: Tensor | None = None) -> Tensor:
        """Values as the number format would hold them, with a gradient.

        Args:
            values: floating point, any shape, contiguous or channels-last; 16-bit types are computed in fp32.
            step: positive, broadcasts against ``values``.
            grid: broadcasts against ``values``.
            key: int64 scalar, what the noise is made from; only where the unit is not ``exact``.
        """
