"""Latency of a whole network on a machine: the sum over its graph, and what bounds each part.

Compute is the middle between the best assignment of ports and an even one. The interval rests on layers measured on the
machine where such are kept, else on stated tolerances (``intervals``). ``level_costs`` are the same
costs of every native level over the layers that a palette may decide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from soniq_dse import registry
from soniq_dse.cost.choice import Chooser
from soniq_dse.cost.gpu import gpu_estimate, gpu_layer_estimate, gpu_level_costs
from soniq_dse.cost.graph import MatmulLayer, at_batch, is_free, is_signed, reordered, segments_of
from soniq_dse.cost.intervals import Intervals, are_current, read_kept, regime_of, span
from soniq_dse.cost.layers import LayerCoster, PartCost
from soniq_dse.cost.operators import Operators
from soniq_dse.cost.priced import microseconds, operator_estimate, priced
from soniq_dse.cost.remembered import machine_sha256
from soniq_dse.cost.vector_loops import COLD_CYCLES
from soniq_dse.errors import UserError
from soniq_dse.hardware.levels import best_native_levels
from soniq_dse.records.choice import Choices, PartShape
from soniq_dse.records.cost import Estimate, LayerEstimate
from soniq_dse.records.design import Assignment
from soniq_dse.records.gpu import GpuModel, Machine
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Level, LevelCost
from soniq_dse.records.workload import Node, Segment, Workload

_INTERVALS: dict[tuple[str, str], tuple[Intervals | None, str]] = {}
"""By machine and model of the core: the intervals that its measured layers give, else why there are none."""
_CHOOSERS: dict[tuple[str, str], Chooser] = {}
"""By machine and model of the core: every loop of a machine is priced once."""


def estimate(
    hw: Machine,
    workload: Workload,
    assignment: Assignment | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
    model: str = "pipeline",
    choices: Choices | None = None,
) -> Estimate:
    """Predicted latency of ``workload``, weights and packed activations of the run before still where they fit.

    Args:
        assignment: levels per tensor class; None: the whole network in fp32.
        batch: inputs per run, whatever batch the workload was traced at.
        threads: cores that share the rows of each layer.
        model: the cost model of the core (a unit of this package).
        choices: the kernels that the runtime will use; what they do not name runs on the cheapest.

    Raises:
        UserError: batch or threads out of range, a level that the machine does not compute, a loop without figures.
    """
    if isinstance(hw, GpuModel):
        return gpu_estimate(hw, workload, assignment, batch=batch, threads=threads)
    _check_range(hw, batch, threads)
    coster = layer_coster(hw, threads, model, choices)
    scale = batch / workload.input_shape[0]
    operators = Operators(
        workload, coster.loops, scale / threads, assignment is not None, _with_one_part(workload, assignment)
    )
    home = _home_level(coster, workload, assignment, batch)
    layers, priced_by = [], {}
    requantise = _requantisation(workload, assignment, operators)
    for node in workload.nodes:
        if node.layer is None:
            cycles = operators.cycles(node)
            if cycles > 0:
                layers.append(operator_estimate(hw, coster, node, cycles))
            continue
        extra = requantise.get(node.name, 0.0)
        written = operators.written_bytes(node) * threads
        layer, how = _layer_estimate(hw, coster, workload, node, assignment, batch, home, extra, written)
        layers.append(layer)
        priced_by[layer.name] = how
    return _summed(hw, layers, priced_by, batch, threads, model)


def estimate_layer(
    hw: Machine,
    layer: MatmulLayer,
    *,
    signed: bool = True,
    model: str = "pipeline",
    choices: Choices | None = None,
) -> Estimate:
    """Predicted latency of one layer by itself: codes in, 8-bit codes out, its weights where they still fit.

    Args:
        layer: with its segments (none: in fp32) and threads.
        signed: whether its input may be negative.
        model, choices: as of ``estimate``.

    Raises:
        UserError: as ``estimate``.
    """
    if isinstance(hw, GpuModel):
        return gpu_layer_estimate(hw, layer)
    _check_range(hw, 1, layer.threads)
    found, how = _lone_layer(hw, layer, signed, model, choices)
    return _summed(hw, [found], {found.name: how}, 1, layer.threads, model)


def priced_layer(
    hw: HardwareModel,
    layer: MatmulLayer,
    *,
    signed: bool = True,
    model: str = "pipeline",
    choices: Choices | None = None,
) -> LayerEstimate:
    """``estimate_layer`` without its interval, which rests on this.

    Raises:
        UserError: as ``estimate``.
    """
    return _lone_layer(hw, layer, signed, model, choices)[0]


def _lone_layer(
    hw: HardwareModel, layer: MatmulLayer, signed: bool, model: str, choices: Choices | None
) -> tuple[LayerEstimate, str]:
    coster = layer_coster(hw, layer.threads, model, choices)
    segments = layer.segments or None
    bits = sum(s.channels * s.weight_bits for s in segments) / sum(s.channels for s in segments) if segments else 32.0
    home = coster.hierarchy.level_of(layer.n_weights * bits / 8)
    return priced(hw, coster, layer, segments, signed=signed, home=home, requantise=coster.emit(layer))


def level_costs(
    hw: Machine, workload: Workload, *, batch: int = 1, threads: int = 1, model: str = "pipeline"
) -> tuple[LevelCost, ...]:
    """What each native level of ``hw`` costs over all layers whose input a palette may decide, narrowest level first.

    Raises:
        UserError: as ``estimate``.
    """
    if isinstance(hw, GpuModel):
        return gpu_level_costs(hw, workload, batch=batch, threads=threads)
    coster = layer_coster(hw, threads, model)
    nodes = [node for node in workload.nodes if node.layer is not None and is_free(workload, node)]
    costs = []
    for level, native in best_native_levels(hw).items():
        parts = [part for node in nodes for part in _uniform_parts(coster, workload, node, level, batch)]
        cycles = sum(part.cycles for part in parts)
        macs = sum(part.macs for part in parts)
        names = Counter[str]()
        for part in parts:
            names[part.kernel.name] += round(part.cycles)
        kernel = names.most_common(1)[0][0] if names else native.recipe
        costs.append(
            LevelCost(
                level=level,
                cycles=cycles,
                cycles_per_mac=cycles / macs if macs else 1.0 / native.macs_per_cycle,
                kernel=kernel,
                reason=_level_reason(parts, kernel, macs, cycles) if parts else native.reason,
            )
        )
    return tuple(costs)


def _level_reason(parts: Sequence[PartCost], kernel: str, macs: int, cycles: float) -> str:
    mine = next(part for part in parts if part.kernel.name == kernel)
    compute = sum(part.compute for part in parts)
    how = "kept loop" if mine.kernel.priced_by == "loop" else "recipe"
    return (
        f"{macs / cycles:.3g} MAC/cycle over the network by {kernel} ({how}, {mine.kernel.loop.bound_text}); "
        f"{100 * compute / cycles:.0f} % of it in the kernel's loop"
    )


def choose_kernels(
    hw: HardwareModel,
    shapes: Sequence[PartShape],
    *,
    threads: int = 1,
    model: str = "pipeline",
    known: Choices | None = None,
) -> Choices:
    """The kernel and layout for each part of a network that runs on ``hw``, by the model; ``known`` stay as they are.

    Args:
        shapes: those of all parts, repeated ones too: their weights together decide which cache they start from.

    Raises:
        UserError: a level that the machine does not compute.
    """
    coster = layer_coster(hw, threads, model, known)
    weights = sum(shape.taps * shape.channels * shape.cols * shape.level.weight_bits / 8 for shape in shapes)
    home = coster.hierarchy.level_of(weights)
    made = [coster.choose(shape, home) for shape in dict.fromkeys(shapes)]
    return Choices(made=tuple(choice for choice in made if choice is not None))


def _check_range(hw: HardwareModel, batch: int, threads: int) -> None:
    if batch < 1 or not 1 <= threads <= hw.cores:
        raise UserError(
            f"batch, threads: expected 1 or more, and 1 to the {hw.cores} cores of {hw.name}, got {batch} and {threads}"
        )


def layer_coster(
    hw: HardwareModel, threads: int, model: str = "pipeline", choices: Choices | None = None
) -> LayerCoster:
    """What prices the parts of layers on ``hw``, each on the kernel that ``choices`` name, else on the cheapest."""
    key = machine_sha256(hw), model
    if key not in _CHOOSERS:
        _CHOOSERS[key] = Chooser(hw, registry.load("cost", model)())
    return LayerCoster(hw, _CHOOSERS[key], threads, choices)


def _requantisation(workload: Workload, assignment: Assignment | None, operators: Operators) -> dict[str, float]:
    """Layer -> cycles to write codes for its readers, once per tensor; the network's input is charged to its reader."""
    cycles: dict[str, float] = {}
    done: set[str] = set()
    moved = reordered(workload, assignment)
    for node in workload.nodes:
        if node.layer is None or node.inputs[0] in done or segments_of(workload, node, assignment) is None:
            continue
        done.add(node.inputs[0])
        maker = workload.node(node.inputs[0])
        while maker.layer is None and maker.inputs:
            maker = workload.node(maker.inputs[0])
        owner = maker.name if maker.layer is not None else node.name
        cycles[owner] = cycles.get(owner, 0.0) + operators.requantise(
            node.inputs[0],
            reordered=node.inputs[0] in moved,
            uniform=len({segment.level for segment in segments_of(workload, node, assignment) or ()}) <= 1,
        )
    return cycles


