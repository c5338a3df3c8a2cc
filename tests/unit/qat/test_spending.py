"""Levels within what they really cost, by costs that no table holds."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.qat.allocators import ClassSize, Levels, Problem
from soniq_dse.qat.allocators.hardening import harden
from soniq_dse.qat.spending import CLOSE, spend
from soniq_dse.records.channel_costs import ChannelCosts
from soniq_dse.records.palette import Palette

SIZES = (ClassSize("a", 64, 9), ClassSize("b", 128, 3))
TABLE = {"a": (1.0, 2.0, 4.0), "b": (0.5, 0.5, 3.0)}
FIXED = 10.0
CHEAPEST, DEAREST = FIXED + 64 + 64, FIXED + 256 + 384


def problem(budget: float, k_group: int = 16) -> Problem:
    costs = ChannelCosts(unit="latency_us", budget=budget, per_channel=TABLE, fixed=FIXED)
    return Problem(SIZES, Palette.parse("w1a1+w2a2+w4a4"), None, k_group, 0, costs)


def real(levels: Levels, per_level: float) -> float:
    """The table, and ``per_level`` for every level that a class has besides its first."""
    linear = FIXED + math.fsum(TABLE[name][level] for name, of_class in levels.items() for level in of_class)
    return linear + per_level * sum(len(set(of_class)) - 1 for of_class in levels.values())


@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0.02, 1),
    per_level=st.floats(0, 40),
    k_group=st.sampled_from([1, 16, 64]),
)
@settings(max_examples=60, deadline=None)
def test_the_real_cost_is_within_the_budget(seed: int, share: float, per_level: float, k_group: int) -> None:
    rng = np.random.default_rng(seed)
    logits = {size.name: rng.normal(size=(size.channels, 3)) for size in SIZES}
    asked = problem(CHEAPEST + share * (DEAREST - CHEAPEST), k_group)
    levels = spend(asked, lambda moved: harden(moved, logits), lambda found: real(found, per_level))
    assert asked.costs is not None
    assert real(levels, per_level) <= asked.costs.budget * (1 + 1e-9)
    assert {name: len(of_class) for name, of_class in levels.items()} == {"a": 64, "b": 128}
    if k_group == 1 and not per_level:  # a channel is at most 4 of 128 or more
        assert real(levels, 0.0) >= min(CLOSE * asked.costs.budget, asked.costs.budget - 4.0)


def test_a_table_that_is_too_dear_is_made_up_for() -> None:
    """Everything really costs half: twice as much is bought, and no more."""
    asked = problem(200.0, 1)
    logits = {size.name: np.tile([0.0, 1.0, 2.0], (size.channels, 1)) for size in SIZES}
    levels = spend(asked, lambda moved: harden(moved, logits), lambda found: 0.5 * real(found, 0.0))
    assert CLOSE * 200 <= 0.5 * real(levels, 0.0) <= 200


def test_where_nothing_fits_the_cheapest_is_left() -> None:
    levels = spend(
        problem(CHEAPEST + 1), lambda moved: harden(moved, {"a": np.zeros((64, 3)), "b": np.zeros((128, 3))}),
        lambda found: 1e6,
    )  # fmt: skip
    assert levels == {"a": (0,) * 64, "b": (0,) * 128}
