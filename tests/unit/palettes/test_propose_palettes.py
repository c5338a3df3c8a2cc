"""Palettes: what is dropped and why, what is explored, hand-kept ones."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from soniq_dse.errors import UserError
from soniq_dse.hardware.levels import best_native_levels
from soniq_dse.hardware.load import load_hardware
from soniq_dse.palettes import KeptPalette, kept_palettes, propose_palettes, why_level_cannot_win
from soniq_dse.records.palette import Level, LevelCost, Palette, PaletteChoice

HW = load_hardware("avx512")


def cost(name: str, cycles: float) -> LevelCost:
    return LevelCost(level=Level.parse(name), cycles=cycles, cycles_per_mac=cycles, kernel="k", reason="r")


def by_name(choices: tuple[PaletteChoice, ...]) -> dict[str, PaletteChoice]:
    return {choice.name: choice for choice in choices}


TOY = [cost("w1a1", 100), cost("w1a2", 110), cost("w2a2", 200), cost("w2a4", 300), cost("w4a4", 400), cost("w8a8", 400)]


def test_a_level_that_a_wider_one_beats_is_dropped_with_both_named() -> None:
    levels = [cost("w2a2", 200), cost("w2a4", 500), cost("w8a8", 400)]
    reason = why_level_cannot_win(levels[1], levels)
    assert reason == "w2a4 cannot win: 1.25 times the cycles of w8a8, which is at least as wide in both"
    choices = by_name(propose_palettes(HW, levels, kept=()))
    assert not choices["w2a4"].explored
    assert not any("w2a4" in name for name, choice in choices.items() if choice.explored)


def test_equal_cost_is_kept_since_it_is_smaller() -> None:
    assert why_level_cannot_win(TOY[4], TOY) is None


def test_weight_only_loses_to_eight_bits_where_slower_and_stays_where_faster() -> None:
    eight = cost("w8a8", 400)
    assert "8 bits in both" in (why_level_cannot_win(cost("w4", 900), [eight, cost("w4", 900)]) or "")
    assert why_level_cannot_win(cost("w4", 300), [eight, cost("w4", 300)]) is None


def test_pairs_that_no_budget_or_no_time_separates_are_refused() -> None:
    choices = by_name(propose_palettes(HW, [*TOY, cost("w4a8", 420)], kept=()))
    assert "equal weight bits" in choices["w1a1+w1a2"].reason
    assert "saves no time" in choices["w4a4+w8a8"].reason
    assert (
        "narrower activations"
        in by_name(propose_palettes(HW, [cost("w1a4", 90), cost("w2a2", 200)], kept=()))["w1a4+w2a2"].reason
    )


def test_explored_palettes_step_up_in_bits_and_cost() -> None:
    cycles = {entry.level: entry.cycles for entry in TOY}
    for choice in propose_palettes(HW, TOY, kept=()):
        if choice.explored:
            for narrow, wide in itertools.pairwise(choice.palette.levels):
                assert narrow.weight_bits < wide.weight_bits
                assert narrow.activation_bits <= wide.activation_bits
                assert cycles[wide] >= 1.15 * cycles[narrow]


@pytest.mark.parametrize("limit", [1, 3, 6, 10])
def test_no_more_than_asked_and_no_palette_twice(limit: int) -> None:
    choices = propose_palettes(HW, TOY, limit=limit)
    assert sum(choice.explored for choice in choices) == limit
    names = [choice.name for choice in choices]
    assert len(names) == len(set(names))
    assert all(choice.reason for choice in choices)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "granite_rapids", "neon"])
def test_the_default_covers_one_to_three_levels_and_wider_activations(machine: str) -> None:
    """With costs by recipes alone: no model, no kernels. On neon no three levels are worth it."""
    hw = load_hardware(machine)
    costs = [
        LevelCost(
            level=level, cycles=1e9 / n.macs_per_cycle, cycles_per_mac=1 / n.macs_per_cycle, kernel=n.recipe, reason=""
        )
        for level, n in best_native_levels(hw).items()
    ]
    explored = [choice for choice in propose_palettes(hw, costs) if choice.explored]
    assert 6 <= len(explored) <= 10
    assert {len(choice.palette.levels) for choice in explored} >= ({1, 2} if machine == "neon" else {1, 2, 3})
    assert any(v.activation_bits > v.weight_bits for choice in explored for v in choice.palette.levels)


def test_budgets_lie_between_the_levels() -> None:
    for choice in propose_palettes(HW, TOY):
        levels = choice.palette.levels
        if choice.explored and len(levels) > 1:
            assert choice.budgets_bits_per_weight
        for budget in choice.budgets_bits_per_weight:
            assert levels[0].weight_bits < budget < levels[-1].weight_bits


def test_kept_palettes_come_first_and_say_why_not() -> None:
    kept = (
        KeptPalette(palette="w4a4+w1a1", budgets_bits_per_weight=(2.0,), source="a paper"),
        KeptPalette(palette="w3a3", source="a paper"),
    )
    choices = propose_palettes(HW, TOY, kept=kept)
    assert (choices[0].name, choices[0].kind, choices[0].explored) == ("w1a1+w4a4", "kept", True)
    assert choices[0].budgets_bits_per_weight == (2.0,)
    refused = by_name(choices)["w3a3"]
    assert not refused.explored
    assert refused.reason.startswith("avx512 does not compute w3a3 natively")


def test_shipped_palettes_are_valid_and_distinct() -> None:
    shipped = [Palette.parse(entry.palette) for entry in kept_palettes()]
    assert len(shipped) >= 3
    assert len({palette.name for palette in shipped}) == len(shipped)


@pytest.mark.parametrize(
    ("text", "got"),
    [("palette: [", "bad.yaml"), ("palette: w1-w2\nsource: x", "w1-w2"), ("palette: w1a1", "source"), ("", "bad")],
)
def test_a_bad_kept_palette_is_named(tmp_path: Path, text: str, got: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=got):
        kept_palettes(tmp_path)


def test_limit_below_one() -> None:
    with pytest.raises(UserError, match="at least 1 palette, got 0"):
        propose_palettes(HW, TOY, limit=0)


def test_a_network_with_nothing_to_mix_is_refused() -> None:
    """All its layers are pinned: the costs are zero, and so are their ratios."""
    with pytest.raises(UserError, match="there is nothing to mix"):
        propose_palettes(HW, [cost("w1a1", 0), cost("w8a8", 0)])
