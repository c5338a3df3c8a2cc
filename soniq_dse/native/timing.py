"""Time code on a noisy machine: CPU time of the thread, median and spread, and an honest word on whether it settled."""

from __future__ import annotations

import ctypes
import functools
import statistics
import time
from collections.abc import Callable
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


def thread_seconds() -> float:
    """CPU time of the calling thread: other processes that take the core do not count."""
    return time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID) * 1e-9


def time_call(
    call: Callable[[], object],
    *,
    sample_s: float = 2e-3,
    min_samples: int = 9,
    max_s: float = 1.0,
    clock: Callable[[], float] = thread_seconds,
) -> Timing:
    """Seconds per ``call()``: samples of at least ``sample_s`` until the spread is small or ``max_s`` is spent.

    The first call warms caches and is not counted. ``clock``: of the wall, where a call uses several threads.
    """
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


def cycles_per_second() -> float:
    """Core clock now, in cycles per second: a chain of dependent additions takes one cycle each.

    The best of a few short runs, since anything that disturbs one makes it slower.

    Raises:
        MissingCapabilityError: there is no compiler.
    """
    chain = _dependent_adds()
    n_adds = 1 << 20
    chain(n_adds)
    best = float("inf")
    for _ in range(7):
        start = thread_seconds()
        chain(n_adds)
        best = min(best, thread_seconds() - start)
    return n_adds / best


@functools.lru_cache(maxsize=1)
def _dependent_adds() -> Callable[[int], int]:
    library = ctypes.CDLL(str(build_library([Path(__file__).with_name("dependent_adds.cpp")])))
    function = library.soniq_dependent_adds
    function.argtypes, function.restype = [ctypes.c_int64], ctypes.c_int64
    return lambda n: int(function(n))
