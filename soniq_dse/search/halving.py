"""Many designs a little, the best of them longer: successive halving over epochs.

Every rung starts at the same FP32 warm start. Promoted are the designs of the lowest domination rank, within a rank
those that add most hypervolume.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from soniq_dse import pareto
from soniq_dse.pareto import Direction
from soniq_dse.records.design import Candidate
from soniq_dse.search import Base, Result, Space, epochs_of, shortened

RUNGS = (1 / 4, 1.0)
"""Parts of the whole schedule."""
ETA = 3
"""One of so many is promoted."""


class Halving(Base):
    """Successive halving (Jamieson and Talwalkar, 2016) with multi-objective promotion (Schmucker et al.,
    "Multi-objective asynchronous successive halving", 2021). What a budget leaves goes to further brackets.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._untried = list(self.space.candidates)
        random.Random(space.seed).shuffle(self._untried)
        self._rung = len(RUNGS) - 1
        self._bracket: list[Candidate] = []

    def propose(self) -> Sequence[Candidate]:
        """The next rung of the bracket, or the first of the next one."""
        if self._rung + 1 < len(RUNGS):
            self._promote()
        if self._rung + 1 == len(RUNGS) and not any(map(self.is_new, self._bracket)):
            size = self._size()
            self._rung = 0 if size else len(RUNGS) - 1  # what does not pay a bracket may pay a whole training
            self._bracket, self._untried = self._untried[: size or 1], self._untried[size or 1 :]
        return [shortened(c, RUNGS[self._rung]) for c in self._bracket]

    def _promote(self) -> None:
        found = {c: self.results.get(shortened(c, RUNGS[self._rung])) for c in self._bracket}
        whole = {r.candidate: c for c, r in found.items() if r is not None and r.metric_val is not None}
        ordered = promoted([r for r in found.values() if r is not None and r.candidate in whole], self.space.direction)
        self._bracket = [whole[r.candidate] for r in ordered[: max(1, len(self._bracket) // ETA)]]
        self._rung += 1

    def _size(self) -> int:
        """Of the largest bracket that the budget left pays whole."""
        if self.search_budget is None or not self._untried:
            return len(self._untried)
        costs = [epochs_of(shortened(self._untried[0], share)) for share in RUNGS]
        left = self.search_budget - self.spent

        def price(size: int) -> int:
            return sum(max(1, size // ETA**rung) * cost for rung, cost in enumerate(costs))

        return max((n for n in range(1, len(self._untried) + 1) if price(n) <= left), default=0)


def promoted(results: Sequence[Result], direction: Direction) -> list[Result]:
    """By domination rank, then by the hypervolume that only this one covers of its rank."""
    rest, ordered = list(results), list[Result]()
    while rest:
        values = [(result.metric_val, result.latency_us) for result in rest]
        rank = pareto.front(values, (direction, "min"))
        if not rank:
            return ordered + rest
        adds = dict(zip(rank, _adds([values[i] for i in rank], direction), strict=True))
        ordered += [rest[i] for i in sorted(rank, key=lambda i: -adds[i])]
        rest = [result for i, result in enumerate(rest) if i not in rank]
    return ordered


def _adds(points: Sequence[pareto.Values], direction: Direction) -> list[float]:
    """What each point of a front adds to the hypervolume of the others, against the worst of both objectives."""
    known = [(metric or 0.0, latency or 0.0) for metric, latency in points]
    worst = min if direction == "max" else max
    reference = (worst(metric for metric, _ in known), max(latency for _, latency in known))
    directions: tuple[Direction, Direction] = (direction, "min")
    whole = pareto.hypervolume(known, reference, directions)
    others = ([p for j, p in enumerate(known) if j != i] for i in range(len(known)))
    return [whole - pareto.hypervolume(rest, reference, directions) for rest in others]
