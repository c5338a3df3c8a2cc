"""Levels whose real cost meets the budget, where the table of costs per channel is only nearly right."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from soniq_dse.qat.allocators import Base, Levels, Logits, Problem
from soniq_dse.qat.apply import QuantizedModel
from soniq_dse.records.design import Assignment

TRIES = 12
"""Allocations at most; each is a fraction of a second."""
CLOSE = 0.99
"""Of the budget: what is spent then needs no further try."""


def within_budget(
    quantized: QuantizedModel,
    allocator: Base,
    logits: Logits | None,
    cost_of: Callable[[Assignment], float] | None,
) -> Levels:
    """What ``allocator`` makes of the model's budget; where that is of costs, within what ``cost_of`` says of it."""
    problem = quantized.problem
    if not problem.classes:
        return {}  # all levels are pinned
    if problem.costs is None or cost_of is None:
        return allocator.allocate(problem, logits)
    return spend(
        problem, lambda moved: allocator.allocate(moved, logits), lambda levels: cost_of(quantized.assignment(levels))
    )


def spend(problem: Problem, allocate: Callable[[Problem], Levels], cost_of: Callable[[Levels], float]) -> Levels:
    """What ``allocate`` makes of the budget in ``problem.costs``, moved until the real cost is as near below as may be.

    Args:
        problem: with ``costs``.
        allocate: levels within the budget of the problem it is given.
        cost_of: what levels really cost, all that is fixed included.

    Where even the cheapest levels cost more than the budget, these are what is left.
    """
    costs = problem.costs
    assert costs is not None
    least = costs.fixed + math.fsum(c.channels * costs.per_channel[c.name][0] for c in problem.classes)
    most = costs.fixed + math.fsum(c.channels * costs.per_channel[c.name][-1] for c in problem.classes)
    best: Levels = {c.name: (0,) * c.channels for c in problem.classes}
    allowance = min(max(costs.budget, least), most)
    fits, exceeds = least, math.inf
    for _ in range(TRIES):
        levels = allocate(replace(problem, costs=costs.model_copy(update={"budget": allowance})))
        cost = cost_of(levels)
        if cost <= costs.budget:
            best, fits = levels, allowance
        else:
            exceeds = allowance
        if CLOSE * costs.budget <= cost <= costs.budget or fits == most:
            break
        step = allowance + costs.budget - cost
        allowance = step if fits < step < min(exceeds, most) else 0.5 * (fits + min(exceeds, most))
    return best
