"""The multiplier that makes the expected cost of a soft assignment meet its budget exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
ITERATIONS = 100
"""At most so many evaluations, every third a halving of the bracket; Newton steps end the search after about six."""
TOLERANCE = 1e-12
"""Of the expected bits, relative."""


def soft_shares(logits: Array, bits: Array, nu: float, temperature: float) -> Array:
    """``softmax((a - nu b) / tau)`` over levels: ``[channels, levels]``. Source: SONIQ, arXiv 2311.14114, phase 1."""
    scores = (logits - nu * bits) / temperature
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    shares: Array = scores / scores.sum(axis=1, keepdims=True)
    return shares


def solve_multiplier(logits: Array, bits: Array, weights: Array, budget_bits: float, temperature: float) -> float:
    """nu such that the expected bits per weight equal ``budget_bits``: bisection, sped up by Newton steps inside it.

    Args:
        logits: ``[channels, levels]``.
        bits: weight bits ``[levels]``.
        weights: weights that read each channel ``[channels]``.
        budget_bits: average to be met; clipped to what the levels can reach.
        temperature: of the softmax.

    The expectation falls strictly with nu wherever levels differ in bits (its slope is minus the variance of the bits
    over tau); where they do not, nu is 0.
    """
    gaps = np.diff(np.unique(bits))
    if not len(gaps) or not len(logits):
        return 0.0
    target = float(np.clip(budget_bits, bits.min(), bits.max()))
    share = weights / weights.sum()
    # Beyond this every channel sits at one end to within exp(-60).
    reach = float((logits.max() - logits.min() + 60 * temperature) / gaps.min())
    low, high, nu = -reach, reach, 0.0
    for iteration in range(1, ITERATIONS + 1):
        shares = soft_shares(logits, bits, nu, temperature)
        # Sums, not matrix products: BLAS may add in another order on another number of threads.
        mean = (shares * bits).sum(axis=1)
        excess = float((mean * share).sum()) - target
        if abs(excess) <= TOLERANCE * target:
            break
        low, high = (nu, high) if excess > 0 else (low, nu)
        slope = float((((shares * bits**2).sum(axis=1) - mean**2) * share).sum()) / temperature
        newton = nu + excess / slope if slope > 0 else reach
        nu = newton if iteration % 3 and low < newton < high else 0.5 * (low + high)
    return nu
