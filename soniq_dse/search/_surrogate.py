"""What the metric of every design is expected to be, from priors and the results so far: a Gaussian process.

The mean is a line in the metric of the rounded warm start; deviations are shared by designs of like size and bits
(Rasmussen and Williams, "Gaussian processes for machine learning", 2006, chapter 2). With the handful of results that
a search affords, scales are set by rules, not fitted; the overall one follows the results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from soniq_dse.records.design import Candidate
from soniq_dse.search import Prior

Array = NDArray[np.float64]

SLOPE = 0.15
"""Of what rounding takes from the metric, the part that training does not give back, at first."""
SPREAD = 0.06
"""Standard deviation of what the line misses, as a part of that of the rounded metrics, at first."""
NOISE = 0.67
"""Of a training, as a part of ``SPREAD``'s deviation: 0.49 points over three seeds of 59 designs of digits."""
LENGTH = 0.5
"""Distance over which designs are alike; features run from 0 to 1."""


class Surrogate:
    """Metrics are costs here, in the metric's unit: smaller is better."""

    def __init__(self, candidates: Sequence[Candidate], priors: Sequence[Prior], sign: float) -> None:
        rounded = np.array([math.nan if p.metric is None else sign * p.metric for p in priors])
        known = rounded[~np.isnan(rounded)]
        worst = float(known.max()) if known.size else 0.0
        self.lost = np.nan_to_num(rounded, nan=worst) - (float(known.min()) if known.size else 0.0)
        self.best = float(known.min()) if known.size else 0.0
        self.unit = float(self.lost.std()) or 1.0
        features = np.array([_features(c, p) for c, p in zip(candidates, priors, strict=True)])
        sizes = _sizes(candidates, priors)
        rank = np.argsort(np.argsort(self.lost, kind="stable"), kind="stable")
        columns = np.column_stack([features, sizes, rank])
        span = columns.max(axis=0) - columns.min(axis=0)
        self.features = (columns - columns.min(axis=0)) / np.where(span > 0, span, 1.0)
        apart = ((self.features[:, None] - self.features[None]) ** 2).sum(axis=-1)
        line = self.lost / self.unit
        self._kernel = np.exp(-apart / (2 * LENGTH**2)) + 1.0 + np.outer(line, line)

    def posterior(self, seen: Mapping[int, float]) -> tuple[Array, Array]:
        """(mean ``[n]``, covariance ``[n, n]``) of the metric, given results by position."""
        mean = self.best + SLOPE * self.lost
        scale = SPREAD * self.unit
        if not seen:
            return mean, scale**2 * self._kernel
        at = np.array(sorted(seen))
        found = np.array([seen[i] for i in at]) - mean[at]
        inner = self._kernel[np.ix_(at, at)] + NOISE**2 * np.eye(at.size)
        solved = np.linalg.solve(inner, np.column_stack([found, self._kernel[at]]))
        # A prior worth two results keeps the scale from collapsing on the first few.
        scale *= math.sqrt((2 + found @ solved[:, 0] / scale**2) / (2 + at.size))
        cross = self._kernel[:, at]
        return mean + cross @ solved[:, 0], scale**2 * (self._kernel - cross @ solved[:, 1:])


def _features(candidate: Candidate, prior: Prior) -> tuple[float, float]:
    """Logarithms of the mean weight and activation bits."""
    levels = candidate.palette.levels
    low, high = levels[0], levels[-1]
    bits = prior.bits_per_weight or candidate.budget_bits or high.weight_bits
    share = (bits - low.weight_bits) / (high.weight_bits - low.weight_bits) if high.weight_bits > low.weight_bits else 1
    activation = low.activation_bits + share * (high.activation_bits - low.activation_bits)
    return math.log2(bits), math.log2(activation)


def _sizes(candidates: Sequence[Candidate], priors: Sequence[Prior]) -> Array:
    """Logarithm of the mean latency of a candidate's model."""
    groups: dict[str, list[float]] = {}
    for candidate, prior in zip(candidates, priors, strict=True):
        groups.setdefault(candidate.model, []).append(prior.latency_us or 1.0)
    return np.array([math.log(sum(groups[c.model]) / len(groups[c.model])) for c in candidates])
