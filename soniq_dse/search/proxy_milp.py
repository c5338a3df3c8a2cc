"""Designs along the front of a proxy, chosen by an integer program; nothing is learned from what they turn out to be.

The proxy is the metric of the FP32 warm start rounded as a design is, and its predicted latency. Which few designs
cover most of its hypervolume is a maximum coverage problem (hypervolume subset selection: Bringmann, Friedrich and
Klitzke, "Two-dimensional subset selection for hypervolume and epsilon-indicator", 2014; here as an integer program, in
the spirit of Yao et al., "HAWQ-V3", 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soniq_dse.records.design import Candidate
from soniq_dse.search import Base, Space

BATCH = 4
"""Designs per program."""


class ProxyMilp(Base):
    """Batches of ``BATCH`` designs that add most to the proxy's hypervolume over those asked for; at last the rest, in
    the order of the proxy."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._costs = {c: costs for c in self.space.candidates if (costs := self._costs_of(c)) is not None}

    def propose(self) -> Sequence[Candidate]:
        """The next program's choice."""
        asked = [c for c in self._costs if not self.is_new(c)]
        rest = [c for c in self._costs if self.is_new(c)]
        if not rest:
            return [c for c in self.space.candidates if self.is_new(c)]
        chosen = choose(np.array([self._costs[c] for c in asked + rest]), len(asked), BATCH)
        return [rest[i] for i in chosen] or sorted(rest, key=lambda c: self._costs[c])

    def _costs_of(self, candidate: Candidate) -> tuple[float, float] | None:
        prior = self.prior(candidate)
        if prior.metric is None or prior.latency_us is None:
            return None
        return (-prior.metric if self.space.direction == "max" else prior.metric), prior.latency_us


def choose(costs: np.ndarray, n_fixed: int, n_more: int) -> list[int]:
    """Which ``n_more`` rows of ``costs`` ``[n, 2]``, the first ``n_fixed`` apart, cover most area with those.

    The area is what the points dominate of the box up to the worst of both costs. Indices count from ``n_fixed`` on,
    in the order of what each adds; those that add nothing are left out.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, hstack, identity

    n = len(costs)
    columns, rows = np.unique(costs[:, 0]), np.unique(costs[:, 1])
    area = np.outer(np.diff(columns), np.diff(rows)).ravel()
    covers = (columns[:-1] >= costs[:, :1])[:, :, None] & (rows[:-1] >= costs[:, 1:])[:, None, :]
    covers = covers.reshape(n, -1)
    free = ~covers[:n_fixed].any(axis=0)
    area, covers = area[free], covers[:, free]
    if not area.size:
        return []
    matrix = hstack([identity(area.size), csr_array(-covers[n_fixed:].T.astype(float))])
    counted = np.concatenate([np.zeros(area.size), np.ones(n - n_fixed)])
    found = milp(
        c=np.concatenate([-area, np.full(n - n_fixed, 1e-9 * area.sum())]),
        constraints=[LinearConstraint(matrix, ub=0), LinearConstraint(counted.reshape(1, -1), ub=n_more)],
        bounds=Bounds(0, 1),
        integrality=np.concatenate([np.zeros(area.size), np.ones(n - n_fixed)]),
    )
    taken = [i for i in range(n - n_fixed) if found.x[area.size + i] > 0.5]
    alone = covers[n_fixed:] @ area
    return sorted(taken, key=lambda i: (-alone[i], i))
