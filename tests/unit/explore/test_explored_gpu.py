"""Designs for a GPU: measured where it is, from records where it is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from explore_command import HERE, soniq_dse

from soniq_dse.explore import _asked
from soniq_dse.kernels import gpu_device
from soniq_dse.runtime import gpu_latency

GPU = ["--hw", "h200", "--model", "tiny_net:build", "--data", "tiny_net:task", "--epochs", "1,1,1"]
GPU += ["--palettes", "w1a1+w4a4@2.0"]


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A store for all that is explored on GPUs."""
    return ["--store", str(tmp_path_factory.mktemp("trainings"))]


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of GPUs that are a CPU; the driver reports an H200."""
    monkeypatch.syspath_prepend(str(HERE.parents[1] / "kernels"))
    from cuda_device import ShimDevice

    monkeypatch.setattr(_asked, "visible_gpus", lambda: ("NVIDIA H200",))
    return ShimDevice


def measured_by_name(folder: Path) -> dict[str, float | None]:
    points = json.loads((folder / "front.json").read_text())["points"]
    assert all(point["latency_predicted_us"] > 0 for point in points)
    return {point["name"]: point["latency_measured_us"] for point in points}


def notes_of(folder: Path) -> str:
    return "\n".join(json.loads((folder / "report.json").read_text())["notes"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_gpu_is_measured_where_it_is_and_its_records_serve_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[str], with_gpu: Any
) -> None:
    """Every code and output is held to the golden ones; the timing is made up."""
    there, here = tmp_path / "there", tmp_path / "here"
    monkeypatch.setattr(gpu_device, "open_device", lambda: with_gpu(us=50.0))
    soniq_dse("explore", *GPU, *trainings, "--out", str(there))
    assert measured_by_name(there) == {"FP32": None, "INT8 (w8a8)": pytest.approx(50), "w1a1+w4a4@2": pytest.approx(50)}
    assert "predicted only" not in notes_of(there)
    assert "predictions only" not in (there / "report.html").read_text()

    monkeypatch.setattr(_asked, "visible_gpus", tuple)
    soniq_dse("explore", *GPU, *trainings, "--out", str(here))
    assert set(measured_by_name(here).values()) == {None}
    assert "model only, not measured: h200 describes no GPU of this machine" in notes_of(here)
    assert "predictions only" in (here / "report.html").read_text()

    kept = tmp_path / "measured" / "h200"
    kept.mkdir(parents=True)
    lines = (there / "designs.jsonl").read_text().splitlines()
    (kept / "designs.jsonl").write_text(lines[-1] + "\n")  # of the last design alone
    monkeypatch.setattr(gpu_latency, "shipped_folder", lambda name: tmp_path)
    soniq_dse("explore", *GPU, *trainings, "--out", str(here))
    assert measured_by_name(here) == {"FP32": None, "INT8 (w8a8)": None, "w1a1+w4a4@2": pytest.approx(50)}
    assert "1 of 3 latencies are kept measurements of NVIDIA H200" in notes_of(here)


@pytest.mark.slow
def test_a_gpu_that_cannot_be_driven_or_computes_wrongly_is_said_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[str], with_gpu: Any
) -> None:
    class Wrong(with_gpu):  # type: ignore[misc]
        def read(self, address: int, shape: tuple[int, ...], dtype: str) -> Any:
            return super().read(address, shape, dtype) + 1

    monkeypatch.setitem(sys.modules, "cupy", None)
    soniq_dse("explore", *GPU, *trainings, "--out", str(tmp_path / "no_cupy"))
    assert "model only, not measured: expected CuPy to drive the GPU, got: " in notes_of(tmp_path / "no_cupy")
    monkeypatch.setattr(gpu_device, "open_device", lambda: Wrong("NVIDIA H200 NVL"))
    _, err = soniq_dse("explore", *GPU, *trainings, "--out", str(tmp_path / "wrong"), code=1)
    assert "the GPU differs from the golden arithmetic in" in err
