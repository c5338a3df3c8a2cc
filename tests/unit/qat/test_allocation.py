"""Allocators by hand, and the multiplier that meets the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.errors import UserError
from soniq_dse.qat.allocators import ClassSize, Problem
from soniq_dse.qat.allocators.hardening import harden
from soniq_dse.qat.allocators.layer_matched_random import LayerMatchedRandom
from soniq_dse.qat.allocators.uniform import Uniform
from soniq_dse.qat.budget import soft_shares, solve_multiplier
from soniq_dse.records.channel_costs import ChannelCosts
from soniq_dse.records.palette import Palette


@given(
    seed=st.integers(0, 2**32 - 1),
    budget=st.floats(1, 8),
    temperature=st.floats(0.01, 1),
    palette=st.sampled_from([(1, 4), (1, 2, 8), (2, 2, 4), (1, 8)]),
)
@settings(max_examples=150, deadline=None)
def test_the_expected_bits_meet_the_budget(
    seed: int, budget: float, temperature: float, palette: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (50, len(palette)))
    bits, weights = np.array(palette, dtype=float), rng.integers(1, 999, 50).astype(float)
    nu = solve_multiplier(logits, bits, weights, budget, temperature)
    expected = (soft_shares(logits, bits, nu, temperature) @ bits) @ weights / weights.sum()
    assert expected == pytest.approx(np.clip(budget, bits.min(), bits.max()), rel=1e-9)


@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0, 1),
    temperature=st.floats(0.01, 1),
    scale=st.sampled_from([1.0, 1e-3, 1e-9]),
)
@settings(max_examples=100, deadline=None)
def test_the_expected_cost_meets_the_budget_where_classes_differ(
    seed: int, share: float, temperature: float, scale: float
) -> None:
    """Costs of every class by table, some levels as dear as their neighbours; the budget anywhere in reach."""
    rng = np.random.default_rng(seed)
    logits, weights = rng.normal(0, 2, (50, 3)), rng.integers(1, 999, 50).astype(float)
    of_class = np.cumsum(rng.integers(0, 40, (5, 3)) + np.array([1, 0, 0]), axis=1) * scale
    costs = np.repeat(of_class, 10, axis=0) / weights[:, None]
    least, most = costs.min(axis=1) @ weights, costs.max(axis=1) @ weights
    budget = (least + share * (most - least)) / weights.sum()
    nu = solve_multiplier(logits, costs, weights, budget, temperature)
    expected = (soft_shares(logits, costs, nu, temperature) * costs).sum(axis=1) @ weights / weights.sum()
    assert expected == pytest.approx(budget, rel=1e-9)


def test_levels_of_equal_bits_cost_nothing() -> None:
    assert solve_multiplier(np.ones((4, 2)), np.array([2.0, 2.0]), np.ones(4), 2.0, 1.0) == 0.0


def test_the_channels_that_want_it_most_are_lifted() -> None:
    """Class b costs four times as much a channel, so its margin of 3 ranks below a's margin of 1: a 1, b 3/4, a 0.5.

    Budget: 12 weights * 1 bit + 9 bits over 12 weights; a lift costs 3 bits in a, 12 in b: three lifts in a.
    """
    problem = Problem((ClassSize("a", 4, 1), ClassSize("b", 2, 4)), Palette.parse("w1a1+w4a4"), (12 + 9) / 12)
    margins = {"a": [1.0, 0.5, -2.0, 0.1], "b": [3.0, 0.2]}
    logits = {name: np.array([[0.0, margin] for margin in of_class]) for name, of_class in margins.items()}
    assert harden(problem, logits) == {"a": (1, 1, 0, 1), "b": (0, 0)}


def test_a_wanted_lift_that_does_not_fit_makes_room_for_the_next() -> None:
    problem = Problem((ClassSize("a", 2, 10), ClassSize("b", 2, 1)), Palette.parse("w1a1+w2a2"), (22 + 2) / 22)
    logits = {"a": np.array([[0.0, 99.0], [0.0, 98.0]]), "b": np.array([[0.0, -1.0], [0.0, -2.0]])}
    assert harden(problem, logits) == {"a": (0, 0), "b": (1, 1)}


def test_what_is_fixed_is_no_channels_to_spend() -> None:
    costs = ChannelCosts(unit="latency_us", budget=20, per_channel={"a": (1.0, 3.0)}, fixed=10)
    problem = Problem((ClassSize("a", 4, 9),), Palette.parse("w1a1+w4a4"), None, costs=costs)
    assert harden(problem, {"a": np.array([[0.0, 1.0]] * 4)}) == {"a": (1, 1, 1, 0)}  # 10 + 3 + 3 + 3 + 1
    with pytest.raises(UserError, match="expected at least 14 latency_us"):
        replace(problem, costs=costs.model_copy(update={"budget": 13}))


def test_uniform_gives_every_class_the_same_shares() -> None:
    sizes = (ClassSize("a", 64, 9), ClassSize("b", 128, 300))
    levels = Uniform().allocate(Problem(sizes, Palette.parse("w2a2+w4a4"), 2.5, 16), None)
    assert [levels[name].count(1) for name in "ab"] == [16, 32]
    three = Uniform().allocate(Problem(sizes, Palette.parse("w1a1+w2a2+w4a4"), 3.0, 16), None)
    assert [[three[name].count(level) for level in range(3)] for name in "ab"] == [[0, 32, 32], [0, 64, 64]]


def test_layer_matched_random_keeps_the_counts_and_moves_the_channels() -> None:
    problem = Problem((ClassSize("a", 64, 9), ClassSize("b", 64, 9)), Palette.parse("w1a1+w4a4"), 2.0, 8, seed=1)
    rng = np.random.default_rng(0)
    logits = {name: rng.normal(size=(64, 2)) for name in "ab"}
    learned, drawn = harden(problem, logits), LayerMatchedRandom().allocate(problem, logits)
    for name in "ab":
        assert sorted(drawn[name]) == sorted(learned[name])
        assert drawn[name] != learned[name]
