"""Which bit pairs a machine computes natively: derived from its recipes and the instructions it lists, never declared.

A recipe serves every vector width at which the descriptor has all its instructions, so that adding an instruction to a
descriptor adds a level, and removing one takes it away.
"""

from __future__ import annotations

from soniq_dse.hardware.ports import issue_slots, port_bound, port_loads
from soniq_dse.records.hardware import HardwareModel, InstructionTiming, NativeLevel, Recipe
from soniq_dse.records.palette import Level


def native_levels(hw: HardwareModel) -> tuple[NativeLevel, ...]:
    """Every level with every recipe and width that serves it: narrowest level first, within it the fastest first.

    ``macs_per_cycle`` is the bound of ports and issue width for the recipe's step; no kernel that follows it does more.
    """
    found = [
        _native_level(hw, name, recipe, simd.width_bits)
        for name, recipe in hw.recipes.items()
        for simd in hw.simd
        if missing_instructions(hw, recipe, simd.width_bits) == ()
    ]
    return tuple(sorted(found, key=_rank))


def best_native_levels(hw: HardwareModel) -> dict[Level, NativeLevel]:
    """The fastest way of each native level, narrowest level first."""
    best: dict[Level, NativeLevel] = {}
    for native in native_levels(hw):
        best.setdefault(native.level, native)
    return best


def missing_instructions(hw: HardwareModel, recipe: Recipe, width_bits: int) -> tuple[str, ...]:
    """What a recipe lacks at a width: instructions without timing or feature, or a width below its least."""
    if width_bits < recipe.min_width_bits:
        return (f"a width of {recipe.min_width_bits} bits",)
    return tuple(name for name in recipe.instructions if step_timing(hw, name, width_bits) is None)


def step_timing(hw: HardwareModel, mnemonic: str, width_bits: int) -> InstructionTiming | None:
    """Timing of a recipe's instruction at a width; scalar instructions (width 0) serve every width.

    None where the descriptor lists no such timing, or the machine lacks a feature that the instruction needs.
    """
    instruction = hw.instructions.get(mnemonic)
    if instruction is None or not set(instruction.features) <= set(hw.features):
        return None
    timing = instruction.widths.get(width_bits)
    if timing is None and set(instruction.widths) == {0}:
        return instruction.widths[0]
    return timing


def recipe_uses(hw: HardwareModel, recipe: Recipe, width_bits: int) -> list[tuple[InstructionTiming, float]]:
    """Timing and count of each instruction of a recipe's step that the machine has at a width."""
    timings = [(step_timing(hw, name, width_bits), count) for name, count in recipe.instructions.items()]
    return [(timing, count) for timing, count in timings if timing is not None]


def _rank(native: NativeLevel) -> tuple[int, int, float, int, str]:
    """Level, then the fastest; of equals the widest vector, which needs the fewest instructions."""
    level = native.level
    return level.weight_bits, level.activation_bits, -round(native.macs_per_cycle, 6), -native.width_bits, native.recipe


def _native_level(hw: HardwareModel, name: str, recipe: Recipe, width_bits: int) -> NativeLevel:
    uses = recipe_uses(hw, recipe, width_bits)
    ports = port_bound(port_loads(uses))
    issue_cycles = issue_slots(uses) / hw.issue_width.value
    cycles, bound = max((ports.cycles, ports.text), (issue_cycles, f"issue width {hw.issue_width.value:g}"))
    macs = recipe.macs_per_width_bit * width_bits
    level = Level(weight_bits=recipe.weight_bits, activation_bits=recipe.activation_bits)
    steps = " + ".join(f"{count:.3g} {mnemonic}" for mnemonic, count in recipe.instructions.items())
    work = f"{macs:g} products of {level.name} in {cycles:.3g} cycles at {width_bits} bits"
    return NativeLevel(
        level=level,
        width_bits=width_bits,
        recipe=name,
        k_group=recipe.k_group,
        n_group=max(1, round(recipe.lanes_per_width_bit * width_bits)),
        macs_per_cycle=macs / cycles,
        bound=bound,
        reason=f"{work} by {steps}; bound by {bound}",
    )
