"""A budget in predicted latency or energy, as the table of what a channel costs that training obeys.

The table is linear, the machine is not: a channel costs more in a small segment, and every further level of a layer has
a call and an epilogue of its own. So whoever fixes levels by the table asks ``cost_of`` what they really take.
"""

from __future__ import annotations

from collections.abc import Sequence

from soniq_dse.cost.bounds import uniform_assignment
from soniq_dse.cost.network import estimate
from soniq_dse.errors import UserError
from soniq_dse.records.channel_costs import ChannelCosts, CostUnit
from soniq_dse.records.cost import Estimate, LayerEstimate
from soniq_dse.records.design import Assignment
from soniq_dse.records.gpu import Machine
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import TensorClass, Workload


class OutOfReachError(UserError):
    """No assignment meets the budget, or every one does."""


def channel_costs(
    hw: Machine,
    workload: Workload,
    palette: Palette,
    unit: CostUnit,
    budget: float,
    *,
    batch: int = 1,
    threads: int = 1,
) -> ChannelCosts:
    """What a channel of every class that ``palette`` decides costs at each level, within ``budget`` for the network.

    A channel has an equal share of what its consumers cost where all channels have that level; a level that is cheaper
    than a narrower one counts as much as that. ``fixed`` is what the network costs besides at its narrowest.

    Raises:
        OutOfReachError: the budget is below what the narrowest level takes, or above what every level takes.
        UserError: the unit is bits, the machine has no figures for it, or as ``estimate``.
    """
    uniform = [
        estimate(hw, workload, uniform_assignment(workload, level), batch=batch, threads=threads)
        for level in palette.levels
    ]
    totals = [cost_of(hw, found, unit) for found in uniform]
    _check_reach(palette, unit, budget, totals)
    classes = [c for c in workload.tensor_classes if c.pinned_bits is None and c.consumers]
    table = {c.name: _rising([_of_class(found, c, unit) / c.channels for found in uniform]) for c in classes}
    narrowest = sum(c.channels * table[c.name][0] for c in classes)
    return ChannelCosts(unit=unit, budget=budget, per_channel=table, fixed=max(0.0, totals[0] - narrowest))


def assignment_cost(
    hw: Machine,
    workload: Workload,
    assignment: Assignment,
    unit: CostUnit,
    *,
    batch: int = 1,
    threads: int = 1,
) -> float:
    """What the network really costs with ``assignment``, as far as the model knows, in ``unit``.

    Raises:
        UserError: as ``cost_of`` and ``estimate``.
    """
    return cost_of(hw, estimate(hw, workload, assignment, batch=batch, threads=threads), unit)


def cost_of(hw: Machine, found: Estimate, unit: CostUnit) -> float:
    """The latency in microseconds or the energy in microjoules of an estimate.

    Raises:
        UserError: the unit is bits, or the machine has no figures of energy.
    """
    if unit == "latency_us":
        return found.latency_us
    if unit == "bits":
        raise UserError("unit of a budget: expected latency_us or energy_uj, what a machine takes, got bits")
    if found.energy_uj is None:
        raise UserError(f"budget in uj: expected a machine with figures of energy, got {hw.name}; budgets in us hold")
    return found.energy_uj


def _check_reach(palette: Palette, unit: CostUnit, budget: float, totals: Sequence[float]) -> None:
    low, high = min(totals), max(totals)
    if not low <= budget <= high:
        span = f"{low:.4g} to {high:.4g}" if low < high else f"{low:.4g}"
        raise OutOfReachError(
            f"budget of {palette.name}: expected {span} {unit.rsplit('_', 1)[-1]}, what its levels take alone, "
            f"got {budget:g}; nearest valid choice: {min(max(budget, low), high):.4g}"
        )


def _of_class(found: Estimate, tensor_class: TensorClass, unit: CostUnit) -> float:
    layers = [layer for layer in found.per_layer if layer.name in tensor_class.consumers]
    return sum(layer.latency_us if unit == "latency_us" else _energy_uj(layer) for layer in layers)


def _energy_uj(layer: LayerEstimate) -> float:
    return sum(term.energy_uj for term in layer.energy or ())


def _rising(costs: Sequence[float]) -> tuple[float, ...]:
    return tuple(max(costs[: index + 1]) for index in range(len(costs)))
