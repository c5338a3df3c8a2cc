"""Latency of a network on a GPU, launch by launch (``gpu_kernels``), as ``runtime/gpu_network.py`` runs it.

Weights of the run before are still in the cache where those of the whole network fit. A layer is one launch of the
layer kernel, with the sum and the ReLU behind it; it writes the codes of the next one, and only what no layer writes is
packed by a pass. Nothing is fitted. The interval rests on layers measured on such a GPU where they are kept, else it is
half to twice. Not modelled: bank conflicts, clocks under load.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

from soniq_dse.cost.gpu_kernels import GpuCost, float_cost, kernel_cost, padded_k, pass_cost
from soniq_dse.cost.graph import MatmulLayer, at_batch, is_free, segments_of
from soniq_dse.cost.intervals import NOMINAL, Intervals, are_current, read_kept, regime_of
from soniq_dse.errors import UserError
from soniq_dse.hardware.gpus import gpu_levels
from soniq_dse.kernels.gpu_catalog import gpu_layer_kernel_for, part_for
from soniq_dse.records.cost import CostTerm, Estimate, LayerEstimate
from soniq_dse.records.design import Assignment
from soniq_dse.records.gpu import GpuKernel, GpuModel
from soniq_dse.records.palette import Level, LevelCost
from soniq_dse.records.workload import Node, Segment, Workload

FACTOR = 2.0
"""From half to twice: what is said of the error of a model that nothing was held against."""
_ABSORBED = frozenset({"input", "flatten", "batch_norm", "relu"})
"""Done by the kernel before or after."""
_IN_EPILOGUE = frozenset({"batch_norm", "relu", "add"})
_INTERVALS: dict[tuple[str, str], Intervals | None] = {}
"""By descriptor and folder: what its kept measurements give."""


def gpu_estimate(
    gpu: GpuModel, workload: Workload, assignment: Assignment | None = None, *, batch: int = 1, threads: int = 1
) -> Estimate:
    """Predicted latency of ``workload`` on ``gpu``; without an assignment in 16-bit floats, as a library does it.

    Raises:
        UserError: threads other than 1, batch below 1, or a level that the GPU does not compute.
    """
    if batch < 1 or threads != 1:
        raise UserError(f"batch, threads: expected 1 or more, and 1 on a GPU, got {batch} and {threads}")
    cached = _weight_bytes(workload, assignment) <= gpu.l2.size_bytes.value
    packed: set[str] = set()
    made_by_layers = _made_by_layers(workload)
    layers = []
    for node in workload.nodes:
        if node.layer is not None:
            segments = segments_of(workload, node, assignment)
            written = node.inputs[0] in made_by_layers and node.layer.n_groups == 1
            pack = segments is not None and not written and node.inputs[0] not in packed
            packed |= {node.inputs[0]} if pack else set()
            layers.append(_layer(gpu, workload, node, segments, batch, cached=cached, pack=pack))
        elif node.op not in _ABSORBED and node.name not in made_by_layers:
            elements = prod(node.shape) + sum(prod(workload.node(name).shape) for name in node.inputs)
            cost = pass_cost(gpu, node.op, 4.0 * elements * batch / workload.input_shape[0])
            layers.append(_estimate_of(gpu, node.name, node.op, [], [cost], 0, "one pass over its operands"))
    return _summed(gpu, layers, batch)


def gpu_layer_estimate(gpu: GpuModel, layer: MatmulLayer) -> Estimate:
    """One layer by itself: codes in, floats out, its weights in the cache. Without segments in 16-bit floats.

    Raises:
        UserError: a level that the GPU does not compute.
    """
    return _summed(gpu, [_lone_layer(gpu, layer)], 1)


def _lone_layer(gpu: GpuModel, layer: MatmulLayer) -> LayerEstimate:
    cols, groups = layer.out_channels // layer.n_groups, layer.n_groups
    if layer.segments:
        costs = _in_one_launch(gpu, layer, layer.segments, cached=True)
    else:
        costs = [float_cost(gpu, layer.rows, cols, layer.segment_channels * layer.taps, groups=groups, cached=True)]
    return _estimate_of(gpu, layer.name, layer.op, costs, [], layer.macs, "")


def _made_by_layers(workload: Workload) -> set[str]:
    """Tensors that a layer's launch gives, with what its epilogue takes along: a sum whose other side is there."""
    readers = Counter(name for node in workload.nodes for name in node.inputs)
    found: set[str] = set()
    for node in workload.nodes:
        alone = [name for name in node.inputs if name in found and readers[name] == 1]
        if node.layer is not None or (alone and node.op in _IN_EPILOGUE):
            found.add(node.name)
    return found


