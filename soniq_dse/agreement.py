"""Estimate and measurement side by side: where they part, the reason; where they cannot be compared, why not.

The only place where the two meet: neither is made with knowledge of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from soniq_dse.records.cost import Agreement, Estimate, LayerEstimate, Measurement

TOLERATED = 0.10
"""Relative error beyond which a reason says what the prediction is least sure of."""
SHORT_US = 5.0
"""Below this, what a call and its tiles cost besides their loops is of the order of the layer itself."""
MOSTLY = 0.4
"""Share of a layer's cycles around its kernels from which on these are its likely weak spot."""


def agree(estimate: Estimate | None, measurement: Measurement | None, *, host_mismatch: str | None = None) -> Agreement:
    """Predicted over measured latency, and whether the measurement lies in the predicted interval.

    Args:
        estimate: the prediction; None where the network could not be predicted.
        measurement: of the same network; None where none was tried.
        host_mismatch: why the processor that measured is not the one the descriptor speaks of; None where it is.

    Left out (``ratio`` None, with the reason) are pairs that do not speak of the same thing: another processor, batch
    or number of threads.
    """
    left_out = _left_out(estimate, measurement, host_mismatch)
    if left_out is not None:
        return Agreement(ratio=None, within=None, reason=f"left out: {left_out}")
    assert estimate is not None  # _left_out has seen to it
    assert measurement is not None
    measured = measurement.median_us or 0.0
    within = estimate.low_us <= measured <= estimate.high_us
    return Agreement(ratio=estimate.latency_us / measured, within=within, reason=_reason(estimate, measurement, within))


def _left_out(estimate: Estimate | None, measurement: Measurement | None, host_mismatch: str | None) -> str | None:
    if estimate is None:
        return "not predicted"
    if measurement is None:
        return "not measured"
    if measurement.skipped is not None:
        return measurement.skipped
    if host_mismatch is not None:
        return host_mismatch
    for field in ("batch", "threads"):
        predicted, measured = getattr(estimate, field), getattr(measurement, field)
        if predicted != measured:
            return f"predicted for {field} {predicted}, measured at {field} {measured}"
    return None if measurement.median_us else "the measured time is 0"


def _reason(estimate: Estimate, measurement: Measurement, within: bool) -> str:
    unsettled = "" if measurement.settled else "; the measurement did not settle, the machine was busy"
    measured = measurement.median_us or 0.0
    interval = f"{estimate.low_us:.4g}..{estimate.high_us:.4g} us"
    off = abs(estimate.latency_us / measured - 1) > TOLERATED
    gap, layer = _largest_gap(estimate, measurement)
    why = f"; likely since {likely_cause(layer)}" if off and layer is not None else ""
    if within:
        return f"within the predicted {interval}{why}{unsettled}"
    side = "above" if measured > estimate.high_us else "below"
    return f"measured {measured:.4g} us, {side} the predicted {interval}{gap}{why}{unsettled}"


def likely_cause(layer: LayerEstimate) -> str:
    """What of a layer's prediction is least sure, in words: by its size, by what bounds it, by what priced it."""
    terms = {term.name: term.cycles for term in layer.terms}
    around = sum(terms.get(name, 0.0) for name in ("packing", "epilogue", "overhead")) / max(layer.cycles, 1e-9)
    if layer.latency_us < SHORT_US:
        return (
            f"it is predicted at {layer.latency_us:.2g} us: calls, starts of tiles and branches that a short loop "
            "mispredicts weigh most, of which constants are priced"
        )
    if layer.bound in ("l2", "l3", "dram"):
        return (
            f"its weights come from {layer.bound.upper()}, whose share of the bandwidth depends on what else the "
            "machine does"
        )
    if around > MOSTLY:
        return (
            f"{around:.0%} of it are packing, epilogue and pointers: plain loops, priced by counting the operations of "
            "their source"
        )
    if "recipe" in layer.note:
        return "its kernel is priced by a recipe of instructions, not by a compiled loop"
    return (
        "its loop is priced between the best and the even use of ports, and what a tile does besides its loop by "
        "counted instructions"
    )


def _largest_gap(estimate: Estimate, measurement: Measurement) -> tuple[str, LayerEstimate | None]:
    """The layer with most of the difference, in words too; the largest one where layers were not timed one by one."""
    gaps = {
        layer.name: (measurement.per_layer_us[layer.name] - layer.latency_us, layer)
        for layer in estimate.per_layer
        if layer.name in measurement.per_layer_us
    }
    if not gaps:
        largest = max(estimate.per_layer, key=lambda layer: layer.cycles, default=None)
        return f"; the bound that was predicted: {estimate.bound}", largest
    total = (measurement.median_us or 0.0) - estimate.latency_us
    sign = 1.0 if total > 0 else -1.0
    name = max(gaps, key=lambda layer: sign * gaps[layer][0])
    gap, layer = gaps[name]
    text = (
        f"; most of it in {name} ({layer.op}, bound by {layer.bound}): "
        f"predicted {layer.latency_us:.4g} us, measured {layer.latency_us + gap:.4g} us"
    )
    return text, layer


class Pair(NamedTuple):
    """A prediction and the measurement of the same thing, in the same unit."""

    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """``predicted / measured - 1``: above 0 where the prediction is too slow."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Score:
    """Relative errors of ``n`` predictions in per cent (mean, median, 95th percentile and largest of their absolute
    values; ``bias_percent`` is the median with its sign), and Kendall's tau of their order (None below two)."""

    n: int
    mape_percent: float | None
    median_percent: float | None
    p95_percent: float | None
    worst_percent: float | None
    bias_percent: float | None
    tau: float | None


def score(pairs: Sequence[Pair], rates: Sequence[Pair] | None = None) -> Score:
    """How well ``pairs`` agree; the order is that of ``rates`` (cycles per multiply-accumulate), where given."""
    if not pairs:
        return Score(0, None, None, None, None, None, None)
    signed = np.array([100 * pair.error for pair in pairs])
    errors = np.abs(signed)
    return Score(
        n=len(pairs),
        mape_percent=float(errors.mean()),
        median_percent=float(np.median(errors)),
        p95_percent=float(np.percentile(errors, 95)),
        worst_percent=float(errors.max()),
        bias_percent=float(np.median(signed)),
        tau=kendall_tau(rates or pairs),
    )


def kendall_tau(pairs: Sequence[Pair]) -> float | None:
    """Kendall's tau-b between predicted and measured order; None below two pairs, or where all are equal."""
    from scipy.stats import kendalltau

    if len(pairs) < 2:
        return None
    tau = float(kendalltau([p.predicted for p in pairs], [p.measured for p in pairs]).statistic)
    return None if math.isnan(tau) else tau


def regret(choices: Iterable[Sequence[Pair]]) -> list[float]:
    """Per choice between two or more: what taking the best predicted costs over the best measured, in per cent."""
    return [
        100 * (min(options, key=lambda pair: pair.predicted).measured / min(pair.measured for pair in options) - 1)
        for options in choices
        if len(options) > 1
    ]


def coverage_p_value(inside: int, n: int, nominal: float = 0.9) -> float:
    """How likely a coverage at least as far from ``nominal`` is by chance (exact two-sided binomial test)."""
    from scipy.stats import binomtest

    return float(binomtest(inside, n, nominal).pvalue)
