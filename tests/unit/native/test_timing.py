"""Medians, spreads and when a timing settles, on made-up samples; no test here depends on the clock."""

from __future__ import annotations

import pytest

from soniq_dse.native import timing
from soniq_dse.native.timing import Timing, cycles_per_second, settle, time_call


def test_median_and_absolute_deviation() -> None:
    found = Timing.of([1.0, 2.0, 4.0, 8.0, 100.0])  # median 4; deviations 3 2 0 4 96, median 3
    assert (found.median_s, found.mad_s, found.samples, found.settled) == (4.0, 3.0, 5, False)
    assert Timing.of([1.0, 1.01, 1.02, 0.99, 5.0]).settled
    assert not Timing.of([1.0, 1.0, 1.0, 1.0]).settled  # four samples prove nothing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(timing, "thread_seconds", lambda: now[0])
    return now


def test_quiet_samples_settle_at_once(clock: list[float]) -> None:
    found = settle(lambda: 2.0, min_samples=9)
    assert (found.median_s, found.samples, found.settled) == (2.0, 9, True)


def test_noise_is_not_hidden(clock: list[float]) -> None:
    values = iter(range(1, 1000))

    def sample() -> float:
        clock[0] += 0.1
        return float(next(values) % 7 + 1)

    found = settle(sample, max_s=5.0)
    assert not found.settled
    assert found.samples >= 50


def test_calls_are_grouped_into_samples(clock: list[float]) -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        clock[0] += 1e-4

    found = time_call(call, sample_s=2e-3, min_samples=9)
    assert found.median_s == pytest.approx(1e-4)
    assert calls == 2 + 9 * 20


def test_clock_is_a_plausible_number() -> None:
    assert 1e8 < cycles_per_second() < 1e11


def test_disturbed_samples_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed = iter([False, True, False] * 20)
    slow_readings = 0

    def disturbance() -> float:
        nonlocal slow_readings
        slow_readings -= 1
        return 1.8 if slow_readings >= 0 else 1.0

    def seconds_of(calls: int) -> float:
        nonlocal slow_readings
        now = next(disturbed)
        slow_readings = 2 if now else 1  # the first one behind a run is slow on an idle core too
        return calls * (2e-6 if now else 1e-6)

    monkeypatch.setattr(timing, "_disturbance", disturbance)
    monkeypatch.setattr(timing, "cycles_per_second", lambda n_adds: 1e9)
    found = timing.time_cycles(seconds_of, best_of=1, samples=5, max_s=5.0, one_thread=False)
    assert (found.median_cycles, found.mad_cycles) == (pytest.approx(1000), pytest.approx(0))
    assert (found.samples, found.settled, found.clock_hz) == (5, True, 1e9)


def test_without_an_undisturbed_sample_nothing_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(1.5 + 0.1 * (i % 7) for i in range(10_000))
    monkeypatch.setattr(timing, "_disturbance", lambda: next(readings))
    monkeypatch.setattr(timing, "cycles_per_second", lambda n_adds: 1e9)
    found = timing.time_cycles(lambda calls: calls * 1e-6, best_of=1, samples=4, max_s=0.0, one_thread=False)
    assert not found.settled
    assert found.samples >= 1
