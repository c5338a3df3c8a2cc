"""The whole walk on a tiny network: its files, and what each flag makes of it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from explore_command import COMMAND, NAMES, PALETTES, designs_in, explore, soniq_dse

from soniq_dse.cost.network import choose_kernels
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.front import ParetoFront, Report, RunInfo
from soniq_dse.runtime import autotune
from soniq_dse.runtime.autotune import tuned_choices
from soniq_dse.runtime.pack import PackedNetwork


def test_files_of_a_run(finished: Path) -> None:
    front = ParetoFront.from_json((finished / "front.json").read_bytes())
    report = Report.from_json((finished / "report.json").read_bytes())
    info = RunInfo.from_json((finished / "run.json").read_bytes())
    assert [point.name for point in front.points] == NAMES
    assert [point.role for point in front.points] == ["fp32", "int8", "design", "design"]
    assert [point.bits_per_weight for point in front.points[:3]] == [32, 8, 2]
    assert front.points[3].bits_per_weight == 1 + 3 * 5 / 16  # 5 of 16 channels at 4 bits: a sixth is over the budget
    assert all(point.latency_predicted_us and point.n_seeds == 1 for point in front.points)
    assert all(point.latency_measured_us is None for point in front.points)
    assert not any(point.dominated for point in front.points if point.role != "design")
    assert any(not point.dominated for point in front.points if point.role == "design")
    assert report.front == front
    assert [step.id for step in report.search] == [point.id for point in front.points[2:]]
    assert report.search[-1].hypervolume == report.hypervolume
    assert report.machine is not None
    assert report.machine.name == report.hardware
    gains = {question.label: question.latency_ratio for question in report.what_if}
    assert all(ratio.keys() == {point.id for point in front.points} for ratio in gains.values())
    assert all(0 < ratio < 1 for ratio in gains["one more vector pipe"].values())
    for point, detail in zip(front.points[1:], report.details[1:], strict=True):
        assert detail.confusion is not None
        right = sum(detail.confusion[i][i] for i in range(len(detail.confusion)))
        assert 100 * right / front.task.n_test == pytest.approx(point.metric_test)
    assert (info.total, len(info.baselines), len(info.designs)) == (4, 1, 3)
    with open(finished / "designs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == NAMES
    assert "--palettes w1a1+w4a4@2" in rows[3]["command"]
    assert "<html" in (finished / "report.html").read_text()[:200]
    packed = sorted(path.name for path in (finished / "designs").iterdir())
    assert packed == ["w1a1+w4a4@2-soniq-s0.safetensors", "w2a2-soniq-s0.safetensors", "w8a8-soniq-s0.safetensors"]


def test_the_estimate_prices_the_kernels_that_run(finished: Path) -> None:
    """Shape by shape, so that what the cost model chose is what the runtime finds."""
    report = Report.from_json((finished / "report.json").read_bytes())
    ids = {point.name: point.id for point in report.front.points}
    estimates = {detail.id: detail.estimate for detail in report.details}
    for name in ("w2a2", "w1a1+w4a4@2"):
        estimate = estimates[ids[name]]
        packed = PackedNetwork.load(finished / "designs" / f"{name}-soniq-s0.safetensors")
        assert estimate is not None
        priced = {choice.shape: choice.taken.symbol for layer in estimate.per_layer for choice in layer.choices}
        assert set(priced) == set(packed.shapes(1))
        made = choose_kernels(load_hardware("avx512"), packed.shapes(1)).made
        assert {choice.shape: choice.taken.symbol for choice in made} == priced


def test_measured_where_the_descriptor_describes_this_host(copied: Path) -> None:
    """The trainings serve any machine; timings are taken once, or there is a word on why not."""
    command = [word for word in COMMAND if word not in ("--hw", "avx512", "--no-measure")]
    arguments = [*command, *PALETTES, "--out", str(copied), "--store", str(copied / "store")]
    fronts = [json.loads(soniq_dse(*arguments, "--json")[0])["front"] for _ in range(2)]
    assert fronts[0] == fronts[1]
    report = Report.from_json((copied / "report.json").read_bytes())
    measured = [point.latency_measured_us for point in report.front.points]
    if report.hardware_matches_host and shutil.which("g++"):
        assert all(measured)
        assert all(detail.agreement and detail.agreement.ratio for detail in report.details)
    else:
        assert not any(measured[1:])
        assert any("predicted only" in note or "Not measured" in note for note in report.notes)


def test_autotuned_kernels_are_those_of_the_estimate(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured once, where the descriptor describes this host; the estimate then prices what was found."""
    monkeypatch.setattr(autotune, "_default_file", lambda: copied / "tuned.jsonl")
    monkeypatch.setattr(autotune, "SETTLE_S", 1e-3)
    command = [word for word in COMMAND if word not in ("--hw", "avx512", "--no-measure")]
    arguments = [*command, "--palettes", "w2a2", "--out", str(copied), "--store", str(copied / "store"), "--autotune"]
    _, err = soniq_dse(*arguments)
    report = Report.from_json((copied / "report.json").read_bytes())
    if not report.hardware_matches_host:
        assert "autotuned w" not in err
        return
    assert "autotuned w2a2 " in err
    tuned = tuned_choices()
    priced = [choice for detail in report.details if detail.estimate for layer in detail.estimate.per_layer
              for choice in layer.choices]  # fmt: skip
    assert priced
    assert all(choice == tuned.of(choice.shape) for choice in priced)
    assert "autotuned w" not in soniq_dse(*arguments)[1]


