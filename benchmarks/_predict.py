"""What our models say of the calls of ``_calls``: the pure bound, and whole calls through the simulated core."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from functools import cached_property

from benchmarks._calls import Case
from soniq_dse import registry
from soniq_dse.cost import Calls, LoopCost
from soniq_dse.cost.choice import Chooser, Kernel
from soniq_dse.cost.incore import InCore
from soniq_dse.cost.layers import LayerCoster
from soniq_dse.cost.memory import Hierarchy, Nest
from soniq_dse.cost.pipeline import Pipeline
from soniq_dse.errors import UserError
from soniq_dse.kernels.code import read_code
from soniq_dse.kernels.keep_loops import read_loop
from soniq_dse.kernels.library import round_up
from soniq_dse.records.cost import Bound, HotLoop
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.workload import GemmLayer, Segment


@dataclass(frozen=True)
class Prediction:
    """Cycles of one call: no less than ``bound_cycles``, ``cycles`` by the model; what bounds it."""

    bound_cycles: float
    cycles: float
    bound: Bound


Priced = tuple[Kernel, LoopCost, Calls]
"""The kernel, the bound of its loop, and its calls."""


@dataclass
class Predictor:
    """Predictions on one machine by the simulated core; a compiled kernel is read and priced once."""

    hw: HardwareModel
    refused: dict[str, str] = field(default_factory=dict)
    _loops: dict[tuple[str, str], HotLoop | None] = field(default_factory=dict)
    _priced: dict[tuple[str, str], Priced | None] = field(default_factory=dict)

    def loop(self, case: Case) -> HotLoop | None:
        """The hot loop of the compiled kernel; None where none can be read (``refused`` says why)."""
        key = (case.spec.symbol, case.compiler.path)
        if key not in self._loops:
            try:
                self._loops[key] = read_loop(case.spec, compiler=case.compiler)
            except UserError as error:
                self._loops[key], self.refused[f"{case.spec.symbol}, {case.compiler.name}"] = None, str(error)
        return self._loops[key]

    def predict(self, case: Case) -> Prediction | None:
        """None where the model refuses."""
        priced = self._price(case)
        if priced is None:
            return None
        kernel, bound, calls = priced
        panels, k = -(-case.cols // kernel.cols), round_up(case.k, kernel.k_group)
        row_bytes = k * kernel.activation_bits / 8
        nest = Nest(
            rows=case.rows, block_rows=case.rows, tile_rows=min(kernel.rows, case.rows), panels=panels,
            panel_bytes=kernel.cols * k * kernel.stored_bits / 8, row_bytes=row_bytes,
            image_bytes=case.rows * row_bytes,
        )  # fmt: skip
        traffic = self._hierarchy.traffic(nest, self._hierarchy.level_of(nest.weight_bytes + nest.image_bytes))
        compute = calls.cycles(case.rows, case.cols, 1, case.k)
        least = panels * k / kernel.pass_k * case.rows / kernel.rows * bound.cycles
        cycles = max(compute, traffic.cycles)
        return Prediction(least, cycles, traffic.bound if traffic.cycles > compute else bound.bound)

    def pass_cycles(self, case: Case) -> dict[str, float | None]:
        """Cycles of one pass of the case's loop: at least, and by the simulated core."""
        priced, loop = self._price(case), self.loop(case)
        if priced is None or loop is None:
            return {}
        return {"our bound": priced[1].cycles, "our simulation": Pipeline().loop_cost(loop, self.hw).simulated_cycles}

    @cached_property
    def _hierarchy(self) -> Hierarchy:
        return Hierarchy(self.hw)

    def _price(self, case: Case) -> Priced | None:
        """The kernel as models price what this compiler made of it, not the kept loop and code."""
        key, loop = (case.spec.symbol, case.compiler.path), self.loop(case)
        if key in self._priced or loop is None:
            return self._priced.get(key)
        code = read_code(case.spec, compiler=case.compiler)
        chooser = Chooser(self.hw, Pipeline(), loop_of=lambda symbol: loop, code_of=lambda symbol: code)
        try:
            kernel, bound = chooser.named(case.spec.symbol), InCore().loop_cost(loop, self.hw)
            if kernel.calls is None:
                raise UserError("its calls are not simulated")
            kernel.calls.cycles(1, 1, 1, 1)
        except UserError as error:
            self.refused[f"{case.spec.symbol}, {case.compiler.name}"] = str(error)
            self._priced[key] = None
        else:
            self._priced[key] = (kernel, bound, kernel.calls)
        return self._priced[key]


def layers_per_second(hw: HardwareModel) -> float:
    """Layers that are estimated in a second once their kernels are priced: 2,000 shapes at three mixes."""
    coster = LayerCoster(hw, Chooser(hw, registry.load("cost", "incore")()))
    mixes = [tuple(Segment(weight_bits=b, activation_bits=b, channels=256 // len(mix)) for b in mix)
             for mix in ((1,), (4,), (1, 4))]  # fmt: skip
    layers = [GemmLayer(name="", m=m, n=64 * n, k=256) for m in range(1, 41) for n in range(1, 51)]

    def estimate_all() -> float:
        start = time.perf_counter()
        for layer, mix in zip(layers, itertools.cycle(mixes), strict=False):
            coster.parts(layer, mix, signed=True)
        return time.perf_counter() - start

    estimate_all()  # prices the kernels
    return len(layers) / min(estimate_all() for _ in range(3))
