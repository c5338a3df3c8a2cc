"""Search strategies on a space that was trained to the end: what each finds for the epochs it spends.

Replays ``reports/benchmarks/search/rows/digits.json`` (made by ``python -m benchmarks._search_table``): a strategy
asks, the table answers with what the training gave. Every strategy runs on every training seed, those that draw with
several seeds of their own; epochs are those of phase 1 and phase 2, FP32 warm starts, the same for all, apart.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks._frame import Goal, Row, main
from benchmarks._frame import Result as Measured
from benchmarks._search_table import PATH
from soniq_dse import pareto, registry
from soniq_dse.pareto import Direction
from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.palette import Palette
from soniq_dse.search import Base, Prior, Result, Space, epochs_of

TITLE = "Search strategies"
DEFAULT = "combined"
RIVALS = ("proxy_milp", "nsga2", "tpe", "random")
SHARE = 0.1
"""Of the exhaustive search's epochs: what S1 allows."""
DRAWS = 5
"""Seeds of a strategy's own chance per training seed."""
STEPS = 50
"""At which the area under the curve is taken."""
DIRECTIONS: tuple[Direction, Direction] = ("max", "min")
Point = tuple[float, float]


@dataclass(frozen=True)
class Table:
    """One training seed of the table: the space, and what every candidate became. ``measured_us`` by candidate."""

    space: Space
    results: dict[Candidate, Result]
    measured_us: dict[Candidate, float | None]

    @property
    def points(self) -> list[Point]:
        """Metric and predicted latency of every whole training."""
        return [_point(self.results[candidate]) for candidate in self.space.candidates]

    @property
    def reference(self) -> Point:
        """The worst metric and the worst latency of the whole space."""
        return min(metric for metric, _ in self.points), max(latency for _, latency in self.points)

    @property
    def epochs(self) -> int:
        """Of the exhaustive search."""
        return sum(map(epochs_of, self.space.candidates))

    @property
    def front(self) -> list[Point]:
        """What no other whole training dominates."""
        return [self.points[i] for i in pareto.front(self.points, DIRECTIONS)]

    def igd_plus(self, points: Sequence[Point]) -> float:
        """Mean distance from the front to ``points``, each objective over its range, what is better counted as none
        (Ishibuchi et al., "Modified distance calculation in generational distance and IGD", 2015)."""
        spans = [max(p[i] for p in self.points) - min(p[i] for p in self.points) for i in (0, 1)]

        def worse(found: Point, wanted: Point) -> float:
            return math.hypot(max(0.0, wanted[0] - found[0]) / spans[0], max(0.0, found[1] - wanted[1]) / spans[1])

        return statistics.fmean(min((worse(p, z) for p in points), default=math.sqrt(2)) for z in self.front)

    def recall(self, points: Sequence[Point]) -> float:
        """The part of the front that is among ``points``."""
        return statistics.fmean(z in points for z in self.front)

    def hypervolume(self, points: Sequence[Point]) -> float:
        """As a part of that of the whole space."""
        whole = pareto.hypervolume(self.points, self.reference, DIRECTIONS)
        return pareto.hypervolume(points, self.reference, DIRECTIONS) / whole


def tables(path: Path = PATH) -> list[Table]:
    """A table per training seed that is complete at the whole schedule; what is left out of another is told apart."""
    document = json.loads(path.read_text())
    rows = document["rows"]
    found = [_table(document, [row for row in rows if row["seed"] == seed]) for seed in {row["seed"] for row in rows}]
    most = max(len(table.space.candidates) for table in found)
    return [table for table in found if len(table.space.candidates) == most]


def _table(document: Row, rows: Sequence[Row]) -> Table:
    results, measured, priors = {}, {}, {}
    start = document["schedules"][0][0]
    for row in rows:
        noise, finetune = row["epochs"]
        schedule = Schedule(baseline_epochs=start, noise_epochs=noise, finetune_epochs=finetune)
        candidate = Candidate(
            model=row["model"], data="digits", data_sha256="", palette=Palette.parse(row["palette"]),
            budget_bits=row["budget"], seed=row["seed"], schedule=schedule,
        )  # fmt: skip
        results[candidate] = Result(candidate, row["val"], row["latency_us"])
        if "prior_metric" in row:
            priors[candidate] = Prior(row["prior_latency_us"], row["prior_metric"])
            measured[candidate] = row.get("measured_us")
    return Table(Space(tuple(priors), tuple(priors.values())), results, measured)


@dataclass(frozen=True)
class Trace:
    """Epochs spent when each whole training was there, and its point."""

    steps: list[tuple[int, Point]]

    def points(self, epochs: float) -> list[Point]:
        """What was there after ``epochs``."""
        return [point for spent, point in self.steps if spent <= epochs]


def replay(name: str, table: Table, *, draw: int, budget: int) -> Trace:
    """Ask strategy ``name`` until ``budget`` epochs are spent, one training after the other."""
    strategy: Base = registry.load("search", name)(replace(table.space, budget_epochs=budget, seed=draw))
    spent, steps = 0, []
    whole = set(table.space.candidates)
    while batch := strategy.ask():
        for candidate in batch:
            spent += epochs_of(candidate)
            strategy.tell(table.results[candidate])
            if candidate in whole:
                steps.append((spent, _point(table.results[candidate])))
    return Trace(steps)


