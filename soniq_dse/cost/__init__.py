"""Cost models: how many cycles one pass of a compiled loop takes on a machine that a descriptor describes.

To add one: a file here whose name is its key, with one class deriving from ``Base``. ``network.estimate`` takes it by
name; the contract suite checks that it stays on or above the port bound and grows with the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from soniq_dse.records.cost import Bound, HotLoop
from soniq_dse.records.hardware import HardwareModel

HELPERS = frozenset({"bounds", "choice", "elementwise", "layers", "memory", "network", "overheads", "registers"})
"""Files here that are no cost model."""


@dataclass(frozen=True)
class LoopCost:
    """Cycles of one pass of a loop in steady state, what bounds it, and which instructions had no figures of their own.

    ``latency_cycles`` is what its longest recurrence takes however little else there is to do; ``bound_text`` names the
    bound in words (``port p5``).
    """

    cycles: float
    bound: Bound
    bound_text: str
    latency_cycles: float
    assumed: tuple[str, ...] = ()


class Base(ABC):
    """A model of the core: instructions of a loop, all data in the nearest cache."""

    @abstractmethod
    def loop_cost(self, loop: HotLoop, hw: HardwareModel) -> LoopCost:
        """Cycles of one pass of ``loop`` on ``hw``.

        Raises:
            UserError: the descriptor has no figures for a vector instruction of the loop.
        """
