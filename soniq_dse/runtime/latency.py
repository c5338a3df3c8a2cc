"""How long a packed network takes on this CPU."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import MissingCapabilityError
from soniq_dse.hardware.host import detect_host
from soniq_dse.native.timing import Timing, thread_seconds
from soniq_dse.records.cost import Measurement
from soniq_dse.runtime.executor import Executor
from soniq_dse.runtime.pack import PackedNetwork

SAMPLES = 15
"""Samples before a timing may settle; each is the median of the runs that fit into ``SAMPLE_S``."""
SAMPLE_S = 4e-3
MOST_RUNS = 50


@dataclass(frozen=True)
class StepTime:
    """Wall time of one step; ``operation`` is its kind in small letters."""

    node: str
    operation: str
    median_us: float


@dataclass(frozen=True)
class Latency:
    """A measurement with the percentiles of single runs, in microseconds (the 50th is close to its median), and the
    median of every step."""

    measurement: Measurement
    percentiles_us: dict[int, float]
    steps: tuple[StepTime, ...] = ()


def measure(
    packed: PackedNetwork, *, batch: int = 1, threads: int = 1, max_s: float = 1.0, seed: int = 0
) -> Measurement:
    """Latency of one call with ``batch`` samples, repeated on one input (weights and activations warm in cache).

    Times are of the thread's CPU clock, of the wall clock for several threads and per layer. Without a compiler the
    measurement says why it was skipped.

    Raises:
        UserError: ``batch`` or ``threads`` is not possible.
    """
    return latency(packed, batch=batch, threads=threads, max_s=max_s, seed=seed).measurement


def latency(packed: PackedNetwork, *, batch: int = 1, threads: int = 1, max_s: float = 1.0, seed: int = 0) -> Latency:
    """``measure`` with percentiles."""
    try:
        executor = packed.executor(batch, threads=threads)
    except MissingCapabilityError as error:
        return Latency(Measurement(batch=batch, threads=threads, skipped=str(error)), {})
    executor.set_input(executor.random_input(seed))
    timing, runs = _settled(executor, max_s)
    steps = step_times(executor)
    measurement = Measurement(
        batch=batch,
        threads=threads,
        median_us=timing.median_s * 1e6,
        mad_us=timing.mad_s * 1e6,
        samples=timing.samples,
        settled=timing.settled,
        per_layer_us=per_node(steps),
        host=detect_host(),
        compiler=executor.compiler(),
        flags=executor.all_flags(),
    )
    return Latency(measurement, {p: float(np.percentile(runs, p)) * 1e6 for p in (50, 90, 99)}, steps)


def _settled(executor: Executor, max_s: float) -> tuple[Timing, NDArray[np.float64]]:
    """Samples until they settle or ``max_s`` is spent (by the clock of the timings), and the seconds of every run."""
    clock = thread_seconds if executor.plan.threads == 1 else time.monotonic
    per_sample = _runs_per_sample(executor)
    end, samples, runs = clock() + max_s, [], []
    while True:
        runs.append(executor.time_runs(per_sample))
        samples.append(float(np.median(runs[-1])))
        timing = Timing.of(samples)
        spent = clock() > end
        if (len(samples) >= SAMPLES and timing.settled) or spent:
            return timing, np.concatenate(runs)


def _runs_per_sample(executor: Executor) -> int:
    executor.time_runs(1)  # warms caches
    return int(np.clip(SAMPLE_S / executor.time_runs(1)[0], 1, MOST_RUNS))


def step_times(executor: Executor) -> tuple[StepTime, ...]:
    """Every step of a run on the current input, in order."""
    medians = np.median(executor.time_steps(_runs_per_sample(executor)), axis=0) * 1e6
    return tuple(
        StepTime(step.node, step.kind.name.lower(), float(median))
        for step, median in zip(executor.plan.steps, medians, strict=True)
    )


def per_node(steps: Iterable[StepTime]) -> dict[str, float]:
    """Microseconds per node, packing with the layer that it serves."""
    found: dict[str, float] = {}
    for step in steps:
        found[step.node] = found.get(step.node, 0.0) + step.median_us
    return found
