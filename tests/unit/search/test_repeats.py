"""Which designs are trained with further seeds: the front, and what is too near to it to be told apart."""

from __future__ import annotations

import pytest

from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.palette import Palette
from soniq_dse.search import Result, Space, contenders, pooled_deviation
from soniq_dse.search.random import Random

SCHEDULE = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)
# Metric of each seed, and latency. w4a4 leads; w2a4 is as slow as it and half a point behind, w2a2 far behind.
FOUND = {"w4a4": ([90.0, 91.0, 90.0], 5.0), "w2a4": ([89.5, 90.5, 89.0], 5.0), "w2a2": ([60.0, 61.0, 60.0], 5.0)}


def candidate(name: str, seed: int) -> Candidate:
    return Candidate(model="m", data="d", data_sha256="", palette=Palette.parse(name), schedule=SCHEDULE, seed=seed)


def test_the_deviation_is_pooled_over_designs() -> None:
    """Variances 0.5 of two values and 1 of three: (1 * 0.5 + 2 * 1) / (1 + 2)."""
    assert pooled_deviation([[1.0, 2.0], [5.0], [2.0, 3.0, 4.0]]) == pytest.approx(((0.5 + 2.0) / 3) ** 0.5)
    assert pooled_deviation([[1.0], [2.0]]) == 0.0


def test_what_lies_within_the_spread_is_in_contention() -> None:
    """One training of w4a4 (+-1.41 / sqrt 2) and two of w2a4: their bars meet; w2a2's do not."""
    groups = {
        candidate("w4a4", 0): [Result(candidate("w4a4", s), v, 5.0) for s, v in enumerate((90.0, 92.0))],
        candidate("w2a4", 0): [Result(candidate("w2a4", 0), 90.0, 5.0)],
        candidate("w2a2", 0): [Result(candidate("w2a2", 0), 80.0, 5.0)],
    }
    assert contenders(groups, "max") == {candidate("w4a4", 0), candidate("w2a4", 0)}
    assert contenders(groups, "min") == {candidate("w2a2", 0)}
    exact = {design: found[:1] for design, found in groups.items()}
    assert contenders(exact, "max") == {candidate("w4a4", 0), candidate("w2a4", 0)}  # 90 both: a tie


def test_near_designs_repeat_and_far_ones_do_not() -> None:
    seeds = range(3)
    strategy = Random(Space(tuple(candidate(name, seed) for seed in seeds for name in FOUND)))
    asked: dict[str, int] = dict.fromkeys(FOUND, 0)
    while batch := strategy.ask():
        for one in batch:
            asked[one.palette.name] += 1
            values, latency = FOUND[one.palette.name]
            strategy.tell(Result(one, values[one.seed], latency))
    assert asked == {"w4a4": 3, "w2a4": 3, "w2a2": 1}
