"""Time code on a noisy machine: CPU time of the thread, median and spread, and an honest word on whether it settled."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from soniq_dse.native.compiler import build_library

SPREAD_LIMIT = 0.05
"""A timing has settled when its median absolute deviation is below this part of its median."""


@dataclass(frozen=True)
class Timing:
    """``median_s`` and ``mad_s`` (median absolute deviation) in seconds per call over ``samples`` samples."""

    median_s: float
    mad_s: float
    samples: int
    settled: bool

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """The timing that ``seconds`` per call amount to. Settled needs at least 5 samples."""
        median = statistics.median(seconds)
        mad = statistics.median(abs(value - median) for value in seconds)
        return cls(median, mad, len(seconds), len(seconds) >= 5 and mad <= SPREAD_LIMIT * median)


_CLOCK_ADDS = 1 << 17
"""Length of a quick reading of the clock: 40 microseconds."""


_PAUSE_S = 2e-3
"""Between two looks for a core that nothing disturbs."""


def thread_seconds() -> float:
    """CPU time of the calling thread: other processes that take the core do not count."""
    return time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID) * 1e-9


def time_call(
    call: Callable[[], object],
    *,
    sample_s: float = 2e-3,
    min_samples: int = 9,
    max_s: float = 1.0,
    clock: Callable[[], float] | None = None,
) -> Timing:
    """Seconds per ``call()``: samples of at least ``sample_s`` until the spread is small or ``max_s`` is spent.

    The first call warms caches and is not counted. ``clock``: of the wall, where a call uses several threads.
    """
    clock = clock or thread_seconds
    call()
    start = clock()
    call()
    calls = max(1, round(sample_s / max(clock() - start, 1e-7)))

    def sample() -> float:
        begin = clock()
        for _ in range(calls):
            call()
        return (clock() - begin) / calls

    return settle(sample, min_samples=min_samples, max_s=max_s)


QUIET = 1.03
"""Disturbance up to which a sample counts."""


@dataclass(frozen=True)
class CycleTiming:
    """Core cycles of one call: the median of ``samples`` undisturbed ones, and how far these scatter around it."""

    median_cycles: float
    mad_cycles: float
    samples: int
    settled: bool
    clock_hz: float


def time_cycles(
    seconds_of: Callable[[int], float],
    *,
    sample_s: float = 3e-4,
    best_of: int = 3,
    samples: int = 5,
    max_s: float = 1.0,
    one_thread: bool = True,
) -> CycleTiming:
    """Cycles of one call, each sample by a clock read beside it, on whichever core nothing else disturbs.

    Another hardware thread of the core (another program's, another machine's on the same host) takes up to half of it
    without showing in any clock. Independent additions, tried before and after each sample, tell: a disturbed core is
    left for another one, and a disturbed sample left out. A sample is the best of a few short runs.

    Args:
        seconds_of: CPU seconds of the thread for so many calls on end.
        sample_s: length of a run.
        samples: undisturbed ones to take, as long as ``max_s`` (of the wall's clock) lasts. Without any, the least
            disturbed count, and the timing has not settled.
        one_thread: whether the call is of this thread alone, which then may change cores.
    """
    seconds_of(1)
    calls = max(1, round(sample_s / max(seconds_of(1), 1e-8)))
    calls = max(1, round(sample_s * calls / max(seconds_of(calls), 1e-8)))
    taken: list[tuple[float, float, float]] = []
    end = time.monotonic() + max_s
    with _any_core(one_thread) as seek_quiet:
        while sum(disturbance <= QUIET for disturbance, _, _ in taken) < samples:
            if len(taken) >= samples and time.monotonic() > end:
                break
            before = seek_quiet(end)
            seconds = min(seconds_of(calls) for _ in range(best_of)) / calls
            # The first reading behind a run of milliseconds is up to a fifth too long on an idle core (Zen 4 guest).
            disturbance = max(before, min(_disturbance(), _disturbance()))
            taken.append((disturbance, seconds, cycles_per_second(_CLOCK_ADDS)))
    readings = [disturbance for disturbance, _, _ in taken]
    limit = QUIET if min(readings) <= QUIET else statistics.quantiles(readings, n=4)[0]
    used = [entry for entry in taken if entry[0] <= limit]
    timing = Timing.of([seconds * clock for _, seconds, clock in used])
    clock_hz = statistics.median(clock for _, _, clock in used)
    return CycleTiming(timing.median_s, timing.mad_s, len(used), limit <= QUIET and timing.settled, clock_hz)


@contextlib.contextmanager
def _any_core(may_move: bool) -> Iterator[Callable[[float], float]]:
    """A search for a core that nothing disturbs, until a time of the wall's clock; it gives the last disturbance."""
    allowed = os.sched_getaffinity(0) if may_move and hasattr(os, "sched_getaffinity") else set[int]()

    def seek_quiet(end: float) -> float:
        disturbance = _disturbance()
        while disturbance > QUIET and time.monotonic() < end:
            for core in allowed:
                os.sched_setaffinity(0, {core})
                disturbance = _disturbance()
                if disturbance <= QUIET:
                    return disturbance
            time.sleep(_PAUSE_S)
            disturbance = _disturbance()
        return disturbance

    try:
        yield seek_quiet
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)


def settle(sample: Callable[[], float], *, min_samples: int = 9, max_s: float = 1.0) -> Timing:
    """Take samples (seconds) until they settle; ``settled`` is false where ``max_s`` of CPU time ran out."""
    seconds: list[float] = []
    end = thread_seconds() + max_s
    while True:
        seconds.append(sample())
        timing = Timing.of(seconds)
        enough = len(seconds) >= min_samples
        if enough and (timing.settled or thread_seconds() > end):
            return timing


def cycles_per_second(n_adds: int = 1 << 20) -> float:
    """Core clock now, in cycles per second: a chain of dependent additions takes one cycle each.

    The best of a few short runs, since anything that disturbs one makes it slower.

    Raises:
        MissingCapabilityError: there is no compiler.
    """
    chain = _dependent_adds()

    def best_s(n: int) -> float:
        taken = []
        for _ in range(7):
            start = thread_seconds()
            chain(n)
            taken.append(thread_seconds() - start)
        return min(taken)

    return n_adds / (best_s(n_adds) - best_s(0))  # less what the call itself takes


def _disturbance() -> float:
    """How long three chains of additions take now, as a multiple of one by itself: 1 on a core of one's own."""
    return _seconds_of_adds("soniq_independent_adds") / _usual_seconds()


@functools.lru_cache(maxsize=1)
def _usual_seconds() -> float:
    """Of one chain, which is hardly slower on a shared core: the lower quartile of many readings, once in a process."""
    return statistics.quantiles((_seconds_of_adds("soniq_dependent_adds") for _ in range(200)), n=4)[0]


def _seconds_of_adds(name: str) -> float:
    add = _additions(name)
    start = thread_seconds()
    add(_CLOCK_ADDS)
    return thread_seconds() - start


def _dependent_adds() -> Callable[[int], int]:
    return _additions("soniq_dependent_adds")


@functools.lru_cache(maxsize=2)
def _additions(name: str) -> Callable[[int], int]:
    library = ctypes.CDLL(str(build_library([Path(__file__).with_name("dependent_adds.cpp")])))
    function = getattr(library, name)
    function.argtypes, function.restype = [ctypes.c_int64], ctypes.c_int64
    return lambda n: int(function(n))
