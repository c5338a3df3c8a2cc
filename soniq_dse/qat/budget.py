"""The multiplier that makes the expected cost of a soft assignment meet its budget exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
ITERATIONS = 100
"""At most so many evaluations, every third a halving of the bracket; Newton steps end the search after about six."""
TOLERANCE = 1e-12
"""Of the expected cost, relative."""
SAME = 1e-9
"""Costs that differ by less than this part of the largest count as equal."""


def soft_shares(logits: Array, costs: Array, nu: float, temperature: float) -> Array:
    """``softmax((a - nu b) / tau)`` over levels, b their costs: ``[channels, levels]``.

    Source: SONIQ, arXiv 2311.14114, phase 1.
    """
    scores = (logits - nu * costs) / temperature
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    shares: Array = scores / scores.sum(axis=1, keepdims=True)
    return shares


def solve_multiplier(logits: Array, costs: Array, weights: Array, budget: float, temperature: float) -> float:
    """nu such that the expected cost per weight equals ``budget``: bisection, sped up by Newton steps inside it.

    Args:
        logits: ``[channels, levels]``.
        costs: per weight, of each level ``[levels]`` (its bits), or of each channel too ``[channels, levels]``.
        weights: weights that read each channel ``[channels]``.
        budget: average to be met; clipped to what the levels can reach.
        temperature: of the softmax.

    The expectation falls strictly with nu wherever levels differ in cost (its slope is minus the variance of the costs
    over tau); where they do not, nu is 0.
    """
    if not len(logits):
        return 0.0
    costs = np.broadcast_to(costs, logits.shape)
    gaps = np.diff(np.sort(costs, axis=1), axis=1)
    gaps = gaps[gaps > SAME * costs.max()]
    if not len(gaps):
        return 0.0
    share = weights / weights.sum()
    least, most = float((costs.min(axis=1) * share).sum()), float((costs.max(axis=1) * share).sum())
    target = float(np.clip(budget, least, most))
    # Beyond this every channel sits at one end to within exp(-60).
    reach = float((logits.max() - logits.min() + 60 * temperature) / gaps.min())
    low, high, nu = -reach, reach, 0.0
    for iteration in range(1, ITERATIONS + 1):
        shares = soft_shares(logits, costs, nu, temperature)
        # Sums, not matrix products: BLAS may add in another order on another number of threads.
        mean = (shares * costs).sum(axis=1)
        excess = float((mean * share).sum()) - target
        if abs(excess) <= TOLERANCE * target:
            break
        low, high = (nu, high) if excess > 0 else (low, nu)
        slope = float((((shares * costs**2).sum(axis=1) - mean**2) * share).sum()) / temperature
        newton = nu + excess / slope if slope > 0 else reach
        nu = newton if iteration % 3 and low < newton < high else 0.5 * (low + high)
    return nu