def gpu_level_costs(gpu: GpuModel, workload: Workload, *, batch: int = 1, threads: int = 1) -> tuple[LevelCost, ...]:
    """What each native level of ``gpu`` costs over all layers whose input a palette may decide, narrowest first.

    Raises:
        UserError: as ``gpu_estimate``.
    """
    if batch < 1 or threads != 1:
        raise UserError(f"batch, threads: expected 1 or more, and 1 on a GPU, got {batch} and {threads}")
    layers = [
        at_batch(n.layer, workload, batch) for n in workload.nodes if n.layer is not None and is_free(workload, n)
    ]
    found = []
    for level in dict.fromkeys(native.level for native in gpu_levels(gpu)):
        costs = [_segment_cost(gpu, layer, level, layer.segment_channels, cached=True) for layer in layers]
        cycles, macs = sum(cost.cycles for cost in costs), sum(layer.macs for layer in layers)
        native = next(native for native in gpu_levels(gpu) if native.level == level)
        kernels = Counter(cost.kernel for cost in costs)
        launched = sum(cost.launch + cost.first_access for cost in costs)
        reason = (
            f"{macs / cycles:.3g} MAC/cycle over the network; {100 * launched / cycles:.0f} % of it launches and first "
            "accesses; model only, not measured"
            if costs
            else native.reason
        )
        found.append(
            LevelCost(
                level=level,
                cycles=cycles,
                cycles_per_mac=cycles / macs if macs else 1.0 / native.macs_per_cycle,
                kernel=kernels.most_common(1)[0][0] if kernels else native.recipe,
                reason=reason,
            )
        )
    return tuple(found)


def _segment_cost(gpu: GpuModel, layer: MatmulLayer, level: Level, channels: int, *, cached: bool) -> GpuCost:
    """The layer kernel's part for ``channels`` input channels of each group."""
    native = level in [native.level for native in gpu_levels(gpu)]
    part, k = part_for(gpu_layer_kernel_for(gpu), level) if native else None, layer.taps * max(1, channels)
    if part is None or padded_k(part, k, layer.taps) > part.k_max:
        known = ", ".join(dict.fromkeys(native.level.name for native in gpu_levels(gpu)))
        raise UserError(f"level {level.name}: expected one that {gpu.name} computes natively ({known})")
    return _cost_of(gpu, part, layer, k, cached=cached)


