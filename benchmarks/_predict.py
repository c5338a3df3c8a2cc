"""What our models say of the calls of ``_calls``: the pure bound, and the model that estimates use."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field

from benchmarks._calls import Case
from soniq_dse.cost import LoopCost
from soniq_dse.cost.choice import Chooser
from soniq_dse.cost.incore import InCore
from soniq_dse.cost.layers import LayerCoster
from soniq_dse.cost.memory import Hierarchy, Nest, Traffic
from soniq_dse.cost.vector_loops import TILE_CYCLES
from soniq_dse.errors import UserError
from soniq_dse.kernels.catalog import packed_activation_bits, token_bits
from soniq_dse.kernels.keep_loops import read_loop
from soniq_dse.kernels.library import load_kernel, round_up
from soniq_dse.records.cost import Bound, HotLoop
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.workload import GemmLayer, Segment


@dataclass(frozen=True)
class Prediction:
    """Cycles of one call: no less than ``bound_cycles``, ``cycles`` by the model; what bounds it."""

    bound_cycles: float
    cycles: float
    bound: Bound


@dataclass
class Predictor:
    """Predictions on one machine; a loop is read and priced once."""

    hw: HardwareModel
    _loops: dict[tuple[str, str], HotLoop | None] = field(default_factory=dict)
    _costs: dict[tuple[str, str], LoopCost | None] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def loop(self, case: Case) -> HotLoop | None:
        """The hot loop of the compiled kernel; None where none can be read (``refused`` says why)."""
        key = (case.spec.symbol, case.compiler.path)
        if key not in self._loops:
            try:
                self._loops[key] = read_loop(case.spec, compiler=case.compiler)
            except UserError as error:
                self._loops[key], self.refused[" ".join(key)] = None, str(error)
        return self._loops[key]

    def predict(self, case: Case) -> Prediction | None:
        """None where the model refuses."""
        loop, cost = self.loop(case), self._cost(case)
        if loop is None or cost is None:
            return None
        rows, cols, _ = case.spec.tile
        panels, padded_k = -(-case.cols // cols), round_up(case.k, case.spec.k_group)
        passes = padded_k * rows * cols / loop.macs_per_iteration
        full, tail = divmod(case.rows, rows)
        share = full + tail / rows
        bound_cycles = panels * passes * share * cost.cycles
        tail_cycles = max(cost.expected_cycles * tail / rows, cost.latency_cycles) if tail else 0.0
        compute = panels * passes * (full * cost.expected_cycles + tail_cycles)
        traffic = self._traffic(case, panels, padded_k)
        overhead = panels * (full + (tail > 0)) * TILE_CYCLES + self.hw.overhead.call_ns.value * self.hw.clock_ghz.value
        cycles = max(compute, traffic.cycles) + overhead
        return Prediction(bound_cycles, cycles, traffic.bound if traffic.cycles > compute else cost.bound)

    def pass_cycles(self, case: Case) -> dict[str, float | None]:
        """Cycles of one pass of the case's loop: at least, and as expected."""
        cost = self._cost(case)
        return {"bound": cost.cycles, "model": cost.expected_cycles} if cost else {}

    def _cost(self, case: Case) -> LoopCost | None:
        key = (case.spec.symbol, case.compiler.path)
        if key not in self._costs:
            loop = self.loop(case)
            try:
                self._costs[key] = None if loop is None else InCore().loop_cost(loop, self.hw)
            except UserError as error:
                self._costs[key], self.refused[" ".join(key)] = None, str(error)
        return self._costs[key]

    def _traffic(self, case: Case, panels: int, padded_k: int) -> Traffic:
        kernel, hierarchy = load_kernel(case.spec, compiler=case.compiler), Hierarchy(self.hw)
        act, wgt = token_bits(case.spec.act), token_bits(case.spec.wgt)
        row_bytes = padded_k * packed_activation_bits(case.spec.algorithm, wgt, act) / 8
        weight_bytes = kernel.w_bytes(case.cols, 1, case.k)
        nest = Nest(
            rows=case.rows,
            block_rows=case.rows,
            tile_rows=min(case.spec.tile[0], case.rows),
            panels=panels,
            panel_bytes=weight_bytes / panels,
            row_bytes=row_bytes,
            image_bytes=case.rows * row_bytes,
        )
        return hierarchy.traffic(nest, hierarchy.level_of(weight_bytes + nest.image_bytes))


def layers_per_second(hw: HardwareModel) -> float:
    """Layers that are estimated in a second once their kernels are priced: 2,000 shapes at three mixes."""
    coster = LayerCoster(hw, Chooser(hw, InCore()))
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