def _point(result: Result) -> Point:
    assert result.metric_val is not None
    assert result.latency_us is not None
    return result.metric_val, result.latency_us


def area(table: Table, trace: Trace) -> float:
    """Mean hypervolume over the epochs up to ``SHARE``."""
    shares = [SHARE * (step + 1) / STEPS for step in range(STEPS)]
    return statistics.fmean(table.hypervolume(trace.points(share * table.epochs)) for share in shares)


def row_of(name: str, found: Sequence[tuple[Table, Trace]]) -> Row:
    """A strategy over all its replays."""

    def mean(value: Callable[[Table, list[Point]], float], share: float) -> float:
        return statistics.fmean(value(table, trace.points(share * table.epochs)) for table, trace in found)

    ends = [table.hypervolume(trace.points(SHARE * table.epochs)) for table, trace in found]
    return {
        "strategy": name,
        **{f"hypervolume at {share:.0%}": mean(Table.hypervolume, share) for share in (0.05, SHARE, 0.2)},
        f"least at {SHARE:.0%}": min(ends),
        f"IGD+ at {SHARE:.0%}": mean(Table.igd_plus, SHARE),
        f"front recall at {SHARE:.0%}": mean(Table.recall, SHARE),
        f"area to {SHARE:.0%}": statistics.fmean(area(table, trace) for table, trace in found),
        "replays": len(found),
    }


def lost_to_the_model(table: Table) -> float | None:
    """Part of the measured hypervolume that is lost by choosing the front by predicted latency."""
    candidates = table.space.candidates
    times = [table.measured_us[candidate] for candidate in candidates]
    known = [(point[0], us) for point, us in zip(table.points, times, strict=True) if us is not None]
    if len(known) < len(candidates):
        return None
    reference = min(metric for metric, _ in known), max(us for _, us in known)
    chosen = [known[i] for i in pareto.front(table.points, DIRECTIONS)]
    whole = pareto.hypervolume(known, reference, DIRECTIONS)
    return 1 - pareto.hypervolume(chosen, reference, DIRECTIONS) / whole


def measure(quick: bool) -> Measured:
    """Replay every strategy; ``quick``: one draw each."""
    found = tables()
    replays = {name: list(_replays(name, found, 1 if quick else DRAWS)) for name in (DEFAULT, *RIVALS, "halving")}
    rows = [row_of(name, traces) for name, traces in replays.items() if traces]
    of_name = {row["strategy"]: row for row in rows}
    lead = min(_lead(replays[rival], replays[DEFAULT]) for rival in RIVALS)
    losses = [loss for table in found if (loss := lost_to_the_model(table)) is not None]
    best = of_name[DEFAULT][f"hypervolume at {SHARE:.0%}"]
    goals = [
        Goal("S1", f"hypervolume of {DEFAULT} at {SHARE:.0%} of the epochs, over that of all designs", "", best,
             at_least=0.99),
        Goal("S2", f"area under the curve: {DEFAULT} less the best of {', '.join(RIVALS)}", "", lead, at_least=0.0),
        Goal("S3", "measured hypervolume lost by choosing by predicted latency", "",
             max(losses) if losses else None, at_most=0.01),
    ]  # fmt: skip
    return Measured(goals, rows, _notes(found, len(losses)))


def _replays(name: str, found: Sequence[Table], draws: int) -> Iterator[tuple[Table, Trace]]:
    for table in found:
        if name == "halving" and len(table.results) < 2 * len(table.space.candidates):
            continue  # its short schedules were not trained
        for draw in range(draws):
            share = SHARE if name == "halving" else 0.2  # brackets are cut to the budget
            yield table, replay(name, table, draw=draw, budget=int(share * table.epochs))


def _lead(rival: Sequence[tuple[Table, Trace]], default: Sequence[tuple[Table, Trace]]) -> float:
    """Mean difference of the areas, paired over training seeds and draws."""
    pairs = zip(default, rival, strict=True)
    return statistics.fmean(area(*mine) - area(*other) for mine, other in pairs)


def _notes(found: Sequence[Table], n_timed: int) -> list[str]:
    designs, epochs = len(found[0].space.candidates), found[0].epochs
    seeds = ", ".join(str(table.space.candidates[0].seed) for table in found)
    return [
        f"Space: {designs} designs (digits_cnn at three widths, 20 palettes and budgets), {epochs} epochs a training "
        f"seed. Training seeds that are complete: {seeds}; the goals ask for five. {DRAWS} draws of a strategy's own "
        "chance; `halving` only where short schedules were trained.",
        "Hypervolume: validation accuracy and predicted latency (avx512) against the worst of all designs, as part of "
        "that of all designs of its training seed; only whole trainings count. One validation example is 0.19 "
        "points, so that the front of all designs is partly the luckiest of near equals, which no search can foresee. "
        "Epochs of FP32 starts are the same for all and not counted. The surrogate's one constant was set on training "
        "seed 0.",
        f"S3 from measured latencies of {n_timed} training seed(s).",
    ]


if __name__ == "__main__":
    main("search", TITLE, measure)
