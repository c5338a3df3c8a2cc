"""The cost model against measurements of every kernel, beside llvm-mca and OSACA: the goals C1-C8."""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._analysers import Analyser, analysers
from benchmarks._calls import BEYOND_L1, Bench, Case, cases_of, compilers, vector_kernels
from benchmarks._frame import Goal, Result, kept_here, main, processor_slug, with_kept
from benchmarks._predict import Prediction, Predictor, layers_per_second
from soniq_dse.agreement import Pair, Score, coverage_p_value, regret, score
from soniq_dse.cost.intervals import Intervals, regime_of
from soniq_dse.crosscheck import Options, crosscheck
from soniq_dse.hardware.host import default_descriptor, detect_host, match_host
from soniq_dse.hardware.load import load_hardware
from soniq_dse.kernels.catalog import serves
from soniq_dse.kernels.library import build_kernel_library, load_kernel
from soniq_dse.native.timing import CycleTiming
from soniq_dse.records.crosscheck import Crosscheck, CrosscheckSummary
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Level

TITLE = "Cost model"
LEVELS = tuple(map(Level.parse, ("w1a1", "w1a2", "w2a2", "w1a4", "w2a4", "w4a4", "w4a8", "w8a8")))
"""What a kernel is chosen for."""
FEWEST_CASES, FEWEST_NETWORKS = 400, 20
QUICK_KERNELS = 3
CASE_S, QUICK_S, PATIENCE_S = 0.1, 25.0, 240.0
"""How long to wait for a quiet core: for one call, for all in a quick run and in a full one."""


@dataclass(frozen=True)
class Scored:
    """One call: predicted, then measured."""

    case: Case
    prediction: Prediction
    timing: CycleTiming

    @property
    def pair(self) -> Pair:
        """Cycles of the call."""
        return Pair(self.prediction.cycles, self.timing.median_cycles)

    @property
    def rate(self) -> Pair:
        """Cycles per multiply-accumulate."""
        return Pair(*(cycles / self.case.macs for cycles in self.pair))

    @property
    def residual(self) -> float:
        """``ln(measured / predicted)``."""
        return math.log(self.pair.measured / self.pair.predicted)

    def row(self) -> dict[str, object]:
        """A row of the table."""
        measured = self.timing.median_cycles
        return {
            "kernel": self.case.spec.symbol,
            "compiler": self.case.compiler.name,
            "regime": self.case.regime,
            "rows x cols x k": self.case.shape,
            "bound by": self.prediction.bound,
            "bound, cycles": round(self.prediction.bound_cycles, 1),
            "model, cycles": round(self.prediction.cycles, 1),
            "measured, cycles": round(measured, 1),
            "MAD, %": round(100 * self.timing.mad_cycles / measured, 2),
            "settled": self.timing.settled,
            "error, %": round(100 * self.pair.error, 1),
        }


@dataclass(frozen=True)
class LoopScore:
    """One compiled loop, data in L1: cycles of a pass as measured (from two lengths of k) and as each model says."""

    kernel: str
    compiler: str
    measured: float
    predicted: dict[str, float | None]

    def row(self) -> dict[str, object]:
        """A row of the table, under the keys of ``Scored.row``."""
        said = ", ".join(f"{name} {'-' if c is None else format(c, '.2f')}" for name, c in self.predicted.items())
        return {"kernel": self.kernel, "compiler": self.compiler, "regime": "one pass of the loop", "bound by": said,
                "measured, cycles": round(self.measured, 2)}  # fmt: skip


@dataclass
class Measured:
    """All that a run found."""

    scored: list[Scored] = field(default_factory=list)
    loops: list[LoopScore] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    n_unsettled: int = 0
    per_second: float | None = None
    networks: CrosscheckSummary | None = None


