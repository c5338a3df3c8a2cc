"""Jobs in processes of their own: each may fail, hang or run out of memory alone, and all die with the parent."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

MEMORY_LOOK_S = 0.1
"""Between two looks at what jobs hold in memory, where that is bounded."""


@dataclass(frozen=True)
class Job:
    """``target(*args, say)`` in a process of its own; ``target`` is a module-level function, ``args`` are plain values.

    ``say(value)`` hands a plain value to the parent while the job runs. Standard output goes to standard error.
    """

    name: str
    target: Callable[..., None]
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``error`` is None where it returned, else the reason in one line."""

    job: Job
    error: str | None
    seconds: float


@dataclass(frozen=True)
class Message:
    """What a running job said."""

    job: Job
    value: Any


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    messages: Connection
    lifeline: Connection
    started: float
    error: str | None = None

    def stop(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.messages.close()
        self.lifeline.close()


def run_jobs(
    jobs: Sequence[Job],
    *,
    workers: int,
    timeout_s: float,
    on_message: Callable[[Job, Any], None],
    preload: Sequence[str] = (),
    memory_mib: int | None = None,
) -> Iterator[Outcome]:
    """Run ``jobs`` in order, ``workers`` at once, and yield each outcome when it is there: see ``job_events``."""
    limits: dict[str, Any] = {"workers": workers, "timeout_s": timeout_s, "preload": preload, "memory_mib": memory_mib}
    with contextlib.closing(job_events(jobs, **limits)) as events:
        for event in events:
            if isinstance(event, Outcome):
                yield event
            else:
                on_message(event.job, event.value)


def job_events(
    jobs: Sequence[Job],
    *,
    workers: int,
    timeout_s: float,
    preload: Sequence[str] = (),
    memory_mib: int | None = None,
) -> Generator[Message | Outcome, None, None]:
    """Run ``jobs`` in order, ``workers`` at once, and yield what they say and how each ended.

    Processes are forked from a clean server that has imported the modules ``preload`` and done nothing else, so that a
    job does not wait for them; what the first call in this process names holds for all.

    A job that takes longer than ``timeout_s``, or holds more than ``memory_mib`` in memory, is killed. Closing the
    iterator, or an exception in its consumer, kills all that run. Ctrl-C reaches the parent alone.
    """
    multiprocessing.set_forkserver_preload(list(preload))
    waiting = list(reversed(jobs))
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(_start(waiting.pop()))
            wait([one.messages for one in running], timeout=1.0 if memory_mib is None else MEMORY_LOOK_S)
            for one in list(running):
                said: list[Message] = []
                is_over = _has_ended(one, timeout_s, said) or _is_too_large(one, memory_mib)
                yield from said
                if is_over:
                    running.remove(one)
                    yield _outcome(one)
    finally:
        for one in running:
            one.stop()


def run_here(
    jobs: Sequence[Job],
    *,
    workers: int,
    timeout_s: float,
    on_message: Callable[[Job, Any], None],
    preload: Sequence[str] = (),
    memory_mib: int | None = None,
) -> Iterator[Outcome]:
    """``run_jobs`` in this process, one after the other: for a debugger, and where processes cannot be started.

    Nothing bounds a job here: ``workers``, ``timeout_s`` and ``memory_mib`` are of no effect.
    """
    for job in jobs:
        started, error = time.monotonic(), None
        try:
            with contextlib.redirect_stdout(sys.stderr):
                job.target(*job.args, functools.partial(on_message, job))
        except Exception as raised:  # whatever a job raises is its outcome
            if os.environ.get("SONIQ_DSE_DEBUG"):
                traceback.print_exc()
            error = _one_line(raised)
        yield Outcome(job, error, time.monotonic() - started)


EXECUTORS = {"process": run_jobs, "here": run_here}
"""How jobs run, by name."""


def _start(job: Job) -> _Running:
    try:
        return _started(job)
    except (EOFError, ConnectionError):  # the fork server was killed; asked again, a new one is started
        return _started(job)


def _started(job: Job) -> _Running:
    context = multiprocessing.get_context("forkserver")
    messages, sender = context.Pipe(duplex=False)
    lifeline_end, lifeline = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job.target, job.args, sender, lifeline_end), name=job.name)
    # A child inherits the blocked signal until it ignores it, so that Ctrl-C in the terminal does not reach it.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    sender.close()
    lifeline_end.close()
    return _Running(job, process, messages, lifeline, time.monotonic())


def _has_ended(one: _Running, timeout_s: float, said: list[Message]) -> bool:
    try:
        while one.messages.poll():
            kind, value = one.messages.recv()
            if kind == "error":
                one.error = value
            else:
                said.append(Message(one.job, value))
    except EOFError:
        return True
    if time.monotonic() - one.started > timeout_s:
        one.error = f"took longer than {timeout_s:g} s and was stopped"
        return True
    return False


def _is_too_large(one: _Running, memory_mib: int | None) -> bool:
    if memory_mib is None or one.process.pid is None:
        return False
    try:
        with open(f"/proc/{one.process.pid}/statm", "rb") as file:
            held_mib = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):  # it has ended, or this system does not say
        return False
    if held_mib > memory_mib:
        one.error = f"held {held_mib:.0f} MiB in memory, more than the {memory_mib} MiB allowed, and was stopped"
    return held_mib > memory_mib


def _outcome(one: _Running) -> Outcome:
    if one.error is None:
        one.process.join(10.0)  # it has nothing left to do
        code = one.process.exitcode or 0
        if code < 0:
            name = signal.Signals(-code).name
            one.error = f"the process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        elif code > 0:
            one.error = f"the process ended with code {code}"
    one.stop()
    return Outcome(one.job, one.error, time.monotonic() - one.started)


def _child(target: Callable[..., None], args: tuple[Any, ...], messages: Connection, lifeline: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # multiprocessing unblocks the signal when it starts its own helpers
    _kill_at_close(lifeline)
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    os.dup2(2, 1)
    try:
        target(*args, lambda value: messages.send(("message", value)))
    except Exception as error:  # whatever a job raises is its outcome
        if os.environ.get("SONIQ_DSE_DEBUG"):
            traceback.print_exc()
        messages.send(("error", _one_line(error)))
    finally:
        sys.stderr.flush()
        messages.close()


def _kill_at_close(lifeline: Connection) -> None:
    """Let the kernel end this process when the pipe closes: a thread cannot while C code holds the interpreter."""
    if sys.platform == "linux":
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)


def _die_with_parent(lifeline: Connection) -> None:
    """The pipe closes when the parent ends, also by SIGKILL; it may have been closed before the kernel watched it."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os._exit(1)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (
        text if type(error).__name__ in ("UserError", "MissingCapabilityError") else f"{type(error).__name__}: {text}"
    )
