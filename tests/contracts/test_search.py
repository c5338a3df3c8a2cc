"""What every search strategy must do, whichever file it is in."""

from __future__ import annotations

import pytest

from soniq_dse import registry
from soniq_dse.records.channel_costs import ChannelCosts
from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.palette import Palette, PaletteChoice
from soniq_dse.search import Base, Result, Space

SCHEDULE = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)
COSTS = tuple(ChannelCosts(unit="latency_us", budget=budget, per_channel={"a": (1.0, 2.0)}) for budget in (30.0, 50.0))
PALETTES = {"w1a1": (), "w2a2": (), "w1a1+w4a4": (1.5, 2.0, 2.5), "w2a4": (), "w1a1+w2a2+w4a4": (2.0,)}


def space(seeds: tuple[int, ...] = (0, 1)) -> Space:
    choices = tuple(
        PaletteChoice(palette=Palette.parse(name), explored=True, reason="test", budgets_bits_per_weight=budgets)
        for name, budgets in PALETTES.items()
    )
    template = Candidate(model="m", data="d", data_sha256="0", palette=choices[0].palette, schedule=SCHEDULE)
    return Space(template=template, choices=choices, seeds=seeds)


def result_of(candidate: Candidate) -> Result:
    """A made-up result that depends on the candidate only; every seventh failed."""
    score = int(candidate.identity()[:8], 16)
    return Result(candidate) if score % 7 == 0 else Result(candidate, score % 100 / 100, 1.0 + score % 1000)


def walk(strategy: Base, steps: int = 10_000) -> list[Candidate]:
    order: list[Candidate] = []
    while len(order) < steps and (candidate := strategy.ask()) is not None:
        order.append(candidate)
        strategy.tell(result_of(candidate))
    return order


@pytest.fixture(params=registry.names("search"))
def strategy_class(request: pytest.FixtureRequest) -> type[Base]:
    found: type[Base] = registry.load("search", request.param)
    return found


def test_stops_and_never_repeats(strategy_class: type[Base]) -> None:
    strategy = strategy_class(space())
    order = walk(strategy)
    assert 0 < len(order) < 10_000
    assert len({candidate.identity() for candidate in order}) == len(order)
    assert strategy.ask() is None


def test_stays_in_the_space(strategy_class: type[Base]) -> None:
    given = space()
    for candidate in walk(strategy_class(given)):
        budgets = PALETTES[candidate.palette.name]
        assert candidate.seed in given.seeds
        assert candidate.budget_bits in budgets if budgets else candidate.budget_bits is None
        fixed = {"palette", "budget_bits", "seed"}
        assert candidate.model_dump(exclude=fixed) == given.template.model_dump(exclude=fixed)


def test_budgets_in_another_unit_are_all_asked_for(strategy_class: type[Base]) -> None:
    given = space(seeds=(0,))
    priced = tuple(c.model_copy(update={"costs": COSTS}) if c.name == "w1a1+w4a4" else c for c in given.choices)
    found = walk(strategy_class(Space(template=given.template, choices=priced, seeds=given.seeds)))
    budgets = [c.costs for c in found if c.palette.name == "w1a1+w4a4"]
    assert sorted(costs.budget for costs in budgets if costs) == [30.0, 50.0]
    assert all(c.budget_bits is None for c in found if c.costs)
    assert not any(c.costs for c in found if c.palette.name != "w1a1+w4a4")


def test_same_space_same_order(strategy_class: type[Base]) -> None:
    assert walk(strategy_class(space())) == walk(strategy_class(space()))


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_goes_on_where_an_earlier_run_stopped(strategy_class: type[Base], stop: int) -> None:
    whole = walk(strategy_class(space()))
    second = strategy_class(space())
    for candidate in reversed(whole[:stop]):  # results come back in any order
        second.tell(result_of(candidate))
    assert walk(second) == whole[stop:]


def test_an_empty_space_ends_at_once(strategy_class: type[Base]) -> None:
    given = space()
    assert strategy_class(Space(template=given.template, choices=())).ask() is None