def _with_one_part(workload: Workload, assignment: Assignment | None) -> frozenset[str]:
    layers = [node for node in workload.nodes if node.layer is not None and node.layer.n_groups == 1]
    return frozenset(node.name for node in layers if len(segments_of(workload, node, assignment) or ()) == 1)


def _uniform_parts(
    coster: LayerCoster, workload: Workload, node: Node, level: Level, batch: int
) -> tuple[PartCost, ...]:
    assert node.layer is not None
    channels = node.layer.segment_channels * node.layer.n_groups
    segment = Segment(weight_bits=level.weight_bits, activation_bits=level.activation_bits, channels=channels)
    layer = at_batch(node.layer, workload, batch)
    return coster.parts(layer, (segment,), signed=is_signed(workload, node))


def _home_level(coster: LayerCoster, workload: Workload, assignment: Assignment | None, batch: int) -> int:
    """The level that holds all weights of the network, and its largest tensor, between one run and the next."""
    total = 4.0 * max(math.prod(node.shape) for node in workload.nodes) * batch / workload.input_shape[0]
    for node in workload.nodes:
        if node.layer is None:
            continue
        segments = segments_of(workload, node, assignment)
        channels = node.layer.segment_channels * node.layer.n_groups
        bits = sum(s.channels * s.weight_bits for s in segments) / channels if segments else 32.0
        total += node.layer.n_weights * bits / 8
    return coster.hierarchy.level_of(total)


