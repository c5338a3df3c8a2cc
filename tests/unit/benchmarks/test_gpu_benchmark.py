"""The GPU benchmark as far as no GPU is needed: cases, goals by hand, and what it says where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from soniq_dse.hardware.load import load_machine
from soniq_dse.records.gpu import GpuModel

sys.path.append(str(Path(__file__).resolve().parents[3]))  # benchmarks are not installed
gpu_benchmark = pytest.importorskip("benchmarks.gpu")


def row(**fields: object) -> dict:
    base = {
        "weight_bits": 1, "activation_bits": 8, "rows": 1, "cols": 8192, "k": 8192, "role": "calibrate", "exact": True,
        "median_us": 5.0, "fp16_us": 35.0, "predicted_us": 4.0, "bound_us": 2.0,
    }  # fmt: skip
    return base | fields


def value(rows: list[dict], goal: str) -> float | None:
    return next(found.value for found in gpu_benchmark.goals_of(rows) if found.id == goal)


def test_nothing_measured_meets_no_goal() -> None:
    assert not any(goal.met for goal in gpu_benchmark.goals_of([]))
    assert all(goal.value is None for goal in gpu_benchmark.goals_of([]))


def test_goals_by_hand() -> None:
    rows = [row(), row(median_us=4.0, exact=False), row(median_us=7.0)]
    assert value(rows, "G2 decode W1 8192x8192") == pytest.approx(35 / 5)  # the inexact one does not count
    assert value(rows, "G1") == pytest.approx(2 / 3)
    assert value(rows, "G2 decode W2 8192x8192") is None
    held = [row(role="holdout", predicted_us=5.5), row(role="holdout", predicted_us=4.0)]
    assert value([*rows, *held], "G3 error") == pytest.approx(15.0)
    assert value([row(bound_us=5.1), row()], "G3 bound") == pytest.approx(2.0)
    ordered = [row(median_us=t, predicted_us=2 * t) for t in (1.0, 2.0, 3.0)]
    assert value(ordered, "G3 order") == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["h200", "rtx_5090"])
def test_every_goals_shape_has_a_kernel_on_hopper_and_predictions_everywhere(name: str) -> None:
    gpu = load_machine(name)
    assert isinstance(gpu, GpuModel)
    for case in gpu_benchmark.CASES:
        kernels = case.kernels(gpu)
        assert kernels or name != "h200", case
        for kernel in kernels:
            predicted_us, bound_us = gpu_benchmark.predictions(gpu, kernel, case)
            assert 0 < bound_us < predicted_us


def test_operands_are_those_of_the_format_and_never_all_zero() -> None:
    for kernel in gpu_benchmark.gpu_catalog():
        codes, weights = gpu_benchmark.operands(kernel, 4, 16, 64)
        assert codes.max() < 2**kernel.activation_bits
        assert codes.any()
        assert kernel.wgt == "s8" or (weights % 2 != 0).all()


def test_without_a_gpu_it_says_that_nothing_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    gpu_benchmark.main(["--budget-s", "1"])
    said = capsys.readouterr().out
    assert said.startswith("nothing measured: ")
    assert said.count("not measured") == len(gpu_benchmark.goals_of([]))
