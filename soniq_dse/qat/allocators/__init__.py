"""Allocators: which channel of which tensor class gets which level of the palette.

To add one: a new file here with one class deriving from ``Base``; ``tests/contracts/test_allocators.py`` finds it and
holds it to the budget, the palette and the kernels' channel group.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from soniq_dse.errors import UserError
from soniq_dse.records.palette import Palette

if TYPE_CHECKING:
    from soniq_dse.qat.sensitivity import Probe

HELPERS = frozenset({"hardening"})
"""Modules of this package that are no allocators."""

Levels = dict[str, tuple[int, ...]]
"""Tensor class -> palette index of every channel."""

Logits = Mapping[str, npt.NDArray[np.float64]]
"""Tensor class -> preference ``[channels, levels]``, higher is better; ``nu * bits`` is not subtracted.

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

    ``budget_bits`` bounds the average weight bits over all classes (None: no bound); ``k_group``: the channels of a
    level come in multiples of this, but for one remainder per class and one group that the budget cuts.

    Raises:
        UserError: the budget is below the narrowest level.
    """

    classes: tuple[ClassSize, ...]
    palette: Palette
    budget_bits: float | None
    k_group: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.budget_bits is not None and self.budget_bits < min(self.weight_bits):
            raise UserError(
                f"budget_bits: expected at least {min(self.weight_bits)}, the narrowest level of {self.palette.name}, "
                f"got {self.budget_bits:g}"
            )

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
        return self.budget_bits is None or self.bits_per_weight(levels) <= self.budget_bits * (1 + 1e-9)


class Base(ABC):
    """An allocator. ``learned``: it needs the logits of SONIQ's phase 1, which then mixes levels while it trains.

    ``measured``: its preferences are what ``measure`` sees of the FP32 network before phase 1.
    """

    learned: ClassVar[bool]
    measured: ClassVar[bool] = False

    def measure(self, probe: Probe) -> Logits:
        """Preferences for the classes of ``probe.problem``; where ``measured``."""
        raise NotImplementedError(f"{type(self).__name__}.measure")

    @abstractmethod
    def allocate(self, problem: Problem, logits: Logits | None) -> Levels:
        """Level of every channel of every class; the same inputs give the same levels.

        Args:
            problem: sizes and bounds.
            logits: given where ``learned`` or ``measured``.
        """
