"""Jobs that succeed, raise, hang, crash, are interrupted, and lose their parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soniq_dse.errors import UserError
from soniq_dse.native.processes import Job, Outcome, run_here, run_jobs

Say = Callable[[Any], None]


def talk(word: str, say: Say) -> None:
    print("standard output is for data only")
    say(word)
    say(os.getpid())


def fail(say: Say) -> None:
    raise ZeroDivisionError("three\nlines\nof text")


def refuse(say: Say) -> None:
    raise UserError("expected a, got b")


def hang(say: Say) -> None:
    say(os.getpid())
    time.sleep(600)


def hang_in_c(say: Say) -> None:
    """Never gives the interpreter to another thread."""
    say(os.getpid())
    re.match("(a+)+$", "a" * 64 + "b")


def note_and_hang(path: str, say: Say) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def crash(say: Say) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(say: Say) -> None:
    os._exit(7)


def run(jobs: list[Job], workers: int = 2, timeout_s: float = 30.0) -> tuple[dict[str, Outcome], list[Any]]:
    messages: list[Any] = []
    outcomes = run_jobs(
        jobs, workers=workers, timeout_s=timeout_s, on_message=lambda job, v: messages.append((job.name, v))
    )
    return {outcome.job.name: outcome for outcome in outcomes}, messages


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].startswith(" Z")


def test_outcomes_and_messages(capfd: pytest.CaptureFixture[str]) -> None:
    jobs = [
        Job("talks", talk, ("hello",)),
        Job("fails", fail, ()),
        Job("refuses", refuse, ()),
        Job("crashes", crash, ()),
        Job("leaves", leave, ()),
        Job("talks again", talk, ("bye",)),
    ]
    outcomes, messages = run(jobs)
    assert {name: outcome.error for name, outcome in outcomes.items()} == {
        "talks": None,
        "fails": "ZeroDivisionError: three lines of text",
        "refuses": "expected a, got b",
        "crashes": "the process was killed by SIGKILL (out of memory?)",
        "leaves": "the process ended with code 7",
        "talks again": None,
    }
    words = [(name, value) for name, value in messages if isinstance(value, str)]
    assert sorted(words) == [("talks", "hello"), ("talks again", "bye")]
    assert len({value for _, value in messages if isinstance(value, int)} | {os.getpid()}) == 3
    assert capfd.readouterr().out == ""


def test_hanging_job_is_killed_alone() -> None:
    outcomes, messages = run([Job("hangs", hang, ()), Job("talks", talk, ("hello",))], timeout_s=4.0)
    assert outcomes["hangs"].error == "took longer than 4 s and was stopped"
    assert outcomes["talks"].error is None
    pid = next(value for name, value in messages if name == "hangs")
    assert not is_alive(pid)


def test_leaving_the_iterator_kills_what_runs(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    jobs = [Job("hangs", note_and_hang, (str(note),)), Job("talks", talk, ("x",))]
    outcomes = run_jobs(jobs, workers=2, timeout_s=60.0, on_message=lambda job, value: None)
    assert next(outcomes).job.name == "talks"
    while not note.exists() or not note.read_text():  # the other job starts in its own time
        time.sleep(0.05)
    pid = int(note.read_text())
    assert is_alive(pid)
    outcomes.close()  # type: ignore[attr-defined]
    assert not is_alive(pid)


PARENT = """
import sys
sys.path.insert(0, {folder!r})
from test_processes import Job, {job}, run_jobs
if __name__ == "__main__":
    for _ in run_jobs([Job("a", {job}, ())], workers=1, timeout_s=60, on_message=lambda job, v: print(v, flush=True)):
        pass
"""


@pytest.mark.parametrize(
    ("signal_number", "job"),
    [
        (signal.SIGKILL, "hang"),
        (signal.SIGINT, "hang"),
        pytest.param(signal.SIGKILL, "hang_in_c", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux's")),
    ],
)
def test_children_die_with_the_parent(tmp_path: Path, signal_number: int, job: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=str(Path(__file__).parent), job=job))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal_number)
    _, errors = parent.communicate(timeout=30)
    assert errors.count("Traceback") == (
        1 if signal_number == signal.SIGINT else 0
    )  # the parent's own, none of the child
    for _ in range(100):
        if not is_alive(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child outlived its parent")


def hold(mib: int, say: Callable[[Any], None]) -> None:
    held = bytearray(mib * 2**20)
    say("held")
    time.sleep(60)
    del held


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not say what a process holds")
def test_a_job_that_holds_too_much_is_killed_alone() -> None:
    jobs = [Job("grows", hold, (600,)), Job("talks", talk, ("hello",))]
    found = run_jobs(jobs, workers=2, timeout_s=50, on_message=lambda *_: None, memory_mib=500)
    outcomes = {outcome.job.name: outcome for outcome in found}
    error = outcomes["grows"].error or ""
    assert re.fullmatch(r"held \d+ MiB in memory, more than the 500 MiB allowed, and was stopped", error)
    assert outcomes["talks"].error is None


def test_jobs_of_this_process_fail_alone(capfd: pytest.CaptureFixture[str]) -> None:
    messages: list[tuple[str, Any]] = []
    jobs = [Job("fails", fail, ()), Job("refuses", refuse, ()), Job("talks", talk, ("hello",))]
    found = run_here(jobs, workers=1, timeout_s=1, on_message=lambda job, value: messages.append((job.name, value)))
    assert [outcome.error for outcome in found] == ["ZeroDivisionError: three lines of text", "expected a, got b", None]
    assert ("talks", "hello") in messages
    assert ("talks", os.getpid()) in messages
    assert capfd.readouterr().out == ""
