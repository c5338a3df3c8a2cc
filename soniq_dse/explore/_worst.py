"""The pipeline behind the layers whose prediction is farthest off."""

from __future__ import annotations

from collections.abc import Sequence

from soniq_dse.cost.timeline import timeline
from soniq_dse.records.cost import Timeline
from soniq_dse.records.gpu import GpuModel, Machine
from soniq_dse.report.points import Evaluation

TIMELINES = 3


def worst_timelines(machine: Machine, evaluations: Sequence[Evaluation]) -> tuple[Timeline, ...]:
    """Loops of the kernels that run the layers whose predicted and measured microseconds lie farthest apart."""
    if isinstance(machine, GpuModel):
        return ()
    off: dict[str, float] = {}
    for one in evaluations:
        measured = one.measurement.per_layer_us if one.measurement else {}
        for layer in one.estimate.per_layer if one.estimate else ():
            if layer.name in measured and layer.kernels:
                apart = abs(layer.latency_us - measured[layer.name])
                off[layer.kernels[0]] = max(apart, off.get(layer.kernels[0], 0.0))
    symbols = sorted(off, key=lambda symbol: -off[symbol])
    found = (timeline(symbol, machine) for symbol in symbols)
    return tuple(one for one in found if one is not None)[:TIMELINES]
