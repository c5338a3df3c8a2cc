"""The GPU benchmark as far as no GPU is needed: cases, goals by hand, and what it says where there is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from soniq_dse.errors import UserError
from soniq_dse.hardware.load import load_machine
from soniq_dse.kernels.gpu_layer import Epilogue, GpuSegment, layer_table
from soniq_dse.kernels.reference import raw_gemm
from soniq_dse.records.gpu import GpuKernel, GpuLayerKernel, GpuModel
from soniq_dse.records.workload import Conv2dLayer

sys.path.append(str(Path(__file__).resolve().parents[3]))  # benchmarks are not installed
gpu_benchmark = pytest.importorskip("benchmarks.gpu")
from benchmarks._gpu_device import Timing  # noqa: E402
from benchmarks._gpu_networks import network_row  # noqa: E402
from benchmarks._gpu_peers import Peer  # noqa: E402


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
            predicted_us, bound_us = gpu_benchmark.predictions(gpu, kernel, case.rows, case.cols, case.k)
            assert 0 < bound_us < predicted_us


def test_operands_are_those_of_the_format_and_never_all_zero() -> None:
    for kernel in gpu_benchmark.gpu_catalog():
        codes, weights = gpu_benchmark.operands(kernel, 4, 16, 64)
        assert codes.max() < 2**kernel.activation_bits
        assert codes.any()
        assert kernel.wgt == "s8" or (weights % 2 != 0).all()


class NoGpu:
    """Stands for a device whose every timing is what the model predicts, so that the way of a run can be tested."""

    name, architecture, multiprocessors, versions = "NVIDIA H200", "sm_90", 132, {"cupy": "none"}

    def product(self, kernel: GpuKernel, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return raw_gemm("u8", codes, weights)

    def cubin_sha256(self, kernel: GpuKernel) -> str:
        return "0" * 64

    def time(self, kernel: GpuKernel, rows: int, cols: int, k: int) -> Timing:
        h200 = load_machine("h200")
        assert isinstance(h200, GpuModel)
        return Timing(*[gpu_benchmark.predictions(h200, kernel, rows, cols, k)[0]] * 3)

    def time_peer(self, peer: Peer, rows: int, cols: int, k: int) -> Timing:
        if peer.name.startswith("GemLite"):
            raise ModuleNotFoundError("No module named 'gemlite'")
        return Timing(100.0, 90.0, 110.0)


@pytest.fixture(scope="module")
def run() -> list[dict]:
    h200 = load_machine("h200")
    assert isinstance(h200, GpuModel)
    return list(gpu_benchmark.measure(NoGpu(), h200, float("inf")))


def test_a_run_has_a_row_for_every_kernel_and_case_and_names_the_peers_that_did_not_run(run: list[dict]) -> None:
    assert all(row["exact"] and row["fp16_us"] == 100.0 for row in run)
    decode = next(row for row in run if row["weight_bits"] == 1 and row["cols"] == 28672)
    assert decode["peers_us"]["GemLite W1"].startswith("did not run: ModuleNotFoundError")
    assert decode["peers_us"]["torch._weight_int4pack_mm"] == 100.0
    assert "torch._int_mm" not in decode["peers_us"]  # takes more than 16 rows
    vector = [row for row in run if row["hfma2_us"]]
    assert {row["kernel"].rsplit("_", 1)[1] for row in vector} == {"csa"}
    assert value(run, "G3 error") == pytest.approx(0.0)
    assert value(run, "G2 vector W1A1") == pytest.approx(max(r["hfma2_us"] / r["median_us"] for r in vector))


def test_kept_rows_are_scored_by_the_model_of_today_and_stale_ones_listed(
    run: list[dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "h200").mkdir()
    rows = [run[0] | {"predicted_us": 1e9}, run[1] | {"source_sha256": "0" * 64}, run[2] | {"kernel": "gone"}, run[0]]
    (tmp_path / "h200" / "kernels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = gpu_benchmark.read_kept(tmp_path)
    assert [row["predicted_us"] for row in kept.rows] == [pytest.approx(run[0]["predicted_us"])]  # the later row
    assert [why for _, why in kept.stale] == ["its source has changed since", "there is no such kernel now"]
    gpu_benchmark.rescore(tmp_path)
    said = capsys.readouterr().out
    assert f"left out: {run[1]['kernel']} on NVIDIA H200" in said
    assert "NVIDIA H200: 1 rows" in said
    (tmp_path / "h200" / "kernels.jsonl").write_text('{"schema_version": 1}\n')
    with pytest.raises(UserError, match=r"kernels.jsonl:1: schema_version: expected 2, got 1"):
        gpu_benchmark.read_kept(tmp_path)


def test_every_layer_of_a_network_is_laid_out_for_the_device() -> None:
    class Layers(NoGpu):
        def layer(
            self, kernel: GpuLayerKernel, layer: Conv2dLayer, segments: list[GpuSegment], epilogue: Epilogue
        ) -> tuple[object, None]:
            table = layer_table(layer, segments, epilogue, 0, lambda array: array.ctypes.data)
            assert table["n_segments"][0] == len(segments)
            return lambda i: None, None

        def float_layer(self, layer: Conv2dLayer) -> object:
            return lambda i: None

        def time_run(self, run: Callable[[int], object], copies: int = 1, launches: int = 20) -> Timing:
            run(0)
            return Timing(50.0, 49.0, 51.0)

    h200 = load_machine("h200")
    assert isinstance(h200, GpuModel)
    row = network_row(Layers(), h200, "digits_cnn", 2)
    assert row["layers"] > 0
    assert row["predicted_us"] > 0


def test_without_rows_nothing_is_said_to_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu_benchmark.rescore(tmp_path)
    said = capsys.readouterr().out
    assert said.startswith("model only, not measured: no usable rows in ")
    assert said.count("not measured") == 1 + len(gpu_benchmark.goals_of([]))


def test_without_a_gpu_it_says_that_nothing_was_measured_and_what_would_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert gpu_benchmark.main(["--budget-s", "1"]) == 3
    said = capsys.readouterr()
    assert said.err.startswith("nothing measured: expected a GPU with CuPy and PyTorch, got: ")
    assert said.out.count("not measured") == len(gpu_benchmark.goals_of([]))
    assert gpu_benchmark.main(["--dry-run", "h200"]) == 0
    said = capsys.readouterr()
    assert "nothing is measured" in said.out.splitlines()[0]
    assert "gemm_u1_z1_s32_64x128x256__sm80_csa" in said.out
    assert "resnet18 at batch 32 by layer_f32__sm80_bmma" in said.out
    assert gpu_benchmark.main(["--dry-run", "h300"]) == 2
    assert "expected one of a100, b200, h100, h200" in capsys.readouterr().err
