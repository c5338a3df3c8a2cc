"""Allocators: which channel of which tensor class gets which level of the palette.

To add one: a new file here with one class deriving from ``Base``; ``tests/contracts/test_allocators.py`` finds it and
holds it to the budget, the palette and the kernels' channel group.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from soniq_dse.qat.problem import ClassSize, Levels, Logits, Problem

if TYPE_CHECKING:
    from soniq_dse.qat.sensitivity import Probe

__all__ = ["Base", "ClassSize", "Levels", "Logits", "Problem"]

HELPERS = frozenset({"hardening"})
"""Modules of this package that are no allocators."""


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
