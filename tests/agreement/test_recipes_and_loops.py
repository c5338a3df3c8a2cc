"""At shipped widths a recipe and the loop that a compiler made of the same algorithm agree."""

from __future__ import annotations

import pytest

from soniq_dse.cost.choice import Chooser
from soniq_dse.cost.incore import InCore
from soniq_dse.hardware.levels import native_levels
from soniq_dse.hardware.load import load_hardware
from soniq_dse.kernels.catalog import catalog, missing_features, token_bits
from soniq_dse.kernels.loops import kept_loop
from soniq_dse.records.cost import KernelSpec
from soniq_dse.records.hardware import HardwareModel, NativeLevel
from soniq_dse.records.palette import Level

MACHINES = ("avx512", "avx2", "granite_rapids", "ice_lake", "skylake")
TILED = [spec for spec in catalog() if spec.features and spec.tile[0] > 1 and kept_loop(spec.symbol)]
"""Kernels with a kept loop; recipes speak of tiles of several rows."""


def recipe_of(hw: HardwareModel, spec: KernelSpec) -> NativeLevel | None:
    """The fastest way by the kernel's format and algorithm, at a width that its ISA has."""
    level = Level(weight_bits=token_bits(spec.wgt), activation_bits=token_bits(spec.act))
    width = 512 if spec.isa.startswith("avx512") else 256
    alike = [
        n
        for n in native_levels(hw)
        if n.level == level and n.width_bits == width and n.recipe.partition("_")[0] in spec.algorithm
    ]
    return max(alike, key=lambda n: n.macs_per_cycle, default=None)


def test_there_are_loops_to_compare() -> None:
    assert len(TILED) >= 10


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("spec", TILED, ids=lambda spec: spec.symbol)
def test_loop_reaches_its_recipe_within_the_widening(machine: str, spec: KernelSpec) -> None:
    """The innermost loop leaves the widening of narrow sums out: at most half of its operations (4-bit tables).

    Where operations bind it, it takes no more than a third beyond the recipe (copies where registers run short); where
    loads bind it, or it is one vector wide and loads an activation for every product, its tile is smaller than the
    recipe's, and only the first half is asked.
    """
    hw = load_hardware(machine)
    if missing_features(spec, hw.features):
        pytest.skip(f"{machine} lacks {', '.join(missing_features(spec, hw.features))}")
    recipe = recipe_of(hw, spec)
    if recipe is None:
        pytest.skip(f"{machine} has no recipe of {spec.algorithm} at {spec.wgt}, {spec.act}")
    loop = kept_loop(spec.symbol)
    assert loop is not None
    cost = InCore().loop_cost(loop, hw)
    ratio = loop.macs_per_iteration / cost.cycles / recipe.macs_per_cycle
    assert ratio <= 2.01
    assert cost.bound == "load" or spec.tile[1] <= recipe.n_group or ratio >= 1 / 1.34


@pytest.mark.parametrize("machine", MACHINES)
def test_every_kept_loop_has_its_figures(machine: str) -> None:
    """No kept loop that a machine can run holds a vector instruction without data in its descriptor."""
    hw = load_hardware(machine)
    chooser = Chooser(hw, InCore())
    priced = [chooser._of_spec(spec) for spec in catalog() if spec.features and not missing_features(spec, hw.features)]
    assert priced
    assert all(kernel.loop.cycles > 0 for kernel in priced)
