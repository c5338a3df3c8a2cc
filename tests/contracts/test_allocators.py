"""What every allocator must keep; the registry decides which there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse import registry
from soniq_dse.errors import UserError
from soniq_dse.qat.allocators import Base, ClassSize, Levels, Problem
from soniq_dse.records.channel_costs import ChannelCosts
from soniq_dse.records.palette import Palette

UNITS = registry.names("allocator")
PALETTES = ["w2a2", "w1a1+w4a4", "w2a2+w2a4", "w1a1+w2a2+w4a4", "w2a4+w8a8"]


def unit(name: str) -> Base:
    return registry.load("allocator", name)()


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    palette = Palette.parse(draw(st.sampled_from(PALETTES)))
    bits = [level.weight_bits for level in palette.levels]
    sizes = [
        ClassSize(f"c{i}", draw(st.integers(1, 40)), draw(st.integers(1, 500))) for i in range(draw(st.integers(1, 3)))
    ]
    budget = draw(st.one_of(st.none(), st.floats(min(bits), max(bits) + 1)))
    group, seed = draw(st.sampled_from([1, 4, 16])), draw(st.integers(0, 99))
    whole = draw(st.booleans())
    if not draw(st.booleans()):
        return Problem(tuple(sizes), palette, budget, group, seed, whole=whole)
    return Problem(tuple(sizes), palette, None, group, seed, draw(cost_tables(tuple(sizes), len(bits))), whole)


@st.composite
def cost_tables(draw: st.DrawFn, sizes: tuple[ClassSize, ...], n_levels: int) -> ChannelCosts:
    """Of every unit, at its usual scale; levels may cost the same, and the budget may be the least there is."""
    unit, scale = draw(st.sampled_from([("bits", 1.0), ("latency_us", 1e-3), ("energy_uj", 1e-6)]))
    steps = st.lists(st.integers(0, 50), min_size=n_levels - 1, max_size=n_levels - 1)
    per_channel = {
        size.name: tuple(scale * c for c in np.cumsum([draw(st.integers(1, 99)), *draw(steps)]).tolist())
        for size in sizes
    }
    ends = [sum(size.channels * per_channel[size.name][end] for size in sizes) for end in (0, -1)]
    budget = ends[0] + draw(st.floats(0, 1.1)) * (ends[1] - ends[0])
    return ChannelCosts(unit=unit, budget=budget * (1 + 1e-12), per_channel=per_channel)


def logits_for(problem: Problem, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {c.name: rng.normal(size=(c.channels, len(problem.palette.levels))) for c in problem.classes}


def wants_logits(allocator: Base) -> bool:
    return allocator.learned or allocator.measured


def allocate(name: str, problem: Problem, seed: int = 0) -> Levels:
    allocator = unit(name)
    return allocator.allocate(problem, logits_for(problem, seed) if wants_logits(allocator) else None)


def test_the_method_and_its_controls_are_there() -> None:
    controls = {"uniform", "random", "layer_matched_random", "fisher", "hessian_milp", "greedy_sensitivity"}
    assert {"soniq"} | controls <= set(UNITS)


@pytest.mark.parametrize("name", UNITS)
@given(problem=problems(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_budget_palette_and_groups_hold(name: str, problem: Problem, seed: int) -> None:
    levels = allocate(name, problem, seed)
    assert list(levels) == [c.name for c in problem.classes]
    assert problem.fits(levels)
    cut = 0
    for size in problem.classes:
        of_class = levels[size.name]
        assert len(of_class) == size.channels
        assert all(type(level) is int and 0 <= level < len(problem.palette.levels) for level in of_class)
        counts = [of_class.count(level) for level in range(len(problem.palette.levels))]
        assert not problem.whole or max(counts) == size.channels
        group = problem.group(size)
        cut += sum(count % group != 0 for count in counts) > (size.channels % group != 0)
    assert cut <= (problem.limit is not None), "one group at most ends where the budget does"


@pytest.mark.parametrize("name", UNITS)
@given(problem=problems())
@settings(max_examples=30, deadline=None)
def test_no_group_that_still_fits_is_left_behind(name: str, problem: Problem) -> None:
    """Levels of distinct costs under a budget: what stays below the top would break the budget if it were lifted."""
    costs = {size.name: problem.channel_costs(size) for size in problem.classes}
    if problem.limit is None or any(len(set(of_class)) < len(of_class) for of_class in costs.values()):
        return
    levels = allocate(name, problem)
    left = problem.limit - problem.spent(levels)
    for size in problem.classes:
        for source in range(len(problem.palette.levels) - 1):
            count = min(levels[size.name].count(source), problem.group(size))
            cost = count * (costs[size.name][source + 1] - costs[size.name][source])
            assert not count or cost > left - 1e-6 * problem.limit


@pytest.mark.parametrize("name", UNITS)
@given(problem=problems(), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_budget_is_met_to_within_a_channel(name: str, problem: Problem, seed: int) -> None:
    """What is left does not pay for a channel everywhere: to lift one of the dearest class by the widest step."""
    costs = [problem.channel_costs(size) for size in problem.classes]
    steps = [step for of_class in costs for step in np.diff(of_class)]
    top = sum(size.channels * of_class[-1] for size, of_class in zip(problem.classes, costs, strict=True))
    if problem.whole or problem.limit is None or problem.limit >= top or (problem.costs is not None and 0 in steps):
        return
    left = problem.limit - problem.spent(allocate(name, problem, seed))
    assert left <= max(steps, default=0) + 1e-6 * problem.limit


@pytest.mark.parametrize("name", UNITS)
def test_equal_inputs_give_equal_levels(name: str) -> None:
    problem = Problem((ClassSize("a", 64, 9), ClassSize("b", 32, 18)), Palette.parse("w1a1+w4a4"), 2.0, 8, 5)
    assert allocate(name, problem) == allocate(name, problem)


@pytest.mark.parametrize("name", [name for name in UNITS if wants_logits(unit(name))])
def test_allocators_that_learn_or_measure_want_logits(name: str) -> None:
    with pytest.raises(ValueError, match="logits: expected"):
        unit(name).allocate(Problem((ClassSize("a", 8, 9),), Palette.parse("w1a1+w4a4"), 2.0), None)


def test_a_budget_below_the_narrowest_level_is_refused() -> None:
    with pytest.raises(UserError, match=r"expected at least 2, the narrowest level of w2a2\+w4a4, got 1\.5"):
        Problem((ClassSize("a", 8, 9),), Palette.parse("w2a2+w4a4"), 1.5)


def test_costs_that_fit_neither_palette_nor_budget_are_refused() -> None:
    sizes, palette = (ClassSize("a", 8, 9),), Palette.parse("w2a2+w4a4")

    def problem(budget: float, per_channel: dict[str, tuple[float, ...]], bits: float | None = None) -> Problem:
        costs = ChannelCosts(unit="latency_us", budget=budget, per_channel=per_channel)
        return Problem(sizes, palette, bits, costs=costs)

    with pytest.raises(UserError, match=r"expected at least 4 latency_us, .*w2a2\+w4a4 take, got 3"):
        problem(3, {"a": (0.5, 1)})
    with pytest.raises(UserError, match="costs: expected tensor class 'a', got b"):
        problem(9, {"b": (0.5, 1)})
    with pytest.raises(UserError, match="costs of a: expected one for each of the 2 levels"):
        problem(9, {"a": (0.5,)})
    with pytest.raises(UserError, match=r"budget: expected one, got 2\.5 bits per weight and one in latency_us"):
        problem(9, {"a": (0.5, 1)}, 2.5)
    with pytest.raises(ValueError, match="never fall"):
        problem(9, {"a": (1, 0.5)})
