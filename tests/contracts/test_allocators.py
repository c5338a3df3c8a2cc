"""What every allocator must keep; the registry decides which there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse import registry
from soniq_dse.errors import UserError
from soniq_dse.qat.allocators import Base, ClassSize, Levels, Problem
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
    return Problem(tuple(sizes), palette, budget, draw(st.sampled_from([1, 4, 16])), draw(st.integers(0, 99)))


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
        cut += sum(count % problem.k_group != 0 for count in counts) > (size.channels % problem.k_group != 0)
    assert cut <= (problem.budget_bits is not None), "one group at most ends where the budget does"


@pytest.mark.parametrize("name", UNITS)
@given(problem=problems())
@settings(max_examples=30, deadline=None)
def test_no_group_that_still_fits_is_left_behind(name: str, problem: Problem) -> None:
    """Levels of distinct bits under a budget: whatever stays below the top would break the budget if it were lifted."""
    bits = problem.weight_bits
    if problem.budget_bits is None or len(set(bits)) < len(bits):
        return
    levels = allocate(name, problem)
    left = (problem.budget_bits - problem.bits_per_weight(levels)) * problem.total_weights
    for size in problem.classes:
        for source in range(len(bits) - 1):
            count = min(levels[size.name].count(source), problem.k_group)
            cost = count * size.weights_per_channel * (bits[source + 1] - bits[source])
            assert not count or cost > left - 1e-6 * problem.total_weights


@pytest.mark.parametrize("name", UNITS)
@given(problem=problems(), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_budget_is_met_to_within_a_channel(name: str, problem: Problem, seed: int) -> None:
    """What is left does not pay for a channel everywhere: to lift one of the dearest class by the widest step."""
    bits = problem.weight_bits
    if problem.budget_bits is None or problem.budget_bits >= bits[-1]:
        return
    left = (problem.budget_bits - problem.bits_per_weight(allocate(name, problem, seed))) * problem.total_weights
    dearest = max(size.weights_per_channel for size in problem.classes) * max(np.diff(bits), default=0)
    assert left <= dearest + 1e-6 * problem.total_weights


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
