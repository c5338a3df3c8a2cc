"""Search strategies: which designs to train next, given what is known. ask and tell.

To add one: a file here whose name is its key, with one class deriving from ``Base``. The contract suite finds it and
checks that it never repeats a candidate, stops, keeps its budget, and gives the same order for the same space in
whatever order the results of a batch come in: that is how a run that was killed goes on, asking again and being told
what the store holds.
"""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from soniq_dse import pareto
from soniq_dse.pareto import Direction
from soniq_dse.records.design import Candidate, Schedule
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
class Prior:
    """What is known of a design before it is trained; None: not known.

    ``latency_us`` and ``bits_per_weight`` are those of some assignment within its budget; ``metric`` is that of the
    FP32 warm start rounded to it.
    """

    latency_us: float | None = None
    metric: float | None = None
    bits_per_weight: float | None = None


@dataclass(frozen=True)
class Space:
    """What can be asked for: ``candidates`` with their whole schedules, the first seed of all before the second of any.

    ``priors`` are those of the candidates, in their order (empty: nothing is known). ``budget_epochs`` bounds the
    epochs of phase 1 and phase 2 together, over all that is asked for (None: no bound). ``direction`` says whether a
    larger metric is better; ``seed`` draws what a strategy leaves to chance.
    """

    candidates: tuple[Candidate, ...]
    priors: tuple[Prior, ...] = ()
    direction: Direction = "max"
    budget_epochs: int | None = None
    seed: int = 0

    @property
    def first(self) -> Space:
        """The space of the first seed alone."""
        kept = [i for i, candidate in enumerate(self.candidates) if candidate.seed == self.candidates[0].seed]
        priors = tuple(self.priors[i] for i in kept) if self.priors else ()
        return replace(self, candidates=tuple(self.candidates[i] for i in kept), priors=priors)

    @property
    def n_seeds(self) -> int:
        """How many seeds the candidates have."""
        return len({candidate.seed for candidate in self.candidates})


def breadth_first(template: Candidate, choices: Sequence[PaletteChoice], seeds: Sequence[int]) -> Iterator[Candidate]:
    """Every palette at every budget with every seed, so that a run that is stopped early has seen the whole range.

    The first seed of every design comes before the second of any; within a seed, the first budget of every palette in
    the order of ``choices``, then the second budgets, and so on.
    """
    budgets = [budgets_of(choice) for choice in choices]
    for seed in seeds:
        for rank in range(max(map(len, budgets), default=0)):
            for choice, own in zip(choices, budgets, strict=True):
                if rank < len(own):
                    changes = {"palette": choice.palette, "seed": seed, **own[rank]}
                    yield template.model_copy(update=changes)


def epochs_of(candidate: Candidate) -> int:
    """What a candidate costs: epochs of both phases. Its FP32 warm start is shared, and not counted."""
    return candidate.schedule.noise_epochs + candidate.schedule.finetune_epochs


def shortened(candidate: Candidate, share: float) -> Candidate:
    """The same design at a lower fidelity: ``share`` of the epochs of each phase, at least one, from the same start."""
    schedule: Schedule = candidate.schedule
    changes = {
        "noise_epochs": max(1, round(share * schedule.noise_epochs)),
        "finetune_epochs": max(1, round(share * schedule.finetune_epochs)),
    }
    return candidate.model_copy(update={"schedule": schedule.model_copy(update=changes)})


def budgets_of(choice: PaletteChoice) -> tuple[dict[str, Any], ...]:
    """The fields of a candidate that say its budget, for every budget of ``choice``; one set without, where none is."""
    if choice.costs:
        return tuple({"budget_bits": None, "costs": costs} for costs in choice.costs)
    return tuple({"budget_bits": bits} for bits in choice.budgets_bits_per_weight) or ({"budget_bits": None},)


