"""The whole walk on a tiny network: its files, resuming, what fails, and what is refused before anything is done."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from soniq_dse.cli import main
from soniq_dse.cost.network import choose_kernels
from soniq_dse.explore import _asked
from soniq_dse.hardware.load import load_hardware
from soniq_dse.kernels import gpu_device
from soniq_dse.records.front import ParetoFront, Report, RunInfo
from soniq_dse.runtime import autotune, gpu_latency
from soniq_dse.runtime.autotune import tuned_choices
from soniq_dse.runtime.pack import PackedNetwork

HERE = Path(__file__).parent
COMMAND = ["explore", "--hw", "avx512", "--model", "tiny_net:build", "--data", "tiny_net:task", "--epochs", "2,1,1"]
COMMAND += ["--no-measure", "--jobs", "2"]
PALETTES = ["--palettes", "w2a2,w1a1+w4a4@2.0"]
NAMES = ["FP32", "INT8 (w8a8)", "w2a2", "w1a1+w4a4@2"]


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command in a session of its own, to be interrupted."""
    return subprocess.Popen(
        [sys.executable, "-m", "soniq_dse", *COMMAND, *arguments],
        cwd=HERE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def soniq_dse(*arguments: str, code: int = 0) -> tuple[str, str]:
    """The program called in this process: (standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["soniq-dse", *arguments])
        patch.chdir(HERE)  # where tiny_net is found
        patch.syspath_prepend(str(HERE))
        with pytest.raises(SystemExit) as left:
            main()
    assert left.value.code == code, err.getvalue()
    assert "Traceback" not in err.getvalue()
    return out.getvalue(), err.getvalue()


def explore(*arguments: str, code: int = 0) -> tuple[str, str]:
    return soniq_dse(*COMMAND, *arguments, code=code)


def front_of(folder: Path) -> dict[str, Any]:
    """front.json without what is measured."""
    front = json.loads((folder / "front.json").read_text())
    for point in front["points"]:
        point.pop("latency_measured_us")
    return {key: value for key, value in front.items() if key != "host"}


def designs_in(folder: Path) -> list[Path]:
    return sorted((folder / "store" / "records" / "design").glob("*.json"))


def wait_for_design(folder: Path, process: subprocess.Popen[str]) -> None:
    while not designs_in(folder):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def nothing_is_left(leader: int) -> bool:
    """Whether the session that ``leader`` began is over within some seconds of its end."""
    for _ in range(200):
        if not any(_session(stat) == leader for stat in Path("/proc").glob("[0-9]*/stat")):
            return True
        time.sleep(0.05)
    return False


def _session(stat: Path) -> int | None:
    """The session of a living process."""
    try:
        fields = stat.read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[3])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    out, err = explore(*PALETTES, "--out", str(folder))
    assert out.rstrip().endswith(f"report: {folder / 'report.html'}")
    assert "accuracy" in err
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


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


def test_finished_run_is_not_done_again(copied: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in designs_in(copied)}
    out, _ = explore(*PALETTES, "--out", str(copied), "--json")
    assert {path: path.stat().st_mtime_ns for path in designs_in(copied)} == before
    assert [point["name"] for point in json.loads(out)["front"]["points"]] == NAMES


def test_damaged_result_is_trained_again_to_the_same_front(finished: Path, copied: Path) -> None:
    damaged = designs_in(copied)[0]
    damaged.write_text(damaged.read_text().replace("metric_val", "metric_vol"))
    (copied / "store" / "index.sqlite").write_bytes(b"rubbish" * 1000)
    arrays = list((copied / "store" / "arrays").glob("*/*"))
    max(arrays, key=lambda path: path.stat().st_size).write_bytes(b"")
    _, err = explore(*PALETTES, "--out", str(copied))
    assert err.count(" is damaged") >= 2
    assert front_of(copied) == front_of(finished)


def test_interrupted_twice_and_continued(finished: Path, tmp_path: Path) -> None:
    """Ctrl-C in the terminal, then kill -9: no process is left behind, and the front is the same bit for bit."""
    folder = tmp_path / "run"
    first = start(*PALETTES, "--out", str(folder))
    wait_for_design(folder, first)
    os.killpg(first.pid, signal.SIGINT)
    time.sleep(0.1)
    os.killpg(first.pid, signal.SIGINT)  # an impatient user
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert nothing_is_left(first.pid)

    second = start(*PALETTES, "--out", str(folder))
    time.sleep(3.0)
    second.kill()
    second.communicate()
    assert nothing_is_left(second.pid)

    explore(*PALETTES, "--out", str(folder))
    assert front_of(folder) == front_of(finished)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_interrupted_while_it_plans(tmp_path: Path) -> None:
    planning = start(*PALETTES, "--out", str(tmp_path / "run"))
    while cpu_seconds(planning.pid) < 0.6:  # imports PyTorch, after its own start and before any training
        time.sleep(0.01)
    os.killpg(planning.pid, signal.SIGINT)
    _, err = planning.communicate(timeout=60)
    assert planning.returncode == 130, err
    assert err.strip() == "interrupted; what is finished is kept: run the same command again to go on"


@pytest.mark.slow
def test_killed_at_random_moments(finished: Path, tmp_path: Path) -> None:
    """Whatever instant kill -9 comes at, importing, training, writing or reporting, the front ends up the same."""
    folder, chance = tmp_path / "run", random.Random(11)
    for _ in range(8):
        process = start(*PALETTES, "--out", str(folder))
        time.sleep(chance.uniform(0.5, 8.0))
        process.kill()
        process.communicate()
        assert nothing_is_left(process.pid)
    explore(*PALETTES, "--out", str(folder))
    assert front_of(folder) == front_of(finished)


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


def test_same_run_twice_at_once_is_refused(copied: Path) -> None:
    import fcntl

    with open(copied / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _, err = explore(*PALETTES, "--out", str(copied), code=2)
    assert "another process is at this run" in err


def test_dry_run_trains_nothing(copied: Path, tmp_path: Path) -> None:
    out, _ = explore(*PALETTES, "--out", str(tmp_path / "new"), "--dry-run", "--json")
    plan = json.loads(out)
    assert plan["trainings"] == [f"{name}, seed 0" for name in NAMES]
    assert plan["missing"] == plan["trainings"]
    assert plan["seconds"] > 0
    assert not (tmp_path / "new").exists()
    designs_in(copied)[0].unlink()
    (copied / "store" / "index.sqlite").unlink()
    out, _ = explore(*PALETTES, "--out", str(copied), "--dry-run", "--json")
    assert len(json.loads(out)["missing"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--palettes", "w2b2"], "palette 'w2b2': expected levels like w1a1+w4a4"),
        (["--palettes", "w9a9"], "expected 1 to 8 bits, got 'w9a9'; nearest valid choice: 'w8a8'"),
        (["--palettes", "w4a16"], "got 'w4a16'; nearest valid choice: 'w4a8'"),
        (["--palettes", "w1a1+w1a1"], "expected 1 to 4 levels, each once"),
        (["--palettes", "w2a2,w4"], "got the weight-only level w4; nearest valid choice: w4a8"),
        (["--palettes", "w2a2@few"], "expected a budget of 2 bits per weight behind the @, got 'few'"),
        (["--palettes", "w1a1+w2a2@99"], "expected a budget of 1 to 2 bits per weight behind the @, got '99'"),
        (["--palettes", "w1a1+w2a2@nan"], "nearest valid choice: 'w1a1+w2a2@2'"),
        (["--palettes", "w2a2+w4a4@-1"], "nearest valid choice: 'w2a2+w4a4@2'"),
        (["--palettes", "w1a1+w2a2@0us"], "expected a budget like @30us or @5uj behind the @, got '0'"),
        (["--palettes", "w1a1+w4a4@99us"], "us, what its levels take alone, got 99; nearest valid choice: 1."),
        (["--palettes", "w2a2@30us"], "expected a budget of 2 bits per weight behind the @, got '30us'"),
        (["--palettes", "w2a2", "--budget-us", "30"], "budget: expected a palette of several levels such as w1a1+w4a4"),
        (["--budget-uj", "3,x"], "expected positive numbers like 30,50, got '3,x'"),
        (["--pin", "nope=w4a4"], "pin: layer: expected a known name, got 'nope'; valid choices: 0, 3, 7"),
        (["--pin", "7"], "--pin: expected MODULE=LEVEL such as head=w4a4, got '7'"),
        (["--first-last", "w4"], "expected a level with activation bits, got w4; nearest valid choice: 'w4a8'"),
        (["--pin", "7=w4a4", "--pin", "7=w2a2"], "expected every module once, got 7 twice"),
        (["--first-last", "w9a9"], "--first-last: expected 1 to 8 bits, got 'w9a9'; nearest valid choice: 'w8a8'"),
        (["--epochs", "1,2"], "expected three numbers of epochs like 12,4,8"),
        (["--hw", "avx521"], "nearest valid choice: 'avx512'"),
        (["--allocator", "sonic"], "nearest valid choice: 'soniq'"),
        (["--model", "tiny_net:broken"], "no model today"),
        (["--model", "tiny_net:leaving"], "calling it failed: SystemExit: 4"),
        (
            ["--model", "tiny_net:with_silu"],
            "got silu at 2",
        ),
        (["--model", "tiny_net:one_output"], "one per class of"),
        (["--model", "digits_cmm"], "nearest valid choice: 'digits_cnn'"),
        (["--batch", "0"], "0 is not in the range"),
    ],
)
def test_refused_before_anything_is_done(arguments: list[str], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    out, err = explore(*arguments, "--out", str(folder), code=2)
    assert message in err
    assert out == ""
    assert not folder.exists()


def test_a_budget_of_energy_needs_its_figures(tmp_path: Path) -> None:
    asked = ["x60" if word == "avx512" else word for word in COMMAND]
    _, err = soniq_dse(*asked, "--palettes", "w1a1+w4a4@5uj", "--out", str(tmp_path / "run"), code=2)
    assert "expected a machine with figures of energy, got x60" in err


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


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\x00", b'{"schema_version": 1'])
def test_damaged_files_of_a_run_are_named_and_cost_nothing(content: bytes, copied: Path) -> None:
    root = ["--root", str(copied.parent)]
    shutil.copytree(copied, copied.parent / "other")
    (copied / "run.json").write_bytes(content)
    out, err = soniq_dse("runs", "list", *root, "--json")
    assert [row["name"] for row in json.loads(out)] == ["other"]
    assert "run.json: expected what a run set out to do" in err
    (copied / "report.json").write_bytes(content)
    for command in (("runs", "show"), ("report",)):
        _, err = soniq_dse(*command, str(copied), code=2)
        assert "report.json: expected a report of schema version 1" in err
    explore(*PALETTES, "--out", str(copied))
    assert len(json.loads(soniq_dse("runs", "list", *root, "--json")[0])) == 2


def test_report_where_nothing_can_be_written(copied: Path) -> None:
    _, err = soniq_dse("report", str(copied), "--out", "/proc/nowhere", code=2)
    assert "/proc/nowhere: expected to read or write there" in err


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
