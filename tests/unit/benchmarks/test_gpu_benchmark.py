"""The GPU benchmark as far as no GPU is needed: cases, goals by hand, and what it says where there is none."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from soniq_dse.errors import UserError
from soniq_dse.hardware.load import load_machine
from soniq_dse.kernels.reference import raw_gemm
from soniq_dse.records.gpu import GpuKernel, GpuModel

sys.path.append(str(Path(__file__).resolve().parents[3]))  # benchmarks are not installed
gpu_benchmark = pytest.importorskip("benchmarks.gpu")
from benchmarks import _gpu_ceilings, _gpu_run  # noqa: E402
from benchmarks._gpu_device import Timing  # noqa: E402
from benchmarks._gpu_networks import network_row  # noqa: E402
from benchmarks._gpu_peers import Peer  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parents[2] / "kernels"))
from cuda_device import ShimDevice  # noqa: E402


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
        codes, weights = _gpu_run.operands(kernel, 4, 16, 64)
        assert codes.max() < 2**kernel.activation_bits
        assert codes.any()
        assert kernel.wgt == "s8" or (weights % 2 != 0).all()


class NoGpu:
    """Stands for a device whose every timing is what the model predicts, so that the way of a run can be tested."""

    name, architecture, multiprocessors, versions = "NVIDIA H200", "sm_90", 132, {"cupy": "none"}
    lost = False

    def __init__(self, *_: object) -> None:
        self.runner = ShimDevice(us=70.0)

    def release(self) -> bool:
        return not self.lost

    def product(self, kernel: GpuKernel, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return raw_gemm("u8", codes, weights)

    def cubin_sha256(self, kernel: GpuKernel) -> str | None:
        return "0" * 64

    def time(self, kernel: GpuKernel, rows: int, cols: int, k: int) -> Timing:
        h200 = load_machine("h200")
        assert isinstance(h200, GpuModel)
        return Timing(*[gpu_benchmark.predictions(h200, kernel, rows, cols, k)[0]] * 3)

    def time_peer(self, peer: Peer, rows: int, cols: int, k: int) -> Timing:
        if peer.name.startswith("GemLite"):
            raise ModuleNotFoundError("No module named 'gemlite'")
        return Timing(100.0, 90.0, 110.0)

    def time_torch(self, build: Callable[[Any], Callable[[int], object]], copies: int = 1) -> Timing:
        raise ImportError("this PyTorch sees no GPU")


class Failing(NoGpu):
    """One kernel is wrong, one is refused, one has no memory; PyTorch is not there."""

    def product(self, kernel: GpuKernel, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if kernel.algorithm == "csa":
            raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU\nno kernel image")
        return super().product(kernel, codes, weights) + (kernel.algorithm == "popc")

    def time(self, kernel: GpuKernel, rows: int, cols: int, k: int) -> Timing:
        if (kernel.algorithm, rows) == ("dp4a", 1) and cols == 28672:
            raise MemoryError("out of memory")
        return super().time(kernel, rows, cols, k)

    def time_peer(self, peer: Peer, rows: int, cols: int, k: int) -> Timing:
        raise ImportError("No module named 'torch'")


def h200() -> GpuModel:
    found = load_machine("h200")
    assert isinstance(found, GpuModel)
    return found


@pytest.fixture(scope="module")
def run() -> list[dict]:
    return list(gpu_benchmark.measure(NoGpu(), h200(), float("inf")))


def test_a_run_has_a_row_for_every_kernel_and_case(run: list[dict]) -> None:
    assert all(row["exact"] and row["fp16_us"] == 100.0 and row["failed"] is None for row in run)
    vector = [row for row in run if row["hfma2_us"]]
    assert {row["kernel"].rsplit("_", 1)[1] for row in vector} == {"csa"}
    assert value(run, "G3 error") == pytest.approx(0.0)
    assert value(run, "G2 vector W1A1") == pytest.approx(max(r["hfma2_us"] / r["median_us"] for r in vector))


def test_peers_that_do_not_run_are_named_and_one_that_is_slow_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(gpu_benchmark.peer_rows(NoGpu(), float("inf")))
    gemlite = [row for row in rows if row["peer"] == "GemLite W1"]
    assert gemlite
    assert all(row["failed"].startswith("ModuleNotFoundError") and row["median_us"] is None for row in gemlite)
    assert {row["median_us"] for row in rows if row["peer"] == "torch._weight_int4pack_mm"} == {100.0}
    assert not any(row["rows"] == 1 for row in rows if row["peer"] == "torch._int_mm")  # takes more than 16 rows
    again = gpu_benchmark.peer_rows(NoGpu(), float("inf"), [(r["peer"], r["rows"], r["cols"], r["k"]) for r in rows])
    assert list(again) == []
    clock = itertools.count(0.0, 40.0)
    monkeypatch.setattr(_gpu_run, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    slow = [row for row in _gpu_run.peer_rows(NoGpu(), float("inf")) if row["peer"] == "torch._scaled_mm"]
    assert slow[0]["failed"] is None
    assert all(row["failed"].startswith("left out: it took 40 s") for row in slow[1:])


def test_what_fails_is_a_row_and_the_run_goes_on(run: list[dict]) -> None:
    rows = list(gpu_benchmark.measure(Failing(), h200(), float("inf")))
    assert [row["kernel"] for row in rows] == [row["kernel"] for row in run]
    of = {(row["kernel"].rsplit("_", 1)[1], row["cols"]): row for row in rows}
    assert of["csa", 8192]["failed"] == "RuntimeError: CUDA_ERROR_NO_BINARY_FOR_GPU"
    assert not of["csa", 8192]["exact"]
    assert not of["popc", 8192]["exact"]
    assert of["popc", 8192]["failed"] is None
    assert of["dp4a", 28672]["failed"] == "MemoryError: out of memory"
    assert of["dp4a", 28672]["median_us"] is None
    assert {row["fp16_us"] for row in rows} == {None}
    assert 0 < value(rows, "G1") < 1
    assert value(rows, "G2 decode W1 8192x8192") is None


def test_a_device_that_is_lost_ends_the_process_with_its_row_kept_and_another_goes_on_after_it(
    run: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Dying(NoGpu):
        def time(self, kernel: GpuKernel, rows: int, cols: int, k: int) -> Timing:
            if kernel.symbol == run[1]["kernel"]:
                self.lost = True
                raise RuntimeError("an illegal memory access was encountered")
            return super().time(kernel, rows, cols, k)

    started: list[list[str]] = []
    monkeypatch.setattr(gpu_benchmark, "MEASURED", tmp_path)
    monkeypatch.setattr(gpu_benchmark, "Device", Dying)
    monkeypatch.setattr(gpu_benchmark, "NETWORKS", ())
    monkeypatch.setattr(gpu_benchmark, "ceiling_rows", lambda *_: ())
    monkeypatch.setattr(gpu_benchmark, "prepare", lambda *_: [])
    monkeypatch.setattr(gpu_benchmark.os, "execv", lambda program, arguments: started.append(arguments))
    gpu_benchmark.measured(480.0)
    assert started[0][1:4] == ["-m", "benchmarks.gpu", "--budget-s"]
    file = tmp_path / "nvidia_h200" / "kernels.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["failed"] for row in rows] == [None, "the device was lost"]
    with file.open("a") as stream:
        stream.write('{"schema_version": 3, "kern')  # and one was killed while it wrote

    monkeypatch.setattr(gpu_benchmark, "Device", NoGpu)
    gpu_benchmark.measured(480.0)
    later = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")][2:]
    assert len(later) == len(run) - 1  # all but the one that is kept; what failed comes last
    assert later[-1]["kernel"] == run[1]["kernel"]
    assert "1 rows are kept from before" in capsys.readouterr().out
    gpu_benchmark.measured(480.0)
    assert len(file.read_text().splitlines()) == 3 + len(later)  # nothing is left to do


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
    with pytest.raises(UserError, match=r"kernels.jsonl:1: schema_version: expected 3, got 1"):
        gpu_benchmark.read_kept(tmp_path)


@pytest.mark.slow
def test_ceilings_become_figures_of_a_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, four warps at a time: figures follow from cycles and times that are made up."""
    monkeypatch.setattr(_gpu_ceilings, "ITERATIONS", 2)

    class Cycles(ShimDevice):
        def read(self, address: int, shape: tuple[int, ...], dtype: str) -> Any:
            return np.full(shape, 25, dtype)

    device = NoGpu()
    device.runner, device.multiprocessors, device.cache_bytes = Cycles(us=0.015), 1, 4096
    rows = list(_gpu_ceilings.ceiling_rows(device, h200()))
    assert [row["failed"] for row in rows] == [None] * len(rows)
    figures = {name: value for row in rows for name, value in row["figures"].items()}
    warps = 2 * 256 // 32
    assert figures["operations.bmma_and.macs_per_cycle"] == warps * 8 * 2 * 16 * 8 * 256 / 25
    assert figures["multiprocessor.lanes_per_cycle.popc"] == warps * 8 * 2 * 32 / 25
    assert figures["overhead.launch_us"] == pytest.approx(0.015)
    assert figures["memory.sustained_share"] == pytest.approx(16 * 4096 / 0.015e-6 / 4800e9)
    assert "operations.imma_s4.macs_per_cycle" not in figures  # emulated: nothing runs on it
    assert list(_gpu_ceilings.ceiling_rows(device, h200(), [row["ceiling"] for row in rows])) == []

    folder = tmp_path / "nvidia_h200"
    folder.mkdir()
    (folder / "ceilings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = gpu_benchmark.measured_descriptor("h200", tmp_path)
    (tmp_path / "mine.yaml").write_text(text.replace("h200_measured", "mine"))
    made = load_machine(tmp_path / "mine.yaml")
    assert isinstance(made, GpuModel)
    assert made.overhead.launch_us.value == 0.015
    assert made.operations["bmma_and"].macs_per_cycle.kind == "measured"
    assert made.memory.read_gb_per_s == h200().memory.read_gb_per_s
    assert made.matches == h200().matches
    with pytest.raises(UserError, match="expected ceilings measured on l40s below"):
        gpu_benchmark.measured_descriptor("l40s", tmp_path)


@pytest.mark.slow
def test_a_network_is_held_to_the_golden_one_and_what_fails_is_said() -> None:
    """On a CPU in place of the GPU, whose timing is made up."""
    row = network_row(NoGpu(), h200(), "tiny_cnn", 1)
    assert row["exact"]
    assert row["failed"] is None
    assert row["median_us"] == pytest.approx(70.0)
    assert row["launches"] == len(set(row["per_layer_us"])) > 5
    assert row["fp16_failed"] == "ImportError: this PyTorch sees no GPU"
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
    assert said.err.startswith("nothing measured: expected CuPy to drive the GPU, got: ")
    assert said.out.count("not measured") == len(gpu_benchmark.goals_of([]))
    assert gpu_benchmark.main(["--dry-run", "h200"]) == 0
    said = capsys.readouterr()
    assert "nothing is measured" in said.out.splitlines()[0]
    assert "gemm_u1_z1_s32_64x128x256__sm80_csa" in said.out
    assert "resnet18 at batch 32 by layer_f32__sm80_bmma" in said.out
    assert gpu_benchmark.main(["--dry-run", "h300"]) == 2
    assert "expected one of a100, b200, h100, h200" in capsys.readouterr().err
