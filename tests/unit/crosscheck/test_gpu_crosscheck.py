"""``crosscheck`` of a GPU: predictions alone, measurements where it is, kept ones where it is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from soniq_dse.cli import main
from soniq_dse.crosscheck import _bench
from soniq_dse.kernels import gpu_device

KERNELS = Path(__file__).parents[2] / "kernels"
LAYERS = [
    {"op": "gemm", "name": "first", "m": 3, "n": 17, "k": 40,
     "segments": [{"weight_bits": 1, "activation_bits": 1, "channels": 24},
                  {"weight_bits": 4, "activation_bits": 8, "channels": 16}]},
    {"op": "conv2d", "name": "second", "in_channels": 8, "out_channels": 8, "height": 3, "width": 3, "kernel": [3, 3],
     "padding": [1, 1], "segments": [{"weight_bits": 2, "activation_bits": 2, "channels": 8}]},
]  # fmt: skip


@pytest.fixture
def crosscheck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command in a folder of its own: (exit code, crosscheck.json, what it says of errors)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layers.json").write_text(json.dumps(LAYERS))

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        command = ["soniq-dse", "crosscheck", "--hw", "h200", "--layers", "layers.json", "--out", "out", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as left:
            main()
        record = json.loads((tmp_path / "out" / "crosscheck.json").read_text())
        return int(left.value.code or 0), record, capsys.readouterr().err

    return run


def test_without_the_gpu_there_are_predictions_and_it_says_why(crosscheck: Any, tmp_path: Path) -> None:
    code, record, err = crosscheck()
    assert code == 3
    assert "model only: h200 describes no GPU of this machine" in record["not_measured"]
    assert "no layers were measured on this machine" in record["not_measured"]
    assert "this machine cannot run its kernels" in err
    assert all(row["predicted_us"] > 0 and row["measured_us"] is None for row in record["rows"])
    assert record["goals"] == []
    assert "Latencies are predictions only" in next((tmp_path / "out").glob("*.html")).read_text()


def test_what_a_gpu_measured_is_kept_and_scored_again_without_it(
    crosscheck: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU stands for the GPU; its timing is made up."""
    monkeypatch.syspath_prepend(str(KERNELS))
    from cuda_device import ShimDevice

    with monkeypatch.context() as patch:
        patch.setattr(_bench, "visible_gpus", lambda: ("NVIDIA H200",))
        patch.setattr(gpu_device, "open_device", lambda: ShimDevice(us=5.0))
        code, record, _ = crosscheck("--keep")
    assert code in (0, 1)  # goals may be missed by a timing that is made up
    assert record["host"]["processor"] == "NVIDIA H200"
    assert [row["measured_us"] for row in record["rows"]] == [pytest.approx(5.0)] * 2

    file = tmp_path / "hwmodels" / "measured" / "h200" / "layers.json"
    kept = json.loads(file.read_text())
    assert list(kept["layers"][0]["kernels"]) == ["layer_f32__sm80_bmma"]
    kept["layers"][1]["kernels"] = {"layer_f32__sm80_bmma": "0" * 64}
    file.write_text(json.dumps(kept))
    code, record, _ = crosscheck()
    assert code in (0, 1)
    assert record["not_measured"] is None
    assert record["matches_host"] is False
    assert [row["measured_us"] for row in record["rows"]] == [pytest.approx(5.0), None]
    assert "stale" in record["rows"][1]["reason"]


def test_what_a_gpu_does_not_take_is_refused_with_its_place(
    crosscheck: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "layers.json").write_text(json.dumps([LAYERS[0] | {"threads": 2}]))
    monkeypatch.setattr(sys, "argv", ["soniq-dse", "crosscheck", "--hw", "h200", "--layers", "layers.json"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "[0] 'first' threads: expected 1 on a GPU, got 2" in capsys.readouterr().err