def test_a_budget_in_latency_is_kept_by_the_estimate_itself(copied: Path) -> None:
    """The FP32 and INT8 networks of the run before serve; table, JSON, CSV, page and command name the budget."""
    _, refused = explore("--palettes", "w1a1+w4a4", "--budget-us", "0.1", "--out", str(copied), code=2)
    low, high = map(float, re.findall(r"expected ([\d.]+) to ([\d.]+) us", refused)[0])
    budget = round((low + 2 * high) / 3, 2)
    out, _ = explore("--palettes", "w1a1+w4a4", "--budget-us", f"{budget},0.1", "--out", str(copied), "--json")
    (point,) = (point for point in json.loads(out)["front"]["points"] if point["role"] == "design")
    assert (point["name"], point["budget"], point["budget_unit"]) == (f"w1a1+w4a4@{budget}us", budget, "us")
    assert point["budget_used"] == point["latency_predicted_us"] <= budget
    with open(copied / "designs.csv", newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if row["name"] == point["name"])
    assert f"--palettes w1a1+w4a4@{budget}us" in row["command"]
    assert (row["budget"], row["budget_unit"]) == (str(budget), "us")
    shown = soniq_dse("runs", "show", str(copied), "--all")[0]
    assert f" of {budget} us (-" in shown
    assert f"left out: w1a1+w4a4@0.1us: budget of w1a1+w4a4: expected {low} to " in " ".join(shown.split())
    before = {path: path.stat().st_mtime_ns for path in designs_in(copied)}
    explore("--palettes", f"w1a1+w4a4@{budget}us", "--out", str(copied))
    assert {path: path.stat().st_mtime_ns for path in designs_in(copied)} == before


def test_pins_are_trained_and_named(copied: Path) -> None:
    """References have none, so that theirs are not trained again."""
    before = {path: path.stat().st_mtime_ns for path in designs_in(copied)}
    asked = ["--palettes", "w2a2", "--first-last", "w4a4", "--pin", "7=w1a2"]
    explore(*asked, "--out", str(copied))
    new = [path for path in designs_in(copied) if path not in before]
    assert len(new) == 1
    report = Report.from_json((copied / "report.json").read_bytes())
    details = {point.name: detail for point, detail in zip(report.front.points, report.details, strict=True)}
    (assignment,) = details["w2a2"].assignments
    pinned = {name: palette.name for name, palette in assignment.pinned.items()}
    readers = {reader: c.name for c in report.workload.tensor_classes for reader in c.consumers}
    assert {reader: pinned.get(name) for reader, name in readers.items()} == {"0": "w4a4", "3": None, "7": "w1a2"}
    assert {p.name for p in details["INT8 (w8a8)"].assignments[0].pinned.values()} == {"w8a8"}
    assert "--first-last w4a4 --pin 7=w1a2" in details["w2a2"].command
    assert "--pin" not in details["INT8 (w8a8)"].command
    assert any("--first-last w4a4 --pin 7=w1a2" in note for note in report.notes)


def test_per_layer_no_layer_mixes_levels(copied: Path) -> None:
    asked = ["--palettes", "w1a1+w4a4@2.5", "--granularity", "layer", "--first-last", "none"]
    explore(*asked, "--out", str(copied))
    report = Report.from_json((copied / "report.json").read_bytes())
    (detail,) = (d for d in report.details if "--granularity layer" in d.command)
    levels = detail.assignments[0].level_of_channel
    assert len(levels) == 3
    assert all(len(set(of_class)) == 1 for of_class in levels.values())
    assert {of_class[0] for of_class in levels.values()} == {0, 1}
    assert detail.assignments[0].bits_per_weight <= 2.5


def test_failing_design_is_named_and_the_rest_goes_on(copied: Path) -> None:
    """A result that cannot be kept (a folder lies in its place) fails alone; what is in the store serves the others."""
    (taken,) = (path for path in designs_in(copied) if '"weight_bits":4' in path.read_text())
    taken.unlink()
    taken.mkdir()
    (copied / "store" / "index.sqlite").unlink()
    _, err = explore(*PALETTES, "--out", str(copied), code=1)
    assert "failed: w1a1+w4a4@2, seed 0: " in err
    report = Report.from_json((copied / "report.json").read_bytes())
    assert [point.name for point in report.front.points] == NAMES[:3]
    assert any(skip.name == "w1a1+w4a4@2, seed 0" and "failed" in skip.reason for skip in report.skipped)


def test_everything_times_out(tmp_path: Path) -> None:
    _, err = explore(*PALETTES, "--out", str(tmp_path / "run"), "--timeout", "0.01", code=1)
    assert "took longer than 0.01 s" in err
    report = Report.from_json((tmp_path / "run" / "report.json").read_bytes())
    assert report.front.points == ()
    assert len(report.skipped) == 4


def test_runs_and_report(copied: Path) -> None:
    root = ["--root", str(copied.parent)]
    (row,) = json.loads(soniq_dse("runs", "list", *root, "--json")[0])
    assert (row["name"], row["state"], row["trainings"]) == ("run", "finished", "4 of 4")
    assert "w1a1+w4a4@2" in soniq_dse("runs", "show", "ru", *root)[0]
    page = (copied / "report.html").read_bytes()
    (copied / "report.html").unlink()
    soniq_dse("report", "run", *root)
    assert (copied / "report.html").read_bytes() == page
    (copied / "report.json").unlink()
    designs_in(copied)[0].unlink()
    (row,) = json.loads(soniq_dse("runs", "list", *root, "--json")[0])
    assert (row["state"], row["trainings"]) == ("interrupted", "3 of 4")
    assert "to go on: soniq-dse explore" in soniq_dse("runs", "show", "run", *root)[0]