def _layer_estimate(
    hw: HardwareModel,
    coster: LayerCoster,
    workload: Workload,
    node: Node,
    assignment: Assignment | None,
    batch: int,
    home: int,
    requantise: float,
    written_bytes: float,
) -> tuple[LayerEstimate, str]:
    assert node.layer is not None
    layer = at_batch(node.layer, workload, batch).model_copy(update={"name": node.name})
    segments, signed = segments_of(workload, node, assignment), is_signed(workload, node)
    found, how = priced(
        hw,
        coster,
        layer,
        segments,
        signed=signed,
        home=home,
        requantise=requantise,
        written_bytes=written_bytes,
        cold_cycles=COLD_CYCLES,
    )
    return found.model_copy(update={"op": node.op}), how


def _summed(
    hw: HardwareModel, layers: Sequence[LayerEstimate], priced_by: dict[str, str], batch: int, threads: int, model: str
) -> Estimate:
    cycles = sum(layer.cycles for layer in layers)
    intervals, why = _intervals(hw, model)
    found = span(layers, priced_by, hw.clock_ghz, intervals, why)
    return Estimate(
        hardware=hw.name,
        hardware_sha256=machine_sha256(hw),
        cycles=cycles,
        latency_us=microseconds(hw, cycles),
        low_us=microseconds(hw, found.low_cycles),
        high_us=microseconds(hw, found.high_cycles),
        bound=max(layers, key=lambda layer: layer.cycles).bound if layers else "overhead",
        batch=batch,
        threads=threads,
        per_layer=tuple(layers),
        model=model,
        interval=found.text,
        calibrated=found.calibrated,
        energy_uj=_energy_uj(layers),
    )


def _energy_uj(layers: Sequence[LayerEstimate]) -> float | None:
    terms = [layer.energy for layer in layers]
    known = [term.energy_uj for energy in terms if energy is not None for term in energy]
    return sum(known) if layers and None not in terms else None


def _intervals(hw: HardwareModel, model: str) -> tuple[Intervals | None, str]:
    """Intervals from the layers measured on the machine, as the model predicts these today; None, and why."""
    key = machine_sha256(hw), model
    if key not in _INTERVALS:
        _INTERVALS[key] = _derive_intervals(hw, model)
    return _INTERVALS[key]


def _derive_intervals(hw: HardwareModel, model: str) -> tuple[Intervals | None, str]:
    kept, why = read_kept(hw)
    if kept is None:
        return None, why
    residuals: dict[str, list[float]] = {}
    for measured in kept.layers:
        if measured.measurement.median_us and are_current(measured.kernels):
            layer = priced_layer(hw, measured.layer, model=model, choices=measured.choices)
            residual = math.log(measured.measurement.median_us / layer.latency_us)
            residuals.setdefault(regime_of(layer.bound), []).append(residual)
    found = Intervals(residuals, f"measured on {kept.date}, {kept.host.processor}")
    if found.factors("") is None:
        return None, f"only {found.n} of the layers measured on {kept.date} are of the kernels as they are"
    return found, ""
