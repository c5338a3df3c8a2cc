"""Port bounds and native levels worked by hand."""

from __future__ import annotations

import pytest

from soniq_dse.hardware.levels import native_levels
from soniq_dse.hardware.load import load_hardware
from soniq_dse.hardware.ports import port_bound

# Loads per set of admissible ports -> (cycles, ports of the bound).
WORKED = [
    # Nothing to do.
    ({}, 0.0, ()),
    # Three operations that fit only port a: 3 / 1.
    ({"a": 3}, 3.0, ("a",)),
    # Two on a, four on a or b. {a}: 2. {a, b}: (2 + 4) / 2 = 3.
    ({"a": 2, "ab": 4}, 3.0, ("a", "b")),
    # Five on a, one on a or b. {a}: 5 beats (5 + 1) / 2 = 3.
    ({"a": 5, "ab": 1}, 5.0, ("a",)),
    # One on ab, one on bc, one on ac: {ab} holds one of them: 1/2; {abc} all three: 3/3 = 1.
    ({"ab": 1, "bc": 1, "ac": 1}, 1.0, ("a", "b", "c")),
    # Zen 4 vpdpbusd (a, b: 2 cycles) and vpermb (b, c: 2 cycles): {abc}: 4/3, more than {ab}: 2/2; 0.75 pairs a cycle.
    ({"ab": 2, "bc": 2}, 4 / 3, ("a", "b", "c")),
    # Zen 4 vpopcntq and vpdpbusd, both on a, b for 2 cycles: 4/2 = 2, so half a pair a cycle.
    ({"ab": 4}, 2.0, ("a", "b")),
    # Zen 4 W1A1 by popcount: vpopcntq on ab (2), vpxorq and vpaddq on abcd (2 each): {abcd}: 6/4 = 1.5 beats {ab}: 1.
    ({"ab": 2, "abcd": 4}, 1.5, ("a", "b", "c", "d")),
]


@pytest.mark.parametrize(("loads", "cycles", "ports"), WORKED)
def test_bound(loads: dict[str, float], cycles: float, ports: tuple[str, ...]) -> None:
    bound = port_bound({frozenset(names): load for names, load in loads.items()})
    assert bound.cycles == pytest.approx(cycles, rel=1e-12)
    assert bound.ports == ports


# machine, recipe, width -> MAC/cycle.
LEVELS = [
    # 512 products in 1.5 cycles (last line of WORKED); loads: 1/6 of 2 cycles + 1/4 of 1 on two pipes is less.
    ("avx512", "popcount_w1a1", 512, 512 / 1.5),
    # vpdpbusd: 64 products in one cycle of {fp0, fp1}.
    ("avx512", "dot_w8a8", 512, 64.0),
    # vpxorq and vpaddq on p0, p5, vpopcntq on p5: 3 operations on two ports.
    ("granite_rapids", "popcount_w1a1", 512, 512 / 1.5),
    # vpdpbusd on p0, p5: two a cycle.
    ("granite_rapids", "dot_w8a8", 512, 128.0),
    # 256 bits: vpdpbusd on p0, p1: two a cycle, 32 products each.
    ("granite_rapids", "dot_w8a8", 256, 64.0),
    # vpmaddwd on {fp0, fp3}: 16 products in half a cycle; vpaddd has four pipes: (1 + 1) / 4 = 1/2 as well.
    ("avx2", "maddwd_w8a8", 256, 32.0),
    # sdot: 16 products, two a cycle.
    ("neon", "dot_w8a8", 128, 32.0),
]


@pytest.mark.parametrize(("machine", "recipe", "width", "macs_per_cycle"), LEVELS)
def test_native_level(machine: str, recipe: str, width: int, macs_per_cycle: float) -> None:
    found = [n for n in native_levels(load_hardware(machine)) if (n.recipe, n.width_bits) == (recipe, width)]
    assert [n.macs_per_cycle for n in found] == [pytest.approx(macs_per_cycle, rel=1e-9)]