def run(hw: HardwareModel, quick: bool) -> tuple[Measured, list[str]]:
    """Predict every call, then time it; a quick run takes a few kernels of one compiler."""
    host, predictor, bench = detect_host(), Predictor(hw), Bench()
    specs = vector_kernels(host.features)
    here = compilers()[:1] if quick else compilers()
    chosen = specs[:: max(1, len(specs) // QUICK_KERNELS)] if quick else specs
    others, missing = analysers(host)
    predicted: list[tuple[Case, Prediction]] = []
    for spec, compiler in itertools.product(chosen, here):
        build_kernel_library(spec, compiler=compiler)
        for case in cases_of(load_kernel(spec, compiler=compiler), compiler):
            prediction = predictor.predict(case)
            if prediction is not None:
                predicted.append((case, prediction))
    found = Measured(refused=predictor.refused, per_second=layers_per_second(hw))
    settled = _settled([case for case, _ in predicted], bench, QUICK_S if quick else PATIENCE_S)
    found.scored = [Scored(case, prediction, settled[case]) for case, prediction in predicted if case in settled]
    found.n_unsettled = len(predicted) - len(found.scored)
    found.loops = list(_loops(found.scored, predictor, others))
    if not quick:
        found.networks = _networks(hw)
    return found, missing


def _networks(hw: HardwareModel) -> CrosscheckSummary:
    """Whole networks, predicted and then timed as ``soniq-dse crosscheck --networks`` does."""
    with tempfile.TemporaryDirectory() as folder:
        return crosscheck(hw, (), detect_host(), Options(Path(folder), networks=True), lambda text: None).record.summary


def _settled(cases: Sequence[Case], bench: Bench, patience_s: float) -> dict[Case, CycleTiming]:
    """Timings that settled, in rounds over those that have not: a busy machine is busy for seconds, then quiet."""
    found: dict[Case, CycleTiming] = {}
    end = time.monotonic() + patience_s
    while len(found) < len(cases) and time.monotonic() < end:
        for case in cases:
            if case not in found and time.monotonic() < end:
                timing = bench.time(case, max_s=CASE_S)
                if timing.settled:
                    found[case] = timing
    return found


def _loops(scored: Sequence[Scored], predictor: Predictor, others: Sequence[Analyser]) -> Iterable[LoopScore]:
    for (kernel, compiler), group in itertools.groupby(
        (one for one in scored if one.case.regime == "l1"), lambda one: (one.case.spec.symbol, one.case.compiler.name)
    ):
        by_k = sorted(group, key=lambda one: one.case.k)
        loop, first, last = predictor.loop(by_k[0].case), by_k[0], by_k[-1]
        if loop is None or first.case.k == last.case.k:
            continue
        rows, cols, _ = first.case.spec.tile
        passes = (last.case.k - first.case.k) * rows * cols / loop.macs_per_iteration
        measured = (last.timing.median_cycles - first.timing.median_cycles) / passes
        own = predictor.pass_cycles(first.case)
        yield LoopScore(kernel, compiler, measured, own | {other.name: other.cycles(loop) for other in others})


class Goals:
    """The goals C1-C8 from what was measured."""

    def __init__(self, found: Measured) -> None:
        self._found, self._scored = found, found.scored
        self._enough = len(found.scored) >= FEWEST_CASES
        self._left_out: dict[str, Intervals] = {}

    def all(self) -> list[Goal]:
        """Every goal, in order."""
        whole = score([one.pair for one in self._scored], [one.rate for one in self._scored])
        regrets, covered = regret(self._choices()), self.coverage()
        return [
            self._goal("C1a", "mean absolute error of kernel calls", "%", whole.mape_percent, at_most=5),
            self._goal("C1b", "95th percentile of it", "%", whole.p95_percent, at_most=10),
            self._goal("C2a", "Kendall's tau of cycles per multiply-accumulate", "", whole.tau, at_least=0.95),
            self._goal("C2b", "the lowest tau within one shape over kernels", "", self._lowest_tau(), at_least=0.9),
            self._goal("C3a", "mean cost of choosing the kernel by the model", "%", _mean(regrets), at_most=1),
            self._goal("C3b", "the dearest such choice", "%", max(regrets, default=None), at_most=5),
            self._goal("C4a", "chance of the coverage that 90 % intervals have on algorithms left out", "",
                       covered.p_value, at_least=0.05),
            self._goal("C4b", "median half width of these intervals", "%", covered.half_width_percent, at_most=8),
            self._goal("C5", "how far the pure bound lies above a measurement, at most", "%", self._above(), at_most=1),
            *(self._beyond_l1(letter, regime) for letter, regime in zip("abc", BEYOND_L1, strict=True)),
            Goal("C7a", "mean absolute error of networks", "%", self._network("networks_mape_percent"), at_most=5),
            Goal("C7b", "largest error of a network", "%", self._network("networks_worst_percent"), at_most=10),
            Goal("C8", "layers estimated in a second", "1/s", self._found.per_second, at_least=10_000),
        ]  # fmt: skip

    def _goal(self, id_: str, what: str, unit: str, value: float | None, **bounds: float) -> Goal:
        """Too few cases are no measurement of a goal."""
        return Goal(id_, what, unit, value if self._enough else None, **bounds)

    def _network(self, name: str) -> float | None:
        found = self._found.networks
        return getattr(found, name) if found and found.n_networks_measured >= FEWEST_NETWORKS else None

    def _beyond_l1(self, letter: str, regime: str) -> Goal:
        pairs = [one.pair for one in self._scored if one.case.regime == regime]
        return self._goal(f"C6{letter}", f"mean absolute error, weights from {regime.upper()}", "%",
                          score(pairs).mape_percent, at_most=15)  # fmt: skip

    def _above(self) -> float | None:
        """Per cent by which the bound exceeds a measurement and its noise, at most."""
        return max((100 * (one.prediction.bound_cycles / (one.timing.median_cycles + 3 * one.timing.mad_cycles) - 1)
                    for one in self._scored), default=None)  # fmt: skip

    def _products(self) -> Iterable[list[Scored]]:
        """Calls of one shape by different kernels and compilers."""
        ordered = sorted((one for one in self._scored if one.case.regime == "product"), key=lambda one: one.case.shape)
        for _, group in itertools.groupby(ordered, lambda one: one.case.shape):
            yield list(group)

    def _lowest_tau(self) -> float | None:
        taus = [score([one.pair for one in group]).tau for group in self._products()]
        return min((tau for tau in taus if tau is not None), default=None)

    def _choices(self) -> Iterable[list[Pair]]:
        for group, level in itertools.product(self._products(), LEVELS):
            yield [one.pair for one in group if serves(one.case.spec, level)]

    def coverage(self) -> Coverage:
        """Of 90 % intervals, each algorithm's from the residuals of the others."""
        inside, widths = 0, []
        for one in self._scored:
            factors = self._intervals_without(one.case.spec.algorithm).factors(regime_of(one.prediction.bound))
            if factors is not None:
                inside += factors.low <= one.pair.measured / one.pair.predicted <= factors.high
                widths.append(50 * (factors.high - factors.low))
        if not widths:
            return Coverage(0, 0, None, None)
        return Coverage(inside, len(widths), coverage_p_value(inside, len(widths)), statistics.median(widths))

    def _intervals_without(self, algorithm: str) -> Intervals:
        if algorithm not in self._left_out:
            residuals: dict[str, list[float]] = {}
            for one in self._scored:
                if one.case.spec.algorithm != algorithm:
                    residuals.setdefault(regime_of(one.prediction.bound), []).append(one.residual)
            self._left_out[algorithm] = Intervals(residuals)
        return self._left_out[algorithm]


@dataclass(frozen=True)
class Coverage:
    """How many of ``n`` measurements lay in their intervals, how likely that is at 90 %, and the intervals' width."""

    inside: int
    n: int
    p_value: float | None
    half_width_percent: float | None


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def measure(quick: bool) -> Result:
    """Every kernel and compiler, or a few."""
    host = detect_host()
    hw = load_hardware(default_descriptor(host)[0])
    matches, why = match_host(hw, host)
    if not matches:
        return Result(Goals(Measured()).all(), [], [f"Not measured: {why}."])
    found, missing = run(hw, quick)
    goals = Goals(found)
    rows = [one.row() for one in found.scored] + [loop.row() for loop in found.loops]
    return Result(goals.all(), rows, list(notes(found, goals, missing)))


def notes(found: Measured, goals: Goals, missing: Sequence[str]) -> Iterable[str]:
    """What the goals do not say: the peers on the same loops, each regime, what was refused."""
    yield f"{len(found.scored)} calls; " + "; ".join(
        f"{regime} {_text(score([one.pair for one in group]))}"
        for regime, group in _grouped(found.scored, lambda one: one.case.regime)
    )
    yield ""
    yield "By algorithm: " + "; ".join(
        f"{name} {_text(score([one.pair for one in group]))}"
        for name, group in _grouped(found.scored, lambda one: one.case.spec.algorithm)
    )
    yield ""
    names = found.loops[0].predicted if found.loops else {}
    for name in names:
        pairs = [Pair(cycles, loop.measured) for loop in found.loops if (cycles := loop.predicted[name]) is not None]
        yield f"One pass of {len(pairs)} loops, data in L1: {name} {_text(score(pairs))}."
    if found.n_unsettled:
        yield f"Left out: {found.n_unsettled} calls whose timing did not settle on a busy machine."
    yield from (f"Missing: {name}." for name in missing)
    covered = goals.coverage()
    if covered.n:
        yield f"Coverage of the 90 % intervals: {covered.inside} of {covered.n} ({covered.inside / covered.n:.1%})."
    yield from (f"Refused: {name}: {why}" for name, why in found.refused.items())


def _grouped(scored: Sequence[Scored], key: Callable[[Scored], str]) -> Iterable[tuple[str, list[Scored]]]:
    for name, group in itertools.groupby(sorted(scored, key=key), key):
        yield name, list(group)


def _text(found: Score) -> str:
    if not found.n:
        return "none"
    spread = f"95th {found.p95_percent:.1f} %, largest {found.worst_percent:.1f} %"
    tau = "" if found.tau is None else f", tau {found.tau:.3f}"
    return f"{found.n}: mean {found.mape_percent:.1f} %, {spread}{tau}"


def networks_of(path: Path) -> Result:
    """C7 from the record that ``soniq-dse crosscheck --networks`` left on this processor; all else as it is kept.

    Raises:
        ValueError: the record is of another processor, or nothing is kept of this one.
    """
    record, kept = Crosscheck.from_json(path.read_bytes()), kept_here("costmodel")
    here = detect_host()
    if kept is None or record.host.processor != here.processor or record.host.model != here.model:
        raise ValueError(f"{path}: expected a record of this processor, which has kept results; got {record.host}")
    slug = processor_slug(here.to_json_value())
    goals = [with_kept(goal, [kept], slug) for goal in Goals(Measured(networks=record.summary)).all()]
    return Result(goals, kept["rows"], kept["notes"])


def run_benchmark() -> None:
    """The command line: what is this benchmark's own first, the convention behind it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--networks-from", type=Path)
    own, sys.argv[1:] = parser.parse_known_args()
    main("costmodel", TITLE, measure if own.networks_from is None else lambda quick: networks_of(own.networks_from))


if __name__ == "__main__":
    run_benchmark()
