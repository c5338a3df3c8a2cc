"""The default: an integer program over the rounded warm starts says where to begin, a surrogate of the metric says what
to train next."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from soniq_dse.records.design import Candidate
from soniq_dse.search import Prior, Space
from soniq_dse.search._surrogate import Surrogate
from soniq_dse.search.proxy_milp import ProxyMilp

Array = NDArray[np.float64]
FIRST = 3
"""Designs that the integer program chooses."""
DRAWS = 64
"""Of the metrics of all designs, over which a gain is averaged."""


class Combined(ProxyMilp):
    """``ProxyMilp``'s first batch, then expected hypervolume improvement (Emmerich, Giannakoglou and Naujoks, 2006)
    over draws from the surrogate.

    A trained design counts as the surrogate draws it, which the luck of one training moves less than its result.
    Latencies are those of the priors.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        candidates = self.space.candidates
        priors = self.space.priors or (Prior(),) * len(candidates)
        self._sign = -1.0 if space.direction == "max" else 1.0
        self._latency = np.array([prior.latency_us or 1.0 for prior in priors])
        self._surrogate = Surrogate(candidates, priors, self._sign) if candidates else None
        self._normals = np.random.default_rng(space.seed).standard_normal((DRAWS, len(candidates)))

    def propose(self) -> Sequence[Candidate]:
        """The integer program's at first, then those that are expected to add most."""
        if self._surrogate is None:
            return []
        if not self.results and (first := super().propose()):
            return first[:FIRST]
        open_ = [i for i, candidate in enumerate(self.space.candidates) if self.is_new(candidate)]
        if not open_:
            return []
        seen = self._seen()
        mean, covariance = self._surrogate.posterior(seen)
        jitter = 1e-9 * np.trace(covariance) * np.eye(mean.size)
        draws = mean + self._normals @ np.linalg.cholesky(covariance + jitter).T
        gains = expected_gains(draws, self._latency, seen, (float(mean.max()), float(self._latency.max())))
        return [self.space.candidates[max(open_, key=lambda i: (gains[i], -mean[i], -i))]]

    def _seen(self) -> dict[int, float]:
        """Metrics as costs, by position."""
        found = [self.results.get(candidate) for candidate in self.space.candidates]
        return {
            i: self._sign * result.metric_val
            for i, result in enumerate(found)
            if result is not None and result.metric_val is not None
        }


def expected_gains(draws: Array, latency: Array, seen: Collection[int], reference: tuple[float, float]) -> Array:
    """Mean over ``draws`` ``[draws, n]`` of the area that each design adds to that of the ``seen`` ones, ``[n]``.

    Both come from the same draw: what moves a design and its likes together adds nothing.
    """
    order = sorted(seen, key=lambda i: latency[i])
    edges = np.array([latency[i] for i in order] + [reference[1]])
    left = np.concatenate([[-np.inf], edges[:-1]])
    worst = np.full((len(draws), 1), reference[0])
    floors = np.minimum.accumulate(np.hstack([worst, draws[:, order]]), axis=1)
    gains = np.zeros(draws.shape[1])
    for floor, start, stop in zip(floors.T, left, edges, strict=True):
        width = np.maximum(stop - np.maximum(latency, start), 0.0)
        gains += width * np.maximum(floor[:, None] - draws, 0.0).mean(axis=0)
    return gains
