"""Budgets of palettes, as the user asks for them: in bits per weight, predicted microseconds or microjoules."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from soniq_dse.cost.channel_table import OutOfReachError, channel_costs, cost_of
from soniq_dse.errors import UserError
from soniq_dse.records.channel_costs import ChannelCosts, CostUnit
from soniq_dse.records.cost import Estimate
from soniq_dse.records.design import Candidate
from soniq_dse.records.front import DesignPoint, SkippedDesign
from soniq_dse.records.gpu import Machine
from soniq_dse.records.palette import Palette, PaletteChoice
from soniq_dse.records.workload import Workload

UNITS: dict[str, CostUnit] = {"us": "latency_us", "uj": "energy_uj"}
"""As they stand behind a budget: ``w1a1+w4a4@30us``."""
BudgetUnit = Literal["bits", "us", "uj"]
SHOWN: dict[CostUnit, BudgetUnit] = {"bits": "bits", "latency_us": "us", "energy_uj": "uj"}


@dataclass(frozen=True)
class Budget:
    """The most that a whole network may take, in ``unit``."""

    unit: CostUnit
    value: float


@dataclass(frozen=True)
class Wanted:
    """A palette to be explored, with its budgets beside those in bits, which ``choice`` has."""

    choice: PaletteChoice
    budgets: tuple[Budget, ...] = ()


def asked(text: str) -> Wanted:
    """What ``w1a1+w4a4@2.0``, ``w1a1+w4a4@30us`` or ``w1a1+w4a4@5uj`` asks for.

    Raises:
        UserError: the palette or its budget is none.
    """
    name, at, budget = text.partition("@")
    try:
        palette = Palette.parse(name, source="named")
    except ValueError as error:
        raise UserError(f"palette {text!r}: expected levels like w1a1+w4a4, with @2.0 a budget: {error}") from error
    choice = PaletteChoice(palette=palette, explored=True, reason="asked for")
    found = re.fullmatch(r"(.*?)(us|uj)", budget)
    if found and len(palette.levels) > 1:
        return Wanted(choice, (Budget(UNITS[found[2]], _positive(text, found[1])),))
    bits = (_bits(text, palette, budget),) if at else ()
    return Wanted(choice.model_copy(update={"budgets_bits_per_weight": bits}))


def wanted(choices: Sequence[Wanted], budget_us: Sequence[float], budget_uj: Sequence[float]) -> tuple[Wanted, ...]:
    """``choices`` with these budgets for all palettes that mix levels and name none.

    Raises:
        UserError: none of them mixes levels.
    """
    budgets = (*(Budget("latency_us", value) for value in budget_us), *(Budget("energy_uj", v) for v in budget_uj))
    mixed = [one.choice for one in choices if one.choice.explored and len(one.choice.palette.levels) > 1]
    if budgets and not mixed:
        raise UserError(
            "budget: expected a palette of several levels such as w1a1+w4a4, between which it chooses, got "
            + ", ".join(one.choice.name for one in choices)
        )
    return tuple(
        Wanted(one.choice, budgets)
        if len(one.choice.palette.levels) > 1 and not one.budgets and not one.choice.budgets_bits_per_weight
        else one
        for one in choices
    )


def priced(
    choices: Sequence[Wanted], hw: Machine, workload: Workload, *, batch: int, threads: int
) -> tuple[tuple[PaletteChoice, ...], list[SkippedDesign]]:
    """The choices with what channels of ``workload`` cost, and the budgets that it does not reach.

    Raises:
        UserError: the machine has no figures for a unit.
    """
    found: list[PaletteChoice] = []
    skipped: list[SkippedDesign] = []
    for one in choices:
        choice, unreached = _with_costs(one, hw, workload, batch=batch, threads=threads)
        found += [choice] if choice is not None else []
        skipped += unreached
    return tuple(found), skipped


def _with_costs(
    one: Wanted, hw: Machine, workload: Workload, *, batch: int, threads: int
) -> tuple[PaletteChoice | None, tuple[SkippedDesign, ...]]:
    """The choice with the table of costs of each of its budgets; None where the network reaches none of them."""
    if not one.budgets:
        return one.choice, ()
    tables: list[ChannelCosts] = []
    skipped: list[SkippedDesign] = []
    for budget in one.budgets:
        palette = one.choice.palette
        try:
            found = channel_costs(hw, workload, palette, budget.unit, budget.value, batch=batch, threads=threads)
            tables.append(found)
        except OutOfReachError as error:
            unit, width = SHOWN[budget.unit], workload.name.partition("@")[2]
            name = f"{palette.name}@{budget.value:g}{unit}{width and '-x'}{width}"
            skipped.append(SkippedDesign(name=name, reason=str(error)))
    return (one.choice.model_copy(update={"costs": tuple(tables)}) if tables else None), tuple(skipped)


def budget_of(
    candidate: Candidate, hw: Machine, found: Estimate, *, bits_per_weight: float
) -> tuple[float | None, BudgetUnit | None, float | None]:
    """(budget, its unit, what the trained design takes of it); None where there is no budget."""
    if candidate.costs is not None:
        unit = candidate.costs.unit
        return candidate.costs.budget, SHOWN[unit], cost_of(hw, found, unit)
    if candidate.budget_bits is not None:
        return candidate.budget_bits, "bits", bits_per_weight
    return None, None, None


def overdrawn(point: DesignPoint) -> str:
    """A sentence on a design that takes more than its budget; nothing on another."""
    if point.budget is None or point.budget_used is None or point.budget_used <= point.budget * (1 + 1e-9):
        return ""
    over = 100 * (point.budget_used / point.budget - 1)
    return f"{point.name} is {over:.2g} % over its budget: it takes {point.budget_used:.4g} {point.budget_unit}."


def _positive(text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"palette {text!r}: expected a budget like @30us or @5uj behind the @, got {number!r}")
    return value


def _bits(text: str, palette: Palette, budget: str) -> float:
    """Bits per weight behind the @; what no mix of the levels has is refused before anything is trained."""
    low, high = palette.levels[0].weight_bits, max(level.weight_bits for level in palette.levels)
    try:
        value = float(budget)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        span = f"{low} to {high}" if low < high else f"{low}"
        close = f"{min(max(value, low), high):g}" if math.isfinite(value) else f"{high}"
        raise UserError(
            f"palette {text!r}: expected a budget of {span} bits per weight behind the @, got {budget!r}; "
            f"nearest valid choice: '{palette.name}@{close}'"
        )
    return value
