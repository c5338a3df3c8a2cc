"""The search benchmark's scores, on a space of four designs worked by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks.search import Table, Trace, area, lost_to_the_model, replay, tables
from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.palette import Palette
from soniq_dse.search import Prior, Result, Space

# metric and latency; the third is dominated by the second. Reference: (0, 10). Whole hypervolume: 8*2 + 6*3 + 2*4 = 42
# (metric 2 from 2 us, 5 from 4 us, 9 from 8 us: 2*(10-2) + 3*(10-4) + 4*(10-8)).
POINTS = {"w1a1": (2.0, 2.0), "w2a2": (5.0, 4.0), "w2a4": (4.0, 6.0), "w4a4": (9.0, 8.0), "w8a8": (0.0, 10.0)}
MEASURED = {"w1a1": 2.0, "w2a2": 7.0, "w2a4": 3.0, "w4a4": 8.0, "w8a8": 10.0}
SCHEDULE = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=3)


@pytest.fixture
def table() -> Table:
    candidates = [
        Candidate(model="m", data="d", data_sha256="", palette=Palette.parse(name), schedule=SCHEDULE)
        for name in POINTS
    ]
    results = {c: Result(c, *POINTS[c.palette.name]) for c in candidates}
    priors = tuple(Prior(POINTS[c.palette.name][1], POINTS[c.palette.name][0]) for c in candidates)
    return Table(Space(tuple(candidates), priors), results, {c: MEASURED[c.palette.name] for c in candidates})


def test_hypervolume_recall_and_distance(table: Table) -> None:
    assert table.reference == (0.0, 10.0)
    assert table.epochs == 20
    assert table.hypervolume(table.points) == 1.0
    assert table.hypervolume([POINTS["w2a2"]]) == pytest.approx(5 * 6 / 42)
    assert table.recall([POINTS["w1a1"], POINTS["w2a4"]]) == pytest.approx(1 / 3)
    assert table.igd_plus(table.front) == 0.0
    # From w2a2 alone: to w1a1 2 us too slow of 8, to w4a4 4 too inaccurate of 9.
    assert table.igd_plus([POINTS["w2a2"]]) == pytest.approx((2 / 8 + 0 + 4 / 9) / 3)
    assert table.igd_plus([]) == math.sqrt(2)


def test_the_area_counts_what_was_there_in_time(table: Table) -> None:
    """A tenth of 20 epochs is 2; a training that ends after 1 of them counts for half of the window, from there on."""
    assert area(table, Trace([(1, POINTS["w2a2"])])) == pytest.approx(26 / 50 * 30 / 42)
    assert area(table, Trace([(3, POINTS["w2a2"])])) == 0.0


def test_what_is_lost_to_the_model(table: Table) -> None:
    """By prediction w1a1, w2a2 and w4a4 are chosen; measured, w2a4 would have been better than w2a2.

    Measured, against (0, 10): all: 2*8 + 2*7 + 1*3 + 4*2 = 41; the chosen: 2*8 + 3*3 + 4*2 = 33.
    """
    assert lost_to_the_model(table) == pytest.approx(1 - 33 / 41)


def test_a_replay_spends_what_it_trains(table: Table) -> None:
    trace = replay("exhaustive", table, draw=0, budget=12)
    assert trace.steps == [(4, POINTS["w1a1"]), (8, POINTS["w2a2"]), (12, POINTS["w2a4"])]


def test_the_kept_table_is_whole() -> None:
    for table in tables():
        assert table.hypervolume(table.points) == 1.0
        assert all(prior.metric is not None for prior in table.space.priors)
