"""From preferences to levels within the budget, in whole channel groups."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from soniq_dse.qat.allocators import ClassSize, Levels, Logits, Problem


def harden(problem: Problem, logits: Logits, start: Levels | None = None) -> Levels:
    """Greedy upgrades from the narrowest level (or from ``start``) by gain in logits per unit of cost, while the budget
    holds.

    This is the Lagrangian argmax of SONIQ's phase 1, continued until no further group fits: every upgrade whose gain
    per cost is above the multiplier comes first. An upgrade lifts the group of channels of one class that wants it
    most from one level to the next wider one; the last upgrade takes only as many as the budget still pays for, so that
    the budget is met to within a channel, unless classes stay whole. Ties fall to the earlier class and channel.
    """
    n_levels = len(problem.palette.levels)
    first = start or {c.name: (0,) * c.channels for c in problem.classes}
    levels = {name: np.array(of_class, dtype=np.int64) for name, of_class in first.items()}
    left = np.inf if problem.limit is None else problem.limit * (1 + 1e-12) - problem.spent(first)

    def upgrades(index: int) -> list[_Upgrade]:
        name, group = problem.classes[index].name, problem.group(problem.classes[index])
        found = [_best(problem, index, levels[name], logits[name], source, group) for source in range(n_levels - 1)]
        return [upgrade for upgrade in found if upgrade is not None]

    queue = [upgrade for index in range(len(problem.classes)) for upgrade in upgrades(index)]
    heapq.heapify(queue)
    while queue:
        loss_per_cost, index, source, cost, chosen = heapq.heappop(queue)
        if cost > left or (problem.limit is None and loss_per_cost >= 0):
            continue
        left -= cost
        levels[problem.classes[index].name][list(chosen)] = source + 1
        queue = [upgrade for upgrade in queue if upgrade[1] != index] + upgrades(index)
        heapq.heapify(queue)
    if np.isfinite(left) and not problem.whole:
        _spend_rest(problem, logits, levels, left)
    return {name: tuple(map(int, of_class)) for name, of_class in levels.items()}


_Upgrade = tuple[float, int, int, float, tuple[int, ...]]


def _spend_rest(problem: Problem, logits: Logits, levels: dict[str, npt.NDArray[np.int64]], left: float) -> None:
    """Lift part of one more group, the best that ``left`` pays for, and that part as far as it pays; in place."""
    found = []
    for index, size in enumerate(problem.classes):
        costs = problem.channel_costs(size)
        for source in range(len(costs) - 1):
            price = costs[source + 1] - costs[source]
            count = int(left / price) if price else 0
            found.append(_best(problem, index, levels[size.name], logits[size.name], source, count))
    possible = [upgrade for upgrade in found if upgrade is not None]
    if possible:
        _, index, source, cost, chosen = min(possible)
        costs = problem.channel_costs(problem.classes[index])
        target, left = source + 1, left - cost
        while target + 1 < len(costs) and (more := len(chosen) * (costs[target + 1] - costs[target])) <= left:
            target, left = target + 1, left - more
        levels[problem.classes[index].name][list(chosen)] = target


def _best(
    problem: Problem,
    index: int,
    levels: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float64],
    source: int,
    count: int,
) -> _Upgrade | None:
    """The best upgrade of ``count`` channels from level ``source``: (-gain per cost, class, source, cost, channels)."""
    size: ClassSize = problem.classes[index]
    candidates = np.flatnonzero(levels == source)
    if not (len(candidates) and count):
        return None
    margin = logits[candidates, source + 1] - logits[candidates, source]
    order = np.argsort(-margin, kind="stable")[:count]
    chosen = tuple(int(c) for c in candidates[order])
    costs = problem.channel_costs(size)
    cost = len(chosen) * (costs[source + 1] - costs[source])
    gain = float(margin[order].sum())
    if not cost:  # levels that cost the same: only what is not unwanted is taken
        return (-np.inf, index, source, cost, chosen) if gain >= 0 else None
    return (-gain / cost, index, source, cost, chosen)
