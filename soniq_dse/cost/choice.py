"""Which kernels can run a part of a layer on a machine, and what a pass of the loop of each costs.

Priced is the kept compiled loop of a kernel, and not below its recipe, which counts what lies outside the innermost
loop too (widening of narrow sums). Where no loop is kept, the recipe of its format prices it; where the machine has no
vector kernel yet, the recipe of its fastest native level that serves. Each answer says which. What a whole part costs
on each, and so which is taken: ``layers``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, prod
from typing import Literal

from soniq_dse.cost import Base, Calls, LoopCost
from soniq_dse.cost.energy import Energy
from soniq_dse.errors import UserError, nearest
from soniq_dse.hardware.levels import native_levels, recipe_uses, step_timing
from soniq_dse.hardware.ports import evenly_spread, issue_slots, port_bound, port_loads
from soniq_dse.kernels.catalog import (
    COUNTER_INSTRUCTIONS,
    catalog,
    kernel,
    kernels_for,
    missing_features,
    packed_activation_bits,
    token_bits,
)
from soniq_dse.kernels.code import KernelCode, shared_code
from soniq_dse.kernels.loops import kept_loop
from soniq_dse.records.choice import KernelChoice, PartShape
from soniq_dse.records.cost import HotLoop, KernelSpec
from soniq_dse.records.hardware import HardwareModel, InstructionTiming, NativeLevel, Recipe
from soniq_dse.records.palette import FLOAT_BITS, Level

PricedBy = Literal["loop", "recipe", "fp32"]
FMA = ("vfmadd231ps", "fmla", "vfmacc.vf")
"""Fused multiply-add of fp32 by mnemonic."""
RECIPE_TILES = ((6, 4), (12, 2), (24, 1))
"""Rows and vectors of output channels of the tiles that stand for a kernel that does not exist: 24 accumulators.
Recipes speak of the first."""
_OPERAND_LOADS = ("load", "load_broadcast")
KERNEL_BITS = {"avx512f": 512, "avx2": 256, "neon": 128}
"""How wide the vectors of a kernel are, by a feature that it needs; the first that it names counts."""
DEPTHWISE_COLUMNS = 32
"""Channels of a panel of the driver's kernel for depthwise convolutions (``cpu/depthwise.cpp``)."""
WIDENED_INSTRUCTIONS = 4.0
"""Per vector of 32-bit sums that a tile with narrower ones ends with: take a half, convert, add, store."""
FLUSHED_INSTRUCTIONS = 2.0
"""Per vector of 32-bit sums and tap: byte sums of a tap are added to wider ones, eight instructions for four."""
_NARROW_SUMS = ("table", "shuffle", "tbl")
_ACCUMULATES = ("vpdpbusd", "sdot", "udot", "vmadot", *FMA, "vpaddq", "vpaddd", "vpaddw", "vpaddb", "add", "uadalp")


@dataclass(frozen=True)
class Kernel:
    """A kernel as the cost model sees it.

    One pass of its loop multiplies ``rows x cols`` outputs by ``pass_k`` elements of k at the cost of ``loop``. k is
    padded to ``k_group``, columns to ``cols``. ``weight_bits`` are those of the kernel's format, ``stored_bits`` and
    ``activation_bits`` those of its packing. Outside the loop, each output of a tile takes ``output_cycles``, and
    ``tap_cycles`` per tap. ``exists``: it is more than a recipe. ``pass_pj`` is the energy of a pass, where the
    descriptor has the figures; ``calls`` say what whole calls take, where the model knows it.
    """

    name: str
    rows: int
    cols: int
    k_group: int
    pass_k: int
    weight_bits: int
    stored_bits: float
    activation_bits: float
    algorithm: str
    loop: LoopCost
    priced_by: PricedBy
    k_max: float = inf
    output_cycles: float = 0.0
    tap_cycles: float = 0.0
    exists: bool = True
    pass_pj: float | None = None
    calls: Calls | None = None

    @property
    def cycles_per_mac(self) -> float:
        """The loop alone on full tiles: no part costs less per multiply-accumulate."""
        return self.loop.expected_cycles / (self.rows * self.cols * self.pass_k)


Way = tuple[Kernel, bool, KernelChoice | None]
"""A kernel, whether taps are folded into k, and the record of the choice; none where only a recipe prices it."""


