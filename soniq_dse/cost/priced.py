"""The estimate of one layer or operator: what its parts cost together, what bounds it, and a note in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from soniq_dse.cost.energy import Energy
from soniq_dse.cost.graph import MatmulLayer
from soniq_dse.cost.layers import LayerCoster, PartCost
from soniq_dse.records.cost import Bound, CostTerm, EnergyPart, EnergyTerm, LayerEstimate
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.workload import Node, Segment

_TERMS = ("compute", "memory", "packing", "epilogue", "overhead")


def priced(
    hw: HardwareModel,
    coster: LayerCoster,
    layer: MatmulLayer,
    segments: Sequence[Segment] | None,
    *,
    signed: bool,
    home: int,
    requantise: float,
    written_bytes: float = 0.0,
    cold_cycles: float = 0.0,
) -> tuple[LayerEstimate, str]:
    """The estimate of a matmul layer, and what priced its compute; ``written_bytes``: what it leaves in memory."""
    parts = coster.parts(layer, segments, signed=signed, home=home)
    terms = {
        "compute": sum(part.compute for part in parts),
        "memory": sum(part.memory for part in parts),
        "packing": requantise + sum(part.packing for part in parts),
        "epilogue": coster.finish(layer, len(parts), written_bytes, home) + sum(part.epilogue for part in parts),
        "overhead": cold_cycles + sum(part.overhead for part in parts),
    }
    cycles = sum(terms.values())
    slowest = max(parts, key=lambda part: part.cycles)
    largest = max(terms, key=lambda name: terms[name])
    bound: Bound = slowest.bound if largest in ("compute", "memory") else "overhead"
    padded = sum(part.padded_macs for part in parts)
    how = "recipe" if any(part.kernel.priced_by == "recipe" for part in parts) else slowest.kernel.priced_by
    found = LayerEstimate(
        name=layer.name,
        op=layer.op,
        cycles=cycles,
        latency_us=microseconds(hw, cycles),
        bound=bound,
        kernels=tuple(dict.fromkeys(part.kernel.name for part in parts)),
        terms=tuple(CostTerm(name=name, cycles=terms[name]) for name in _TERMS),
        macs=layer.macs,
        padding_waste=max(0.0, 1 - layer.macs / coster.threads / padded) if padded else 0.0,
        choices=tuple(part.choice for part in parts if part.choice is not None),
        energy=_energy(hw, coster, parts, terms["packing"] + terms["epilogue"] + terms["overhead"]),
        note=_note(parts, segments is None),
    )
    return found, how


def _energy(
    hw: HardwareModel, coster: LayerCoster, parts: Sequence[PartCost], other_cycles: float
) -> tuple[EnergyTerm, ...] | None:
    """What a layer takes on all its threads; ``other_cycles`` are those of plain loops on each."""
    energy = Energy.of(hw)
    if energy is None:
        return None
    compute = sum(
        part.padded_macs / (part.kernel.rows * part.kernel.cols * part.kernel.pass_k) * (part.kernel.pass_pj or 0.0)
        for part in parts
    )
    picojoules: dict[EnergyPart, float] = {
        "compute": compute,
        "memory": sum(energy.traffic(part.bytes_by_level) for part in parts),
        "other": coster.loops.operations(other_cycles) * energy.instruction(*coster.loops.adder),
    }
    return tuple(EnergyTerm(name=n, energy_uj=pj * coster.threads * 1e-6) for n, pj in picojoules.items())


def _note(parts: Iterable[PartCost], in_fp32: bool) -> str:
    if in_fp32:
        return "fp32, at the rate of fused multiply-adds: a library at its best"
    recipes = sorted({part.kernel.name for part in parts if part.kernel.priced_by == "recipe"})
    assumed = sorted({name for part in parts for name in part.kernel.loop.assumed})
    said = [f"priced by recipe: {', '.join(recipes)}"] if recipes else []
    said += [f"scalar instructions at figures of their class: {', '.join(assumed)}"] if assumed else []
    said += ["taps folded into k"] if any(part.folded for part in parts) else []
    return "; ".join(said)


def operator_estimate(hw: HardwareModel, coster: LayerCoster, node: Node, cycles: float) -> LayerEstimate:
    """The estimate of what is no matmul layer, of ``cycles`` in a plain vector loop."""
    return LayerEstimate(
        name=node.name,
        op=node.op,
        cycles=cycles,
        latency_us=microseconds(hw, cycles),
        bound="overhead",
        terms=(CostTerm(name="epilogue", cycles=cycles),),
        energy=_energy(hw, coster, (), cycles),
        note="counted operations of a plain vector loop",
    )


def microseconds(hw: HardwareModel, cycles: float) -> float:
    """At the clock of the descriptor."""
    return cycles / hw.clock_ghz.value / 1000
