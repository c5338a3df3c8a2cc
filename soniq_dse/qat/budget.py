"""The multiplier that makes the expected cost of a soft assignment meet its budget exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
ITERATIONS = 60
"""Halvings of the bracket: to the last bits of a double."""


def soft_shares(logits: Array, bits: Array, nu: float, temperature: float) -> Array:
    """``softmax((a - nu b) / tau)`` over levels: ``[channels, levels]``. Source: SONIQ, arXiv 2311.14114, phase 1."""
    scores = (logits - nu * bits) / temperature
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    shares: Array = scores / scores.sum(axis=1, keepdims=True)
    return shares


def solve_multiplier(logits: Array, bits: Array, weights: Array, budget_bits: float, temperature: float) -> float:
    """nu such that the expected bits per weight equal ``budget_bits``, by bisection.

    Args:
        logits: ``[channels, levels]``.
        bits: weight bits ``[levels]``.
        weights: weights that read each channel ``[channels]``.
        budget_bits: average to be met; clipped to what the levels can reach.
        temperature: of the softmax.

    The expectation falls strictly with nu wherever levels differ in bits; where they do not, nu is 0.
    """
    gaps = np.diff(np.unique(bits))
    if not len(gaps) or not len(logits):
        return 0.0
    target = float(np.clip(budget_bits, bits.min(), bits.max())) * weights.sum()
    # Beyond this every channel sits at one end to within exp(-60).
    reach = float((logits.max() - logits.min() + 60 * temperature) / gaps.min())
    low, high = -reach, reach
    cost = weights[:, None] * bits
    for _ in range(ITERATIONS):
        middle = 0.5 * (low + high)
        if float((soft_shares(logits, bits, middle, temperature) * cost).sum()) > target:
            low = middle
        else:
            high = middle
    return high
