"""Native levels follow from what a descriptor lists."""

from __future__ import annotations

import pytest

from soniq_dse.hardware.levels import best_native_levels, missing_instructions, native_levels
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Level


def without(hw: HardwareModel, mnemonic: str) -> HardwareModel:
    return hw.model_copy(update={"instructions": {k: v for k, v in hw.instructions.items() if k != mnemonic}})


def test_an_instruction_adds_its_levels() -> None:
    hw = load_hardware("avx512")
    lacking = without(hw, "vpdpbusd")
    gained = set(best_native_levels(hw)) - set(best_native_levels(lacking))
    assert Level.parse("w8a8") in gained
    assert Level.parse("w1a1") not in gained
    recipe = hw.recipes["dot_w8a8"]
    assert missing_instructions(lacking, recipe, 512) == ("vpdpbusd",)
    assert missing_instructions(hw, recipe, 512) == ()


def test_an_instruction_without_its_feature_does_not_count() -> None:
    hw = load_hardware("avx512")
    lacking = hw.model_copy(update={"features": tuple(f for f in hw.features if f != "avx512_vnni")})
    assert Level.parse("w8a8") not in best_native_levels(lacking)


def test_width_below_the_least_is_named() -> None:
    hw = load_hardware("avx512")
    assert missing_instructions(hw, hw.recipes["table_w2a2"], 256) == ("a width of 512 bits",)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "neon", "granite_rapids"])
def test_order_and_reasons(machine: str) -> None:
    hw = load_hardware(machine)
    levels = native_levels(hw)
    keys = [(n.level.weight_bits, n.level.activation_bits) for n in levels]
    assert keys == sorted(keys)
    for level, best in best_native_levels(hw).items():
        ways = [n for n in levels if n.level == level]
        assert best == ways[0]
        assert best.macs_per_cycle >= max(n.macs_per_cycle for n in ways) * (1 - 1e-6)
        assert level.name in best.reason
        assert best.bound in best.reason
        assert best.n_group == round(hw.recipes[best.recipe].lanes_per_width_bit * best.width_bits)


def test_twice_the_width_on_free_ports_is_twice_the_rate() -> None:
    hw = load_hardware("granite_rapids")
    rates = {n.width_bits: n.macs_per_cycle for n in native_levels(hw) if n.recipe == "dot_w8a8"}
    assert rates[512] == pytest.approx(2 * rates[256])
