"""Goals of the cost model's benchmark from invented measurements; peers' input and output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[3]))  # benchmarks are not installed
costmodel = pytest.importorskip("benchmarks.costmodel")
calls = pytest.importorskip("benchmarks._calls")
programs = pytest.importorskip("benchmarks._analysers")

from soniq_dse.kernels.catalog import catalog  # noqa: E402
from soniq_dse.kernels.loops import kept_loop  # noqa: E402
from soniq_dse.native.compiler import Compiler  # noqa: E402
from soniq_dse.native.timing import CycleTiming  # noqa: E402

SPECS = [spec for spec in catalog() if spec.isa == "avx2"]


def one(
    spec: object, regime: str, shape: tuple[int, int, int], predicted: float, measured: float, bound: float
) -> object:
    case = calls.Case(spec, Compiler("/usr/bin/g++", "g++ 12"), regime, *shape)
    timing = CycleTiming(measured, 0.0, 5, True, 3e9)
    return costmodel.Scored(case, costmodel.Prediction(bound, predicted, "port"), timing)


def goals_of(scored: list[object]) -> dict[str, object]:
    return {goal.id: goal for goal in costmodel.Goals(costmodel.Measured(scored=scored)).all()}


def test_every_goal_is_listed_and_unmet_when_nothing_was_measured() -> None:
    goals = goals_of([])
    assert {id_[:2] for id_ in goals} == {f"C{i}" for i in range(1, 9)}
    assert not any(goal.met for goal in goals.values())


def test_fewer_cases_than_the_set_has_are_no_measurement() -> None:
    perfect = [one(SPECS[0], "l1", (4, 16, 16 * (i + 1)), 100.0 + i, 100.0 + i, 90.0) for i in range(400)]
    assert goals_of(perfect)["C1a"].value == 0
    assert goals_of(perfect[:-1])["C1a"].value is None


def test_values_are_those_of_the_cases() -> None:
    cases = [one(SPECS[i % 2], "l2", (4, 16, 16 * (i + 1)), 110.0, 100.0, 101.0) for i in range(400)]
    first, second = [s for s in SPECS if s.act == "z1" and s.wgt == "z1"][:2]
    cases += [one(first, "product", (9, 9, 9), 1.0, 3.0, 1.0), one(second, "product", (9, 9, 9), 2.0, 2.0, 1.0)]
    goals = goals_of(cases)
    assert goals["C6a"].value == pytest.approx(10)
    assert goals["C6c"].value is None  # nothing from main memory
    assert goals["C5"].value == pytest.approx(1)
    assert goals["C3b"].value == pytest.approx(50)
    assert goals["C2b"].value == pytest.approx(-1)


def test_intervals_come_from_the_other_algorithms() -> None:
    names = {spec.algorithm: spec for spec in SPECS}
    one_way, other_way = list(names.values())[:2]
    cases = [one(one_way, "l1", (4, 16, 16 * (i + 1)), 100.0, 100.0, 1.0) for i in range(200)]
    cases += [one(other_way, "l1", (4, 16, 16 * (i + 1)), 100.0, 200.0, 1.0) for i in range(200)]
    covered = costmodel.Goals(costmodel.Measured(scored=cases)).coverage()
    # The first lie in 1..2 that the second's residuals span; the second do not lie in the first's 1..1.
    assert (covered.inside, covered.n) == (200, 400)


def test_a_kernel_meets_every_regime() -> None:
    class Sized:
        spec = SPECS[0]

        def w_bytes(self, cols: int, taps: int, k: int) -> int:
            return cols * taps * k // 2

    found = calls.cases_of(Sized(), Compiler("g++", "12"))
    assert {case.regime for case in found} == {"l1", "short k", "tails", "one row", "product", "l2", "l3", "dram"}
    assert len(set(found)) == len(found)
    streamed = max(found, key=lambda case: case.cols * case.k)
    assert streamed.cols * streamed.k // 2 == pytest.approx(96 << 20, rel=0.01)


def test_llvm_mca_reads_the_kept_loops(need_program: Callable[[str, str], str]) -> None:
    loop = kept_loop(SPECS[0].symbol)
    assert loop is not None
    cycles = programs._mca(need_program("llvm-mca-19", "llvm-19"), "znver3", loop)
    # Six operations a cycle at most; and no loop of independent accumulators takes ten cycles an instruction.
    assert cycles is not None
    assert len(loop.instructions) / 6.5 <= cycles <= 10 * len(loop.instructions)


def test_assembly_jumps_to_its_own_start() -> None:
    loop = kept_loop(SPECS[0].symbol)
    assert loop is not None
    text = programs.assembly(loop)
    assert text.startswith(".intel_syntax noprefix\nkernel_loop:\n")
    assert "kernel_loop" in text.splitlines()[-1]
    assert "<" not in text


def test_quick_timings_of_one_case_agree() -> None:
    loaded = calls.load_kernel(next(spec for spec in catalog() if not spec.features))
    case = replace(calls.cases_of(loaded, calls.compilers()[0])[0], rows=1, cols=4, k=64)
    bench = calls.Bench()
    assert bench.call(case).run_seconds(10) > 0
