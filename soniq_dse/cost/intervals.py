"""Split-conformal intervals: how far measurements lay from predictions on this machine says how far the next may.

Residuals are ``ln(measured / predicted)`` of what was predicted and then measured, and no model was fitted to. For any
of their distributions, the next one lies between their ranks ``(n + 1) a / 2`` and ``(n + 1) (1 - a / 2)`` with
probability 1 - a or more, as long as it is of their kind (Lei et al., "Distribution-free predictive inference for
regression", JASA 2018, theorem 2.2, with a tail on either side). The kind is the regime: what the prediction itself
says bounds it. Regimes with few residuals are pooled with all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from soniq_dse.records.cost import Bound

NOMINAL = 0.90
FEWEST = 39
"""Residuals that a regime needs for an interval of its own: the least whose 5 % tails are not its extremes."""


class Factors(NamedTuple):
    """An interval relative to its prediction: ``low <= 1 <= high``."""

    low: float
    high: float


def regime_of(bound: Bound) -> str:
    """``memory`` behind the nearest cache, ``overhead``, else ``core``."""
    if bound in ("l2", "l3", "dram"):
        return "memory"
    return "overhead" if bound == "overhead" else "core"


class Intervals:
    """Intervals from residuals per regime (of any names)."""

    def __init__(self, residuals: Mapping[str, Sequence[float]]) -> None:
        self.n = sum(map(len, residuals.values()))
        self._own = {regime: conformal(found) for regime, found in residuals.items() if len(found) >= FEWEST}
        self._pooled = conformal([residual for found in residuals.values() for residual in found])

    def factors(self, regime: str) -> Factors | None:
        """The interval of a regime; None where there are too few residuals for any."""
        return self._own.get(regime) or self._pooled


def conformal(residuals: Sequence[float], nominal: float = NOMINAL) -> Factors | None:
    """The interval that ``residuals`` give; None where they are too few for ``nominal`` (19 for 90 %).

    It is widened to hold the prediction itself, which can only cover more.
    """
    ordered, tail = sorted(residuals), (1 - nominal) / 2
    rank = math.floor((len(ordered) + 1) * tail + 1e-9)
    if rank < 1:
        return None
    return Factors(min(1.0, math.exp(ordered[rank - 1])), max(1.0, math.exp(ordered[-rank])))
