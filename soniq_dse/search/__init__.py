"""Search strategies: which candidate to evaluate next, given what is known. ask and tell.

To add one: a file here whose name is its key, with one class deriving from ``Base``. The contract suite finds it and
checks that it never repeats a candidate, stops, gives the same order for the same space, and goes on where it was told
to have been.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from soniq_dse.records.design import Candidate
from soniq_dse.records.palette import PaletteChoice


@dataclass(frozen=True)
class Result:
    """What became of a candidate: its metric on the validation split and predicted latency in microseconds.

    Both are None where the candidate was stopped early or failed.
    """

    candidate: Candidate
    metric_val: float | None = None
    latency_us: float | None = None


@dataclass(frozen=True)
class Space:
    """What can be asked for: ``template`` carries model, data, schedule and all that every candidate shares.

    ``choices`` are the palettes worth exploring, the best first, with their budgets (none: a palette of one level).
    """

    template: Candidate
    choices: tuple[PaletteChoice, ...]
    seeds: tuple[int, ...] = (0,)


def budgets_of(choice: PaletteChoice) -> tuple[dict[str, Any], ...]:
    """The fields of a candidate that say its budget, for every budget of ``choice``; one set without, where none is."""
    if choice.costs:
        return tuple({"budget_bits": None, "costs": costs} for costs in choice.costs)
    return tuple({"budget_bits": bits} for bits in choice.budgets_bits_per_weight) or ({"budget_bits": None},)


class Base(ABC):
    """A strategy over one space. ``ask`` never gives a candidate twice, nor one that ``tell`` has reported."""

    def __init__(self, space: Space) -> None:
        self.space = space

    @abstractmethod
    def ask(self) -> Candidate | None:
        """The next candidate; None when the search is over."""

    @abstractmethod
    def tell(self, result: Result) -> None:
        """Report a result, in any order; also of candidates that were never asked for (an earlier run's)."""
