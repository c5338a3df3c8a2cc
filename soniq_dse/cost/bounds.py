"""Fastest and slowest latency over all assignments that meet a budget, before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from soniq_dse.records.cost import Estimate
from soniq_dse.records.design import Assignment
from soniq_dse.records.palette import Level, Palette
from soniq_dse.records.workload import TensorClass, Workload


@dataclass(frozen=True)
class LatencyBounds:
    """Latency in microseconds: no assignment within the budget is faster than ``low_us`` or slower than ``high_us``."""

    low_us: float
    high_us: float


def uniform_assignment(workload: Workload, level: Level) -> Assignment:
    """Every channel at ``level``; pinned classes at their own bits."""
    palette = Palette(levels=(level,), source="uniform")
    pinned = {
        c.name: Palette(levels=(c.pinned_level,), source="pinned")
        for c in workload.tensor_classes
        if c.pinned_level is not None
    }
    weights = {c.name: _n_weights(workload, c) for c in workload.tensor_classes}
    bits = {name: pinned[name].levels[0].weight_bits if name in pinned else level.weight_bits for name in weights}
    total = sum(weights.values())
    return Assignment(
        palette=palette,
        level_of_channel={c.name: (0,) * c.channels for c in workload.tensor_classes},
        pinned=pinned,
        bits_per_weight=level.weight_bits,
        bits_per_weight_all=sum(weights[name] * bits[name] for name in weights) / total if total else 0.0,
    )


def even_assignment(workload: Workload, palette: Palette) -> Assignment:
    """Each level of ``palette`` on an equal part of every class's channels; pinned classes at their own bits."""
    uniform = uniform_assignment(workload, palette.levels[0])
    n_levels = len(palette.levels)
    of_channel = {
        c.name: (0,) * c.channels
        if c.name in uniform.pinned
        else tuple(sorted(channel * n_levels // c.channels for channel in range(c.channels)))
        for c in workload.tensor_classes
    }
    mean = sum(level.weight_bits for level in palette.levels) / n_levels
    return uniform.model_copy(update={"palette": palette, "level_of_channel": of_channel, "bits_per_weight": mean})


def latency_bounds(
    workload: Workload, uniform: Mapping[Level, Estimate], palette: Palette, budget_bits: float | None
) -> LatencyBounds:
    """Bounds for ``palette`` within ``budget_bits`` (average weight bits over the classes that are not pinned).

    ``uniform`` holds the estimate of the whole network at every level of the palette. A mixed layer is a sum of uniform
    segments, so a share x of a class's channels at a level costs x of what its consumers cost at that level, and the
    fastest and the slowest shares are two small linear programs. What every segment costs whatever its share (call,
    epilogue) is added to the slowest. Operators that no class decides count at their cheapest and their dearest.
    """
    classes = [c for c in workload.tensor_classes if c.pinned_bits is None and c.consumers]
    estimates = [uniform[level] for level in palette.levels]
    consumers = {name for c in classes for name in c.consumers}
    rest = [sum(layer.latency_us for layer in e.per_layer if layer.name not in consumers) for e in estimates]
    low, high = min(rest), max(rest)
    if classes:
        cost = np.array([[_latency_us(e, c) for e in estimates] for c in classes])
        spent = np.array([[_n_weights(workload, c) * level.weight_bits for level in palette.levels] for c in classes])
        limit = np.inf if budget_bits is None else budget_bits * sum(_n_weights(workload, c) for c in classes)
        low += _least(cost, spent, limit)
        high -= _least(-cost, spent, limit)
        if len(estimates) > 1:
            high += sum(_fixed_us(e, consumers) for e in estimates)
    return LatencyBounds(low, high)


def _least(cost: np.ndarray, spent: np.ndarray, limit: float) -> float:
    """``min sum(x * cost)``: shares x ``[classes, levels]``, rows that sum to 1, ``sum(x * spent) <= limit``."""
    from scipy.optimize import linprog

    n_classes, n_levels = cost.shape
    rows = np.kron(np.eye(n_classes), np.ones(n_levels))
    # A budget below the narrowest level is met by that level: the allocator refuses it with a better message.
    reachable = max(limit, float(spent.min(axis=1).sum()))
    bound = {} if np.isinf(reachable) else {"A_ub": spent.reshape(1, -1), "b_ub": [reachable * (1 + 1e-12)]}
    found = linprog(cost.ravel(), A_eq=rows, b_eq=np.ones(n_classes), bounds=(0, 1), method="highs", **bound)
    return float(found.fun)


def _latency_us(estimate: Estimate, tensor_class: TensorClass) -> float:
    return sum(layer.latency_us for layer in estimate.per_layer if layer.name in tensor_class.consumers)


def _fixed_us(estimate: Estimate, consumers: Collection[str]) -> float:
    """What the consumers' segments cost besides their loops."""
    layers = [layer for layer in estimate.per_layer if layer.name in consumers]
    fixed = sum(t.cycles for layer in layers for t in layer.terms if t.name in ("packing", "epilogue", "overhead"))
    return fixed * estimate.latency_us / estimate.cycles if estimate.cycles else 0.0


def _n_weights(workload: Workload, tensor_class: TensorClass) -> int:
    layers = (workload.node(name).layer for name in tensor_class.consumers)
    return sum(layer.n_weights for layer in layers if layer is not None)
