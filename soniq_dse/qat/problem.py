"""What an allocator is asked: the tensor classes, the palette, and the budget that their levels must keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from soniq_dse.errors import UserError
from soniq_dse.records.channel_costs import ChannelCosts
from soniq_dse.records.palette import Palette

Levels = dict[str, tuple[int, ...]]
"""Tensor class -> palette index of every channel."""

Logits = Mapping[str, npt.NDArray[np.float64]]
"""Tensor class -> preference ``[channels, levels]``, higher is better; ``nu * cost`` is not subtracted.

Learned in phase 1, or measured: then minus the loss that rounding a channel at a level is expected to add.
"""


@dataclass(frozen=True)
class ClassSize:
    """A tensor class whose channels are to be given levels; each channel is read by ``weights_per_channel`` weights."""

    name: str
    channels: int
    weights_per_channel: float


@dataclass(frozen=True)
class Problem:
    """What an allocator must respect.

    ``budget_bits`` bounds the average weight bits over all classes (None: no bound), ``costs`` their sum in its own
    unit instead; ``k_group``: the channels of a level come in multiples of this, but for one remainder per class and
    one group that the budget cuts; ``whole``: all channels of a class have the same level.

    Raises:
        UserError: the budget is below what the cheapest levels take, there are two budgets, or ``costs`` lacks a class
            or level.
    """

    classes: tuple[ClassSize, ...]
    palette: Palette
    budget_bits: float | None
    k_group: int = 1
    seed: int = 0
    costs: ChannelCosts | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if self.costs is not None:
            self._check_costs(self.costs)
        if self.budget_bits is not None and self.budget_bits < min(self.weight_bits):
            raise UserError(
                f"budget_bits: expected at least {min(self.weight_bits)}, the narrowest level of {self.palette.name}, "
                f"got {self.budget_bits:g}"
            )

    def _check_costs(self, costs: ChannelCosts) -> None:
        if self.budget_bits is not None:
            raise UserError(f"budget: expected one, got {self.budget_bits:g} bits per weight and one in {costs.unit}")
        n_levels = len(self.palette.levels)
        for size in self.classes:
            if size.name not in costs.per_channel:
                raise UserError(f"costs: expected tensor class {size.name!r}, got {', '.join(costs.per_channel)}")
            if len(costs.per_channel[size.name]) != n_levels:
                raise UserError(
                    f"costs of {size.name}: expected one for each of the {n_levels} levels of {self.palette.name}, "
                    f"got {len(costs.per_channel[size.name])}"
                )
        least = costs.fixed + math.fsum(c.channels * costs.per_channel[c.name][0] for c in self.classes)
        if costs.budget < least:
            raise UserError(
                f"budget: expected at least {least:.6g} {costs.unit}, what the cheapest levels of {self.palette.name} "
                f"take, got {costs.budget:g}"
            )

    @property
    def limit(self) -> float | None:
        """The most that all channels may cost together: in the unit of ``costs``, less what is fixed; else in weight
        bits."""
        if self.costs is not None:
            return self.costs.budget - self.costs.fixed
        return None if self.budget_bits is None else self.budget_bits * self.total_weights

    def channel_costs(self, size: ClassSize) -> tuple[float, ...]:
        """What a channel of a class costs at each level, in the unit of ``limit``."""
        if self.costs is not None:
            return self.costs.per_channel[size.name]
        return tuple(size.weights_per_channel * bits for bits in self.weight_bits)

    def costs_per_weight(self, size: ClassSize) -> tuple[float, ...]:
        """The same shared by the weights that read the channel: weight bits, where ``costs`` are not given."""
        if self.costs is None:
            return tuple(map(float, self.weight_bits))
        return tuple(cost / size.weights_per_channel for cost in self.costs.per_channel[size.name])

    def spent(self, levels: Mapping[str, tuple[int, ...]]) -> float:
        """What an allocation costs, in the unit of ``limit``."""
        every = {c.name: self.channel_costs(c) for c in self.classes}
        return math.fsum(every[c.name][level] for c in self.classes for level in levels[c.name])

    def group(self, size: ClassSize) -> int:
        """How many channels of a class are lifted together."""
        return size.channels if self.whole else self.k_group

    @property
    def weight_bits(self) -> tuple[int, ...]:
        """Weight bits of each level."""
        return tuple(level.weight_bits for level in self.palette.levels)

    @property
    def total_weights(self) -> float:
        """Weights that the budget is about."""
        return math.fsum(c.channels * c.weights_per_channel for c in self.classes)

    def bits_per_weight(self, levels: Mapping[str, tuple[int, ...]]) -> float:
        """Average weight bits of an allocation over all classes of the problem (0 where there are none)."""
        bits = self.weight_bits
        spent = math.fsum(c.weights_per_channel * sum(bits[j] for j in levels[c.name]) for c in self.classes)
        return spent / self.total_weights if self.classes else 0.0

    def fits(self, levels: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether an allocation keeps the budget (to one part in 10**9)."""
        return self.limit is None or self.spent(levels) <= self.limit * (1 + 1e-9)