def _in_one_launch(gpu: GpuModel, layer: MatmulLayer, segments: Sequence[Segment], *, cached: bool) -> list[GpuCost]:
    """Several segments by the layer kernel: what comes before is paid once."""
    costs: list[GpuCost] = []
    for segment in segments:
        cost = _segment_cost(gpu, layer, segment.level, segment.channels // layer.n_groups, cached=cached)
        costs.append(replace(cost, launch=0.0, first_access=0.0) if costs else cost)
    return costs


def _cost_of(gpu: GpuModel, kernel: GpuKernel, layer: MatmulLayer, k: int, *, cached: bool) -> GpuCost:
    cols, groups = layer.out_channels // layer.n_groups, layer.n_groups
    return kernel_cost(gpu, kernel, layer.rows, cols, k, groups=groups, cached=cached, taps=layer.taps)


def _layer(
    gpu: GpuModel,
    workload: Workload,
    node: Node,
    segments: Sequence[Segment] | None,
    batch: int,
    *,
    cached: bool,
    pack: bool,
) -> LayerEstimate:
    assert node.layer is not None
    layer = at_batch(node.layer, workload, batch)
    cols, groups = layer.out_channels // layer.n_groups, layer.n_groups
    if segments is None:
        k = layer.segment_channels * layer.taps
        cost = float_cost(gpu, layer.rows, cols, k, groups=groups, cached=cached)
        note = "16-bit floats at the rate of tensor units: a library at its best"
        return _estimate_of(gpu, node.name, node.op, [cost], [], layer.macs, note)
    parts = _in_one_launch(gpu, layer, segments, cached=cached)
    elements = prod(workload.node(node.inputs[0]).shape) * batch / workload.input_shape[0]
    passes = [pass_cost(gpu, "pack", elements * 5.0)] if pack else []
    return _estimate_of(gpu, node.name, node.op, parts, passes, layer.macs, "")


def _estimate_of(
    gpu: GpuModel, name: str, op: str, parts: Sequence[GpuCost], passes: Sequence[GpuCost], macs: int, note: str
) -> LayerEstimate:
    every = [*parts, *passes]
    cycles = sum(cost.cycles for cost in every)
    terms = {
        "compute": sum(cost.compute for cost in parts),
        "memory": sum(max(cost.busy.values()) - cost.compute + cost.first_access for cost in parts),
        "packing": sum(cost.cycles - cost.launch for cost in passes),
        "overhead": sum(cost.launch for cost in every),
    }
    padded = sum(cost.macs for cost in parts)
    return LayerEstimate(
        name=name,
        op=op,
        cycles=cycles,
        latency_us=_microseconds(gpu, cycles),
        bound=max(every, key=lambda cost: cost.cycles).bound,
        kernels=tuple(dict.fromkeys(cost.kernel for cost in every)),
        terms=tuple(CostTerm.model_validate({"name": key, "cycles": value}) for key, value in terms.items()),
        macs=macs,
        padding_waste=max(0.0, 1 - macs / padded) if padded else 0.0,
        note=note,
    )


def _summed(gpu: GpuModel, layers: Iterable[LayerEstimate], batch: int) -> Estimate:
    per_layer = tuple(layers)
    cycles = sum(layer.cycles for layer in per_layer)
    latency_us = _microseconds(gpu, cycles)
    low, high, interval, calibrated = _span(gpu, per_layer)
    return Estimate(
        hardware=gpu.name,
        hardware_sha256=gpu.identity(),
        cycles=cycles,
        latency_us=latency_us,
        low_us=_microseconds(gpu, low),
        high_us=_microseconds(gpu, high),
        bound=max(per_layer, key=lambda layer: layer.cycles).bound if per_layer else "launch",
        batch=batch,
        threads=1,
        per_layer=per_layer,
        model="gpu",
        interval=interval,
        calibrated=calibrated,
    )


def _span(gpu: GpuModel, layers: Sequence[LayerEstimate]) -> tuple[float, float, str, bool]:
    """Cycles at the ends of the interval, how they were come by, and whether they rest on measurements."""
    intervals = _intervals(gpu)
    low = high = 0.0
    calibrated = False
    for layer in layers:
        factors = intervals.factors(regime_of(layer.bound)) if intervals and layer.macs else None
        calibrated = calibrated or factors is not None
        low += layer.cycles * (factors.low if factors else 1 / FACTOR)
        high += layer.cycles * (factors.high if factors else FACTOR)
    if intervals is None or not calibrated:
        return low, high, "model only, not measured: half to twice, by assumption", False
    rest = "" if all(layer.macs for layer in layers) else "; what is no layer half to twice, by assumption"
    return low, high, f"{NOMINAL:.0%} split-conformal from {intervals.n} layers {intervals.origin}{rest}", True


def _intervals(gpu: GpuModel) -> Intervals | None:
    """From the layers that were measured on such a GPU, kernels that have changed since left out."""
    key = gpu.identity(), str(Path.cwd())
    if key not in _INTERVALS:
        kept, _ = read_kept(gpu)
        residuals: dict[str, list[float]] = {}
        for one in kept.layers if kept else ():
            if one.measurement.median_us and are_current(one.kernels):
                found = _lone_layer(gpu, one.layer)
                residual = math.log(one.measurement.median_us / found.latency_us)
                residuals.setdefault(regime_of(found.bound), []).append(residual)
        origin = f"measured on {kept.host.processor} on {kept.date}" if kept else ""
        _INTERVALS[key] = Intervals(residuals, origin) if residuals else None
    return _INTERVALS[key]


def _weight_bytes(workload: Workload, assignment: Assignment | None) -> float:
    total = 0.0
    for node in workload.nodes:
        if node.layer is not None:
            segments = segments_of(workload, node, assignment)
            channels = node.layer.segment_channels * node.layer.n_groups
            bits = sum(s.channels * s.weight_bits for s in segments) / channels if segments else 16.0
            total += node.layer.n_weights * bits / 8
    return total


def _microseconds(gpu: GpuModel, cycles: float) -> float:
    return cycles / gpu.clock_ghz.value / 1000
