"""Estimate and measurement side by side: where they part, the reason; where they cannot be compared, why not.

The only place where the two meet: neither is made with knowledge of the other.
"""

from __future__ import annotations

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