@dataclass
class Chooser:
    """Kernels of one machine under one model of its core; each is priced once.

    ``ways`` keeps what was chosen, by shape, level of the caches where the weights start, and threads.
    """

    hw: HardwareModel
    model: Base
    loop_of: Callable[[str], HotLoop | None] = kept_loop
    code_of: Callable[[str], KernelCode | None] = shared_code
    ways: dict[tuple[PartShape, int, int], Way] = field(default_factory=dict)
    _natives: tuple[NativeLevel, ...] = field(init=False)
    _energy: Energy | None = field(init=False)
    _priced: dict[str, Kernel] = field(default_factory=dict)
    _serving: dict[Level, tuple[Kernel, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._natives = native_levels(self.hw)
        self._energy = Energy.of(self.hw)

    def kernels(self, level: Level) -> tuple[Kernel, ...]:
        """Every vector kernel of the machine that computes ``level``, the fastest loop first; without one, a recipe.

        Raises:
            UserError: the machine has no way to compute the level.
        """
        if level not in self._serving:
            self._serving[level] = tuple(sorted(self._price_all(level), key=lambda kernel: kernel.cycles_per_mac))
        return self._serving[level]

    def named(self, symbol: str) -> Kernel:
        """The kernel of the catalog called ``symbol``.

        Raises:
            UserError: there is none, or the machine has no figures for it.
        """
        if symbol not in self._priced:
            self._priced[symbol] = self._of_spec(kernel(symbol))
        return self._priced[symbol]

    def _price_all(self, level: Level) -> list[Kernel]:
        """Kernels with a kept loop where there are any: a recipe is the machine's bound, and would win unfairly.

        Save where it needs what no kernel has, a wider vector or a hypothetical instruction.
        """
        specs = kernels_for(level, signed=False, features=self.hw.features)
        found = []
        for spec in (spec for spec in specs if _kernel_bits(spec) <= self.hw.width_bits):
            with contextlib.suppress(UserError):  # a machine without figures for this one may have them for another
                found += [self.named(spec.symbol)] if spec.features else []
        found = [one for one in found if one.priced_by == "loop"] or found
        new = [native for native in self._natives if native.level == level and self._is_new(native)]
        found += [self._of_recipe(native, tile=tile) for native in new for tile in RECIPE_TILES]
        return found or [self._of_recipe(self._native(level), tile=tile) for tile in RECIPE_TILES]

    def _is_new(self, native: NativeLevel) -> bool:
        """Whether no kernel could run as this recipe does: wider than any that the machine can run, or with an
        instruction that none uses."""
        instructions = self.hw.recipes[native.recipe].instructions
        return native.width_bits > self._widest_kernel_bits or any(
            self.hw.instructions[name].hypothetical for name in instructions
        )

    @cached_property
    def _widest_kernel_bits(self) -> int:
        specs = (spec for spec in catalog() if not missing_features(spec, self.hw.features))
        return max(map(_kernel_bits, specs), default=0)

    def fp32(self) -> Kernel:
        """Multiply-accumulates in fp32, as of a well-tuned library: the bound of its fused multiply-adds and loads.

        Raises:
            UserError: the descriptor lists no fused multiply-add.
        """
        if "fp32" not in self._priced:
            self._priced["fp32"] = self._fp32()
        return self._priced["fp32"]

    def depthwise(self, cycles_per_mac: float) -> Kernel:
        """The driver's kernel for depthwise convolutions, two rows of a panel at a time, at a price."""
        cycles = 2 * DEPTHWISE_COLUMNS * cycles_per_mac
        return Kernel(
            name="soniq_depthwise",
            rows=2,
            cols=DEPTHWISE_COLUMNS,
            k_group=1,
            pass_k=1,
            weight_bits=16,
            stored_bits=16.0,
            activation_bits=8,
            algorithm="direct",
            loop=LoopCost(cycles, cycles, "issue", "counted operations", 1.0),
            priced_by="recipe",
            exists=False,
        )

    def _of_spec(self, spec: KernelSpec) -> Kernel:
        loop = self.loop_of(spec.symbol)
        level = Level(weight_bits=token_bits(spec.wgt), activation_bits=token_bits(spec.act))
        if loop is None:
            return self._of_recipe(self._native(level, spec), spec)
        rows, cols, _ = spec.tile
        try:
            cost = self.model.loop_cost(loop, self.hw)
        except UserError as error:  # a descriptor may list what a recipe needs, but not all that a compiler emits
            found = self._of_recipe(self._native(level, spec), spec)
            return replace(found, loop=replace(found.loop, bound_text=f"{found.loop.bound_text}: {error}"))
        least = self._recipe_cost(spec, loop.macs_per_iteration)
        if least is not None and least.cycles > cost.cycles:
            cost = replace(least, latency_cycles=cost.latency_cycles, assumed=cost.assumed)
        code = self.code_of(spec.symbol)
        output_cycles, tap_cycles = self._beside_the_loop(spec, cost, loop)
        return Kernel(
            name=spec.symbol,
            rows=rows,
            cols=cols,
            k_group=spec.k_group,
            pass_k=max(1, loop.macs_per_iteration // (rows * cols)),
            weight_bits=token_bits(spec.wgt),
            stored_bits=loop.weight_bits or token_bits(spec.wgt),
            activation_bits=packed_activation_bits(spec.algorithm, token_bits(spec.wgt), token_bits(spec.act)),
            algorithm=spec.algorithm,
            loop=cost,
            priced_by="loop",
            k_max=spec.k_max,
            output_cycles=output_cycles,
            tap_cycles=tap_cycles,
            pass_pj=self._energy.loop(loop) if self._energy else None,
            calls=None if code is None else self.model.calls(code, self.hw),
        )

    def _beside_the_loop(self, spec: KernelSpec, cost: LoopCost, loop: HotLoop) -> tuple[float, float]:
        """Cycles per output of a tile besides the loop: at its end and per tap, at the rate of the loop."""
        lanes = max(32, *(instruction.width_bits for instruction in loop.instructions)) / 32
        end, tap = (WIDENED_INSTRUCTIONS, FLUSHED_INSTRUCTIONS) if spec.algorithm in _NARROW_SUMS else (1.0, 0.0)
        end = COUNTER_INSTRUCTIONS if spec.algorithm == "gfni" else end / lanes
        rate = cost.expected_cycles / len(loop.instructions)
        return end * rate, tap / lanes * rate

    def _recipe_cost(self, spec: KernelSpec, macs: int) -> LoopCost | None:
        """The cost of ``macs`` products by the best recipe of the kernel's format and algorithm; None where none is."""
        level = Level(weight_bits=token_bits(spec.wgt), activation_bits=token_bits(spec.act))
        alike = [
            native
            for native in self._natives
            if native.level == level and native.recipe.partition("_")[0] in spec.algorithm and not self._is_new(native)
        ]
        if not alike:
            return None
        return self._step_cost(max(alike, key=lambda native: native.macs_per_cycle), macs)

    def _step_cost(self, native: NativeLevel, macs: float, tile: tuple[int, int] = RECIPE_TILES[0]) -> LoopCost:
        """What ``macs`` products cost by a recipe, other than the recurrence."""
        recipe = self.hw.recipes[native.recipe]
        steps = macs / (recipe.macs_per_width_bit * native.width_bits)
        counts = _step_counts(recipe, tile)
        uses = recipe_uses(self.hw, recipe.model_copy(update={"instructions": counts}), native.width_bits)
        loads = port_loads(uses)
        issue = issue_slots(uses) / self.hw.issue_width.value
        cycles = steps * max(port_bound(loads).cycles, issue)
        return LoopCost(
            cycles=cycles,
            contended_cycles=max(cycles, steps * evenly_spread(loads).cycles),
            bound="issue" if issue > port_bound(loads).cycles else "port",
            bound_text=f"{native.bound}, by recipe",
            latency_cycles=0.0,
        )

    def _of_recipe(
        self, native: NativeLevel, spec: KernelSpec | None = None, tile: tuple[int, int] = RECIPE_TILES[0]
    ) -> Kernel:
        recipe = self.hw.recipes[native.recipe]
        rows, cols = (spec.tile[0], spec.tile[1]) if spec else (tile[0], tile[1] * native.n_group)
        group = spec.k_group if spec else recipe.k_group
        step_k = recipe.macs_per_width_bit / recipe.lanes_per_width_bit
        algorithm = native.recipe.partition("_")[0]
        accumulator = next((n for n in recipe.instructions if n in _ACCUMULATES), None)
        timing = step_timing(self.hw, accumulator, native.width_bits) if accumulator else None
        latency = timing.latency_cycles.value if timing and timing.latency_cycles else 1.0
        cost = replace(self._step_cost(native, rows * cols * group, tile), latency_cycles=latency * group / step_k)
        return Kernel(
            name=spec.symbol if spec else f"{native.recipe} at {native.width_bits} bits",
            rows=rows,
            cols=cols,
            k_group=group,
            pass_k=group,
            weight_bits=recipe.weight_bits,
            stored_bits=float(recipe.weight_bits),
            activation_bits=packed_activation_bits(algorithm, recipe.weight_bits, recipe.activation_bits),
            algorithm=algorithm,
            loop=cost,
            priced_by="recipe",
            k_max=spec.k_max if spec else inf,
            exists=spec is not None,
            pass_pj=self._recipe_pj(native, rows * cols * group, tile),
        )

    def _recipe_pj(self, native: NativeLevel, macs: float, tile: tuple[int, int]) -> float | None:
        """The energy of ``macs`` products by a recipe."""
        recipe = self.hw.recipes[native.recipe]
        steps = macs / (recipe.macs_per_width_bit * native.width_bits)
        counts = _step_counts(recipe, tile)
        return steps * self._energy.recipe(counts.items(), native.width_bits) if self._energy else None

    def _native(self, level: Level, spec: KernelSpec | None = None) -> NativeLevel:
        """The fastest native level that holds ``level``; of the same algorithm as ``spec`` where there is one."""
        serving = [
            native
            for native in self._natives
            if (spec is None or not self._is_new(native))
            and native.level.is_weight_only == level.is_weight_only
            and native.level.weight_bits >= level.weight_bits
            and native.level.activation_bits >= level.activation_bits
        ]
        exact = [native for native in serving if native.level == level]
        alike = [native for native in exact if spec and native.recipe.partition("_")[0] in spec.algorithm]
        for candidates in (alike, exact, serving):
            if candidates:
                return max(candidates, key=lambda native: native.macs_per_cycle)
        names = sorted({native.level.name for native in self._natives})
        raise UserError(
            f"level {level.name}: expected one that {self.hw.name} computes, got none{nearest(level.name, names)}"
        )

    def _fp32(self) -> Kernel:
        found = next((name for name in FMA if name in self.hw.instructions), None)
        if found is None:
            raise UserError(f"descriptor {self.hw.name}: expected a fused multiply-add ({' or '.join(FMA)}), got none")
        width = max(self.hw.instructions[found].widths)
        lanes, (rows, vectors) = max(1, width // 32), RECIPE_TILES[0]
        uses: list[tuple[InstructionTiming, float]] = []
        counts = {found: float(rows * vectors), "load": float(vectors), "load_broadcast": float(rows)}
        for name, count in counts.items():
            timing = step_timing(self.hw, name, width)
            if timing is not None:
                uses.append((timing, count))
        bound = port_bound(port_loads(uses))
        latency = uses[0][0].latency_cycles
        return Kernel(
            name="fp32",
            rows=rows,
            cols=vectors * lanes,
            k_group=1,
            pass_k=1,
            weight_bits=FLOAT_BITS,
            stored_bits=float(FLOAT_BITS),
            activation_bits=FLOAT_BITS,
            algorithm="fma",
            loop=LoopCost(
                bound.cycles,
                evenly_spread(port_loads(uses)).cycles,
                "port",
                bound.text,
                latency.value if latency else 1.0,
            ),
            priced_by="fp32",
            pass_pj=self._energy.recipe(counts.items(), width) if self._energy else None,
        )


def _kernel_bits(spec: KernelSpec) -> int:
    return next((bits for feature, bits in KERNEL_BITS.items() if feature in spec.features), 0)


def _step_counts(recipe: Recipe, tile: tuple[int, int]) -> dict[str, float]:
    """Instructions of a recipe's step in a tile of (rows, vectors): a narrower one loads more for each product."""
    first = RECIPE_TILES[0]
    more = (sum(tile) / prod(tile)) / (sum(first) / prod(first))
    return {name: n * (more if name in _OPERAND_LOADS else 1.0) for name, n in recipe.instructions.items()}
