"""Cost models: how many cycles one pass of a compiled loop takes on a machine that a descriptor describes.

To add one: a file here whose name is its key, with one class deriving from ``Base``. ``network.estimate`` takes it by
name; the contract suite checks that it stays on or above the port bound and grows with the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from soniq_dse.records.cost import Bound, HotLoop
from soniq_dse.records.hardware import HardwareModel

if TYPE_CHECKING:
    from soniq_dse.kernels.code import KernelCode

HELPERS = frozenset(
    {
        "bounds", "branches", "calls", "channel_table", "choice", "core", "energy", "gpu", "gpu_kernels", "graph",
        "instructions", "intervals", "layers", "memory", "network",
        "operators", "priced", "registers", "remembered", "steps", "timeline", "vector_loops",
    }
)  # fmt: skip
"""Files here that are no cost model."""


@dataclass(frozen=True)
class LoopCost:
    """Cycles of one pass of a loop in steady state, and what bounds it.

    ``cycles`` is a lower bound: the best that ports, issue width, recurrences allow. ``contended_cycles`` is the same
    where micro-operations are spread evenly over their ports; ``simulated_cycles`` what following them through the core
    gives, of a model that does. ``latency_cycles`` is what the longest recurrence takes
    however little else there is to do; ``bound_text`` names the bound in words (``port p5``); ``assumed`` are
    instructions without figures of their own.
    """

    cycles: float
    contended_cycles: float
    bound: Bound
    bound_text: str
    latency_cycles: float
    assumed: tuple[str, ...] = ()
    simulated_cycles: float | None = None

    @property
    def expected_cycles(self) -> float:
        """As simulated; else the middle between the best assignment of ports and an even one."""
        return self.simulated_cycles or (self.cycles + self.contended_cycles) / 2


class Calls(Protocol):
    """Whole calls of one kernel on one machine."""

    def cycles(self, rows: int, cols: int, taps: int, k: int) -> float:
        """Cycles of ``[rows, taps, k] x [cols, taps, k]``, data in the nearest cache."""


class Base(ABC):
    """A model of the core: instructions of a loop, all data in the nearest cache."""

    @abstractmethod
    def loop_cost(self, loop: HotLoop, hw: HardwareModel) -> LoopCost:
        """Cycles of one pass of ``loop`` on ``hw``.

        Raises:
            UserError: the descriptor has no figures for a vector instruction of the loop.
        """

    def calls(self, code: KernelCode, hw: HardwareModel) -> Calls | None:
        """What whole calls of a kernel cost; None where the model speaks of loops only."""
        return None
