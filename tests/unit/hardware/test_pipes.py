"""Pipes are recovered, up to their names, from the rates that port maps worked out by hand give."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.hardware.pipes import (
    Mix,
    Occupation,
    aligned,
    balanced_mix,
    infer_pipes,
    mixed_cycles,
    occupations,
)

ISSUE_WIDTH = 6.0
# Golden Cove at 256 bits: ports 0, 1, 5 as 0, 1, 2. Multiply on 0, 1; shuffle on 1, 5; popcount on 5.
GOLDEN_COVE = {
    "add": ({0, 1, 2}, 1), "and": ({0, 1, 2}, 1), "fma": ({0, 1}, 1), "dot": ({0, 1}, 1), "shift": ({0, 1}, 1),
    "shuffle": ({1, 2}, 1), "addps": ({1, 2}, 1), "permute": ({2}, 1), "popcount": ({2}, 1), "mulld": ({0, 1}, 2),
}  # fmt: skip
# Zen 4 at 512 bits: each operation passes a 256-bit pipe twice.
ZEN4 = {
    "add": ({0, 1, 2, 3}, 2), "and": ({0, 1, 2, 3}, 2), "dot": ({0, 1}, 2), "popcount": ({0, 1}, 2),
    "shuffle": ({1, 2}, 2), "permute": ({1, 2}, 2), "shift": ({2, 3}, 2), "addps": ({2, 3}, 2),
}  # fmt: skip
Map = dict[str, tuple[set[int], int]]


def readings_of(ports: Map) -> tuple[dict[str, float], dict[Mix, float]]:
    use = {name: Occupation(frozenset(pipes), float(cycles)) for name, (pipes, cycles) in ports.items()}
    rates = {name: one.cycles / len(one.pipes) for name, one in use.items()}
    pairs = itertools.combinations(sorted(ports), 2)
    mixes = [balanced_mix(a, rates[a], b, rates[b]) for a, b in pairs]
    return rates, {mix: mixed_cycles(mix, use[mix.first], use[mix.second], ISSUE_WIDTH) for mix in mixes}


def same_but_for_names(found: dict[str, Occupation], wanted: Map) -> bool:
    pipes = sorted(set().union(*(one.pipes for one in found.values())))
    targets = sorted(set().union(*(set(one) for one, _ in wanted.values())))
    return len(pipes) == len(targets) and any(
        all({renamed[pipe] for pipe in found[name].pipes} == set(wanted[name][0]) for name in wanted)
        for renamed in (dict(zip(pipes, order, strict=True)) for order in itertools.permutations(targets))
    )


@pytest.mark.parametrize("ports", [GOLDEN_COVE, ZEN4], ids=["golden cove 256", "zen 4 512"])
def test_a_port_map_is_recovered(ports: Map) -> None:
    found = infer_pipes(*readings_of(ports), ISSUE_WIDTH)
    assert {name: one.cycles for name, one in found.items()} == {name: cycles for name, (_, cycles) in ports.items()}
    assert same_but_for_names(found, ports)


@given(st.lists(st.floats(-0.01, 0.03), min_size=45, max_size=45))
@settings(max_examples=5, deadline=None)
def test_a_port_map_is_recovered_from_readings_that_are_a_little_off(noise: list[float]) -> None:
    rates, mixes = readings_of(GOLDEN_COVE)
    noisy = {mix: cycles * (1 + off) for (mix, cycles), off in zip(sorted(mixes.items()), noise, strict=True)}
    assert same_but_for_names(infer_pipes(rates, noisy, ISSUE_WIDTH), GOLDEN_COVE)


def test_a_balanced_mix_slows_down_by_the_jaccard_index() -> None:
    # Sets {0,1} and {1,2} share one of three pipes; alone each takes 1 cycle for its 2 copies, so mixed (2+2)/3 = 4/3.
    mix = balanced_mix("a", 0.5, "b", 0.5)
    assert (mix.first_count, mix.second_count) == (1, 1)
    a, b = Occupation(frozenset({0, 1}), 1.0), Occupation(frozenset({1, 2}), 1.0)
    assert mixed_cycles(mix, a, b, ISSUE_WIDTH) == pytest.approx(0.5 * (1 + 1 / 3))


@pytest.mark.parametrize(
    ("first", "second", "counts"), [(0.5, 1.0, (2, 1)), (0.333, 0.5, (3, 2)), (0.5, 0.53, (1, 1)), (0.2, 2.0, (3, 1))]
)
def test_mixes_are_balanced_and_short(first: float, second: float, counts: tuple[int, int]) -> None:
    mix = balanced_mix("a", first, "b", second)
    assert (mix.first_count, mix.second_count) == counts


def test_rates_tell_how_many_pipes_for_how_long() -> None:
    assert occupations(0.5)[:2] == [(2, 1.0), (4, 2.0)]
    assert occupations(2.02)[0] == (1, 2.0)
    assert occupations(0.667)[0] == (3, 2.0)
    assert occupations(17.3) == [(1, 17.3)]


def test_alignment_keeps_the_numbers_of_the_narrower_width() -> None:
    narrow = {"fma": Occupation(frozenset({0, 1}), 1.0), "perm": Occupation(frozenset({2}), 1.0)}
    wide = {"fma": Occupation(frozenset({0, 1}), 1.0), "perm": Occupation(frozenset({1}), 1.0)}
    renamed = aligned(wide, narrow)
    assert renamed["perm"].pipes == {2}
    assert renamed["fma"].pipes in ({0, 2}, {1, 2})
