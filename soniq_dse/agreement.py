"""Estimate and measurement side by side: where they part, the reason; where they cannot be compared, why not.

The only place where the two meet: neither is made with knowledge of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from soniq_dse.records.cost import Agreement, Estimate, Measurement


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
    if within:
        return f"within the predicted {interval}{unsettled}"
    side = "above" if measured > estimate.high_us else "below"
    return (
        f"measured {measured:.4g} us, {side} the predicted {interval}{_largest_gap(estimate, measurement)}{unsettled}"
    )


def _largest_gap(estimate: Estimate, measurement: Measurement) -> str:
    """The layer that carries most of the difference, where layers were timed one by one."""
    gaps = {
        layer.name: (measurement.per_layer_us[layer.name] - layer.latency_us, layer)
        for layer in estimate.per_layer
        if layer.name in measurement.per_layer_us
    }
    if not gaps:
        return f"; the bound that was predicted: {estimate.bound}"
    total = (measurement.median_us or 0.0) - estimate.latency_us
    sign = 1.0 if total > 0 else -1.0
    name = max(gaps, key=lambda layer: sign * gaps[layer][0])
    gap, layer = gaps[name]
    return (
        f"; most of it in {name} ({layer.op}, bound by {layer.bound}): "
        f"predicted {layer.latency_us:.4g} us, measured {layer.latency_us + gap:.4g} us"
    )


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