class Base(ABC):
    """A strategy over one space.

    ``ask`` gives batches of candidates that wait for nothing of one another: designs of the space, some at a shorter
    schedule; none twice. The next batch is asked for when every result of the last has been told.

    Strategies see the first seed. When one is over, the designs on its front are trained with the other seeds too, and
    so are those near it until the spread over seeds says that they lie behind; where a budget is given, the first seed
    has its part of it.
    """

    repeats: ClassVar[bool] = True
    """Whether ``Base`` trains the front's designs with the other seeds; False: ``propose`` sees all seeds."""

    def __init__(self, space: Space) -> None:
        self.whole = space
        self.space = space.first if self.repeats and space.candidates else space
        self.results: dict[Candidate, Result] = {}
        self.spent = 0
        self._priors = dict(zip(self.space.candidates, self.space.priors, strict=True)) if self.space.priors else {}
        self._pending: set[Candidate] = set()
        self._asked: set[Candidate] = set()
        self._is_over = False

    @abstractmethod
    def propose(self) -> Sequence[Candidate]:
        """The next batch, from ``self.results``; none: the search is over. What was asked for is left out."""

    def ask(self) -> tuple[Candidate, ...]:
        """The next batch; empty when the search is over.

        Raises:
            RuntimeError: a result of the last batch is missing.
        """
        if self._pending:
            raise RuntimeError(f"search: expected the results of {len(self._pending)} candidates before the next ask")
        batch: list[Candidate] = []
        if not self._is_over:
            batch = self._affordable(self.propose(), self.search_budget)
            self._is_over = not batch
        if not batch and self.repeats:
            batch = self._affordable(self._other_seeds(), self.whole.budget_epochs)
        self._pending = set(batch)
        self._asked |= self._pending
        self.spent += sum(map(epochs_of, batch))
        return tuple(batch)

    def tell(self, result: Result) -> None:
        """Report a result of the last batch, in any order."""
        self._pending.remove(result.candidate)
        self.results[result.candidate] = result

    @property
    def search_budget(self) -> int | None:
        """Epochs for what ``propose`` gives."""
        budget = self.whole.budget_epochs
        if budget is None or not self.repeats:
            return budget
        return budget // max(1, self.whole.n_seeds)

    def is_new(self, candidate: Candidate) -> bool:
        """Whether it was not asked for yet."""
        return candidate not in self._asked

    def trained(self) -> list[Result]:
        """Results of whole schedules that did not fail, in the order of the space."""
        found = [self.results.get(candidate) for candidate in self.whole.candidates]
        return [result for result in found if result is not None and result.metric_val is not None]

    def prior(self, candidate: Candidate) -> Prior:
        """What is known beforehand of a candidate of the space."""
        return self._priors.get(candidate, Prior())

    def _affordable(self, batch: Sequence[Candidate], budget: int | None) -> list[Candidate]:
        kept: list[Candidate] = []
        left = float("inf") if budget is None else budget - self.spent
        for candidate in batch:
            if candidate in self._asked or candidate in kept or epochs_of(candidate) > left:
                continue
            left -= epochs_of(candidate)
            kept.append(candidate)
        return kept

    def _other_seeds(self) -> list[Candidate]:
        """The next seed of every design that is on the front, or so near that its order is not clear."""
        groups: dict[Candidate, list[Result]] = {}
        for result in self.trained():
            groups.setdefault(result.candidate.model_copy(update={"seed": 0}), []).append(result)
        wanted = contenders(groups, self.space.direction)
        new = [c for c in self.whole.candidates if self.is_new(c)]
        rest = [c for c in new if c.model_copy(update={"seed": 0}) in wanted]
        return [candidate for candidate in rest if candidate.seed == rest[0].seed]


def contenders(groups: Mapping[Candidate, Sequence[Result]], direction: Direction) -> set[Candidate]:
    """The designs that no other surely dominates; ``groups`` are the trainings of each, one per seed.

    A mean lies within the deviation of one training over the root of their number. The deviation is that over seeds,
    pooled over all designs that have several; before any has, values count as exact.
    """
    metrics = {design: [result.metric_val or 0.0 for result in found] for design, found in groups.items()}
    spread = pooled_deviation(list(metrics.values()))
    means = {design: statistics.fmean(values) for design, values in metrics.items()}
    latency = {design: statistics.fmean(r.latency_us or 0.0 for r in found) for design, found in groups.items()}
    errors = {design: spread / math.sqrt(len(values)) for design, values in metrics.items()}
    bars = [(pareto.Interval(means[d] - errors[d], means[d] + errors[d]), None) for d in groups]
    behind = pareto.dominated([(means[d], latency[d]) for d in groups], (direction, "min"), bars)
    return {design for design, is_behind in zip(groups, behind, strict=True) if not is_behind}


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float:
    """Standard deviation within groups, pooled over those of several values; 0 where there is none."""
    several = [values for values in groups if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in several)
    return math.sqrt(squares / freedom) if freedom else 0.0
