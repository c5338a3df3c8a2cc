"""What a run survives: kills of driver and workers, models that misbehave, a full disk, a shared store, a wrong clock.

``SONIQ_DSE_KILLS=200`` gives the number of kills of the random harness.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from soniq_dse.records.front import Report

HERE = Path(__file__).parent
KILLS = int(os.environ.get("SONIQ_DSE_KILLS", "40"))
COMMAND = ["explore", "--hw", "avx512", "--data", "tiny_net:task", "--epochs", "2,1,1", "--no-measure", "--jobs", "2"]
TINY = [*COMMAND, "--model", "tiny_net:build", "--palettes", "w2a2"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "soniq_dse", *arguments],
        cwd=HERE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def end(process: subprocess.Popen[str], code: int) -> str:
    """Standard error of a run that ended with ``code``."""
    _, err = process.communicate(timeout=900)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return err


def names_of(folder: Path) -> list[str]:
    return [point.name for point in Report.from_json((folder / "report.json").read_bytes()).front.points]


def front_of(folder: Path) -> Any:
    return json.loads((folder / "front.json").read_text())["points"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    end(start(*TINY, "--out", str(folder)), 0)
    return folder


def test_random_kills_lose_nothing_finished(tmp_path: Path) -> None:
    """And killed runs end in the front of the whole one. See ``kill_harness.py``."""
    command = [sys.executable, str(HERE / "kill_harness.py"), str(KILLS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["kills"] == KILLS
    assert seen["ends"] >= 1


@pytest.mark.parametrize(
    ("model", "flags", "reason"),
    [
        ("raises", (), "RuntimeError: no more of this"),
        ("gives_nan", (), "nan"),
        ("hangs", ("--timeout", "40"), "took longer than 40 s and was stopped"),
        ("leaks", ("--memory-limit", "1500"), "more than the 1500 MiB allowed, and was stopped"),
    ],
)
def test_a_model_that_misbehaves_fails_alone(model: str, flags: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    asked = [
        *COMMAND,
        "--model",
        f"wild_net:{model}",
        "--palettes",
        "w2a2,w4a4",
        "--out",
        str(tmp_path / "run"),
        *flags,
    ]
    err = end(start(*asked), 1)
    (line,) = (line for line in err.splitlines() if line.startswith("failed: "))
    assert line.startswith("failed: w4a4, seed 0: ")
    assert reason in line
    assert names_of(tmp_path / "run") == ["FP32", "INT8 (w8a8)", "w2a2"]


def test_a_killed_worker_is_named_and_its_design_trained_by_the_next_run(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = start(*TINY, "--out", str(folder), start_new_session=True)
    killed = None
    while killed is None:
        assert run.poll() is None, run.communicate()
        killed = trainer_of(run.pid)
        time.sleep(0.01)
    os.kill(killed, 9)
    err = end(run, 1)
    assert "was killed by SIGKILL (out of memory?)" in err
    end(start(*TINY, "--out", str(folder)), 0)
    assert front_of(folder) == front_of(whole)


def trainer_of(session: int) -> int | None:
    """A process that trains: one whose parent is not the driver but its fork server."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            parents[int(stat.parent.name)] = int(fields[1])
    return next((pid for pid, parent in parents.items() if pid != session and parent not in (session, 0, 1) and
                 parents.get(parent) == session), None)  # fmt: skip


def test_a_full_disk_ends_the_run_in_words_and_loses_nothing(whole: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    folder = tmp_path / "run"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    run = start(*TINY, "--out", str(folder), preexec_fn=limited)
    _, err = run.communicate(timeout=900)
    assert run.returncode in (1, 2), err
    assert "Traceback" not in err
    assert "cannot write" in err
    end(start(*TINY, "--out", str(folder)), 0)
    assert front_of(folder) == front_of(whole)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    err = end(start(*TINY, "--out", str(tmp_path / "run"), "--store", str(tmp_path / "store")), 2)
    assert "Permission denied" in err


def test_two_runs_on_one_store(whole: Path, tmp_path: Path) -> None:
    asked = [*TINY, "--store", str(tmp_path / "store")]
    runs = [start(*asked, "--out", str(tmp_path / name)) for name in "ab"]
    for run in runs:
        end(run, 0)
    assert front_of(tmp_path / "a") == front_of(tmp_path / "b") == front_of(whole)


CLOCK = """
import random, runpy, sys, time
real, chance = time.time, random.Random(5)
time.time = lambda: real() + chance.uniform(-1e9, 1e9)
time.time_ns = lambda: int(time.time() * 1e9)
sys.argv = ["soniq-dse", *sys.argv[1:]]
runpy.run_module("soniq_dse", run_name="__main__")
"""


def test_a_clock_that_jumps_changes_nothing(whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLOCK, *TINY, "--executor", "here", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert front_of(tmp_path / "run") == front_of(whole)


def test_damaged_records_are_trained_again(whole: Path, tmp_path: Path) -> None:
    """Random bytes of random files of a store are changed."""
    import shutil

    folder, chance = tmp_path / "run", random.Random(3)
    shutil.copytree(whole, folder)
    for path in chance.sample(sorted(p for p in (folder / "store").rglob("*") if p.is_file() and p.stat().st_size), 6):
        content = bytearray(path.read_bytes())
        for _ in range(3):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    end(start(*TINY, "--out", str(folder)), 0)
    assert front_of(folder) == front_of(whole)
