"""What every search strategy must do, whichever file it is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from soniq_dse import registry
from soniq_dse.records.channel_costs import ChannelCosts
from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.palette import Palette
from soniq_dse.search import Base, Prior, Result, Space, epochs_of

SCHEDULE = Schedule(baseline_epochs=1, noise_epochs=4, finetune_epochs=12)
COSTS = ChannelCosts(unit="latency_us", budget=30.0, per_channel={"a": (1.0, 2.0)})
DESIGNS = ("w1a1", "w2a2", "w1a1+w4a4@1.5", "w1a1+w4a4@2", "w1a1+w4a4@2.5", "w2a4", "w1a1+w2a2+w4a4@2")
BUDGET = 3 * 16


def candidate(model: str, design: str, seed: int) -> Candidate:
    name, _, bits = design.partition("@")
    return Candidate(
        model=model,
        data="d",
        data_sha256="0",
        palette=Palette.parse(name),
        budget_bits=float(bits) if bits else None,
        seed=seed,
        schedule=SCHEDULE,
    )


def designs(model: str, seed: int) -> list[Candidate]:
    found = [candidate(model, design, seed) for design in DESIGNS]
    return [*found, found[2].model_copy(update={"budget_bits": None, "costs": COSTS})]


def space(seeds: Sequence[int] = (0, 1), *, has_priors: bool = True) -> Space:
    candidates = tuple(c for seed in seeds for m in ("m", "m@0.5") for c in designs(m, seed))
    priors = tuple(Prior(10.0 + score(c) % 90, 40.0 + score(c) % 50) for c in candidates) if has_priors else ()
    return Space(candidates, priors)


def score(candidate: Candidate) -> int:
    return int(candidate.model_copy(update={"seed": 0}).identity()[:8], 16)


def result_of(candidate: Candidate) -> Result:
    """A made-up result that depends on the candidate only; every seventh failed."""
    found = int(candidate.identity()[:8], 16)
    return Result(candidate) if found % 7 == 0 else Result(candidate, 50 + found % 500 / 10, 1.0 + found % 1000)


def walk(strategy: Base, *, backwards: bool = False) -> list[tuple[Candidate, ...]]:
    """The batches of a whole search."""
    batches: list[tuple[Candidate, ...]] = []
    while len(batches) < 1000 and (batch := strategy.ask()):
        batches.append(batch)
        for asked in reversed(batch) if backwards else batch:
            strategy.tell(result_of(asked))
    return batches


def flat(batches: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    return [candidate for batch in batches for candidate in batch]


@pytest.fixture(params=registry.names("search"))
def strategy_class(request: pytest.FixtureRequest) -> type[Base]:
    found: type[Base] = registry.load("search", request.param)
    return found


@pytest.mark.parametrize("budget", [None, BUDGET])
@pytest.mark.parametrize("has_priors", [True, False])
def test_stops_and_never_repeats(strategy_class: type[Base], budget: int | None, has_priors: bool) -> None:
    strategy = strategy_class(replace(space(has_priors=has_priors), budget_epochs=budget))
    order = flat(walk(strategy))
    assert 0 < len(order) < 1000
    assert len(set(order)) == len(order)
    assert strategy.ask() == ()


@pytest.mark.parametrize("budget", [1, 16, BUDGET, 100 * BUDGET])
def test_keeps_its_budget(strategy_class: type[Base], budget: int) -> None:
    strategy = strategy_class(replace(space((0,)), budget_epochs=budget))
    spent = sum(map(epochs_of, flat(walk(strategy))))
    assert spent == strategy.spent <= budget
    assert budget < 16 or spent > 0


def test_stays_in_the_space(strategy_class: type[Base]) -> None:
    """Every candidate is a design of the space, its schedule at most shortened."""
    given = space()
    for asked in flat(walk(strategy_class(given))):
        assert asked.model_copy(update={"schedule": SCHEDULE}) in given.candidates
        assert asked.schedule.baseline_epochs == SCHEDULE.baseline_epochs
        assert 0 < asked.schedule.noise_epochs <= SCHEDULE.noise_epochs
        assert 0 < asked.schedule.finetune_epochs <= SCHEDULE.finetune_epochs


def test_something_is_trained_to_the_end(strategy_class: type[Base]) -> None:
    given = replace(space((0,)), budget_epochs=BUDGET)
    strategy = strategy_class(given)
    assert set(flat(walk(strategy))) & set(given.candidates)
    assert strategy.trained()


def test_the_front_is_repeated_with_every_seed(strategy_class: type[Base]) -> None:
    strategy = strategy_class(space((0, 1, 2)))
    walk(strategy)
    values = {(r.candidate.model, r.candidate.palette, r.candidate.budget_bits, r.candidate.seed): r for r in
              strategy.results.values() if r.candidate.schedule == SCHEDULE}  # fmt: skip
    best = max((r for r in values.values() if r.metric_val and r.candidate.seed == 0), key=lambda r: r.metric_val or 0)
    where = best.candidate.model, best.candidate.palette, best.candidate.budget_bits
    assert all((*where, seed) in values for seed in (1, 2))


def test_same_space_same_order_whatever_comes_in_first(strategy_class: type[Base]) -> None:
    """So a run that was killed asks again what the store can answer, and goes on from there."""
    given = replace(space(), budget_epochs=4 * BUDGET)
    assert walk(strategy_class(given)) == walk(strategy_class(given), backwards=True)


def test_asks_no_further_before_it_is_told(strategy_class: type[Base]) -> None:
    strategy = strategy_class(space())
    strategy.ask()
    with pytest.raises(RuntimeError, match="before the next ask"):
        strategy.ask()


def test_goes_on_where_all_failed(strategy_class: type[Base]) -> None:
    strategy = strategy_class(replace(space((0,)), budget_epochs=BUDGET))
    for _ in range(1000):
        batch = strategy.ask()
        if not batch:
            return
        for asked in batch:
            strategy.tell(Result(asked))
    raise AssertionError("it does not stop")


def test_an_empty_space_ends_at_once(strategy_class: type[Base]) -> None:
    assert strategy_class(Space(candidates=())).ask() == ()
