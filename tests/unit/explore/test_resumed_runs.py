"""Runs that were stopped, damaged or begun twice go on to the same front."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from explore_command import NAMES, PALETTES, designs_in, explore, front_of, nothing_is_left, start, wait_for_design


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
    # A shell says 130 of both: Python ends by the signal itself where it broke into code that a C extension runs.
    assert planning.returncode in (130, -signal.SIGINT), err
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


def test_same_run_twice_at_once_is_refused(copied: Path) -> None:
    import fcntl

    with open(copied / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _, err = explore(*PALETTES, "--out", str(copied), code=2)
    assert "another process is at this run" in err
