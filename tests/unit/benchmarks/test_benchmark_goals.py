"""Goals of the kernel benchmark: all are listed whatever was measured, and a value is that of the slowest part."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[3]))  # benchmarks are not installed
interleave = pytest.importorskip("benchmarks._interleave").interleave
kernels = pytest.importorskip("benchmarks.kernels")


def measured(shape: object, label: str, both_s: float) -> object:
    ours = kernels.Ours(label, ("gemm",), lambda: None, lambda: None, 0.25)
    peers = {"slow": 4.0, "best": 2.0}
    return kernels.Measured(shape, ours, "host", 0.5, both_s, 1e9, peers, {}, {"torch fp32": 8.0})


def test_every_goal_is_listed_and_unmet_when_nothing_was_measured() -> None:
    goals = kernels.Goals([]).all()
    assert len({goal.id for goal in goals}) == len(goals)
    assert {goal.id[:2] for goal in goals} == {f"K{i}" for i in range(1, 8)} | {"T1"}
    assert not any(goal.met for goal in goals)
    assert all(goal.value is None for goal in goals)


def test_ratios_are_to_the_best_peer_of_the_slowest_shape() -> None:
    everywhere = [measured(shape, "w8a8", 1.0) for shape in (*kernels.GEMMS, *kernels.GEMVS)]
    everywhere[1] = replace(everywhere[1], both_s=4.0)
    goals = {goal.id: goal.value for goal in kernels.Goals(everywhere).all()}
    assert goals["K2l"] == 2.0 / 4.0
    assert goals["K2h"] == kernels.DEEP.macs / (0.5 * 1e9)
    one_missing = {goal.id: goal.value for goal in kernels.Goals(everywhere[1:]).all()}
    assert one_missing["K2l"] is None


def test_a_goal_without_a_peer_is_unmeasured() -> None:
    alone = replace(measured(kernels.GEMV, "w1a1", 1.0), int8_s={})
    assert alone.row()["best INT8 peer"] == "missing"
    assert {goal.id: goal.value for goal in kernels.Goals([alone]).all()}["K5a"] is None


def test_a_kernel_that_is_not_preferred_has_its_own_goals() -> None:
    preferred = measured(kernels.DEEP, "w1a1", 1.0)
    gfni = replace(preferred, isa="gfni", run_s=0.25)
    goals = {goal.id: goal.value for goal in kernels.Goals([preferred, gfni]).all()}
    assert goals["K1b"] == 2 * goals["K1a"]
    assert kernels._forced((), "gfni") == []


def test_popcount_is_judged_by_itself_where_the_runtime_prefers_gfni() -> None:
    preferred = measured(kernels.DEEP, "w1a1", 1.0)
    popcount = replace(preferred, isa="popcount", run_s=1.0)
    goals = {goal.id: goal.value for goal in kernels.Goals([preferred, popcount]).all()}
    assert goals["K1a"] == kernels.DEEP.macs / 1e9


def test_two_threads_are_judged_by_the_slowest_layer() -> None:
    scaling = [kernels.Scaling(kernels.DEEP, "w1a1", 2.0, two_s, 0.5) for two_s in (1.0, 1.25)]
    goals = {goal.id: goal.value for goal in kernels.Goals([], scaling).all()}
    assert goals["T1"] == 1.6
    row = scaling[0].row({"shape": "", "x best": ""})
    assert "50% idle" in row["kernel"]
    assert row["x best"] == ""


def test_the_page_has_a_line_per_shape_and_a_column_per_level() -> None:
    rows = [measured(kernels.DEEP, level, both_s).row() for level, both_s in (("w1a1", 0.5), ("w2a2", 1.0))]
    (heading,) = kernels.tables(rows)
    (line,) = kernels.tables(rows)[heading]
    assert "narrow levels" in heading
    assert line["best INT8"] == f"best {kernels.DEEP.macs / 2e9:.3g}"
    assert (line["w1a1"], line["w1a2"]) == (f"{kernels.DEEP.macs / 0.5e9:.3g} (4x)", "")


@pytest.mark.parametrize("shape", kernels.SHAPES, ids=lambda shape: shape.name)
def test_shapes_agree_with_the_layers_geometry(shape: object) -> None:
    ours = pytest.importorskip("benchmarks._ours")
    geometry = ours.geometry_of(shape)
    assert geometry.rows == shape.rows
    assert geometry.taps * shape.in_channels // shape.groups == shape.k
    assert shape.out_shape[-1] == shape.cols
    codes, weights = shape.operands() if shape.macs < 3e7 else (None, None)
    if codes is not None:
        assert weights.size == shape.k * shape.cols
        assert codes.shape[-1] == shape.in_channels


def test_a_mix_is_known_by_its_levels() -> None:
    assert kernels.kind_of("81% w1a1+19% w4a4") == "w1a1+w4a4"


def test_interleaved_samples_take_turns_and_give_medians() -> None:
    turns: list[str] = []
    given = {"a": iter([3.0, 1.0, 2.0]), "b": iter([5.0, 5.0, 9.0])}

    def take(name: str) -> float:
        turns.append(name)
        return next(given[name])

    assert interleave({"a": lambda: take("a"), "b": lambda: take("b")}, 3) == {"a": 2.0, "b": 5.0}
    assert "".join(turns) == "ababab"
