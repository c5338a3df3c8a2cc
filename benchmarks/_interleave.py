"""Time calls in turns, so that whatever else the machine does meets all of them; libraries under a limited ISA too.

``python -m benchmarks._interleave`` is the process that ``LimitedPeers`` starts: oneDNN reads ONEDNN_MAX_CPU_ISA once.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks._peers import PEERS, Call, Shape, prepare
from soniq_dse.native.timing import thread_seconds

Sample = Callable[[], float]
"""Takes one sample: CPU seconds of the thread per call."""


def sampler(call: Call, sample_s: float) -> Sample:
    """Samples of about ``sample_s``, each after one call that brings the operands back into cache."""
    call()
    start = thread_seconds()
    call()
    calls = max(1, round(sample_s / max(thread_seconds() - start, 1e-7)))

    def sample() -> float:
        call()
        begin = thread_seconds()
        for _ in range(calls):
            call()
        return (thread_seconds() - begin) / calls

    return sample


def interleave(samples: Mapping[str, Sample], rounds: int) -> dict[str, float]:
    """Median seconds per call of each, over ``rounds`` in each of which every one has its turn."""
    taken: dict[str, list[float]] = {name: [] for name in samples}
    for _ in range(rounds):
        for name, sample in samples.items():
            taken[name].append(sample())
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def least_wall_seconds(calls: Sequence[Call], seconds: float = 2.0) -> list[float]:
    """The least wall seconds of each call over turns of ``seconds``: whatever else runs only ever adds to them."""
    for call in calls:
        call()
    least, end = [float("inf")] * len(calls), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call()
            least[index] = min(least[index], time.perf_counter() - start)
    return least


def idle_share(seconds: float = 0.2) -> float:
    """The share of all cores' time that is idle now, by the system's count; 0 where it keeps none."""
    before = _ticks()
    time.sleep(seconds)
    idle, total = (late - early for early, late in zip(before, _ticks(), strict=True))
    return idle / total if total else 0.0


def _ticks() -> tuple[int, int]:
    """(idle, all) ticks of all cores since the system started."""
    try:
        with open("/proc/stat") as file:
            counts = [int(count) for count in file.readline().split()[1:9]]
    except OSError:
        return 0, 0
    return counts[3] + counts[4], sum(counts)


class LimitedPeers:
    """Libraries built on oneDNN in a process of their own, under ``isa`` (a value of ONEDNN_MAX_CPU_ISA)."""

    def __init__(self, isa: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._interleave"],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def samplers(self, shape: Shape, sample_s: float) -> dict[str, Sample]:
        """One per library that takes the shape; those of an earlier shape are gone."""
        names = self._ask({"shape": asdict(shape), "sample_s": sample_s})
        return {name: lambda name=name: self._ask({"sample": name}) for name in names}

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, question: dict[str, object]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _answer() -> None:
    samples: dict[str, Sample] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if "shape" in question:
            calls = prepare(Shape(**question["shape"]), [peer for peer in PEERS if peer.obeys_isa_limit])
            samples = {name: sampler(call, question["sample_s"]) for name, call in calls.items()}
            answer: object = list(samples)
        else:
            answer = samples[question["sample"]]()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _answer()
