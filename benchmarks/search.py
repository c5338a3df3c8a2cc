"""Search strategies on a space that was trained to the end: what each finds for the epochs it spends.

Replays ``reports/benchmarks/search/rows/digits.json`` (made by ``python -m benchmarks._search_table``): a strategy
asks, the table answers with what the training gave. Every strategy runs on every training seed, those that draw with
several seeds of their own; epochs are those of phase 1 and phase 2, FP32 warm starts, the same for all, apart.
"""

from __future__ import annotations

import itertools
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
MEANS = "control: means of the other seeds"
OTHERS = "control: all designs of another seed"
AGAIN = f"by other seeds at {SHARE:.0%}"
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
    """Epochs spent when each whole training was there, and its point; ``designs`` in the same order."""

    steps: list[tuple[int, Point]]
    designs: tuple[Candidate, ...] = ()

    def points(self, epochs: float) -> list[Point]:
        """What was there after ``epochs``."""
        return [point for spent, point in self.steps if spent <= epochs]


def replay(name: str, table: Table, *, draw: int, budget: int) -> Trace:
    """Ask strategy ``name`` until ``budget`` epochs are spent, one training after the other."""
    strategy: Base = registry.load("search", name)(replace(table.space, budget_epochs=budget, seed=draw))
    spent, steps, designs = 0, [], list[Candidate]()
    whole = set(table.space.candidates)
    while batch := strategy.ask():
        for candidate in batch:
            spent += epochs_of(candidate)
            strategy.tell(table.results[candidate])
            if candidate in whole:
                steps.append((spent, _point(table.results[candidate])))
                designs.append(candidate)
    return Trace(steps, tuple(designs))


@dataclass(frozen=True)
class Again:
    """A table's designs, by what the other training seeds make of them: ``points`` are means over those."""

    table: Table
    points: dict[Candidate, Point]

    def worth(self, designs: Sequence[Candidate]) -> float:
        """Hypervolume of the front that ``table`` shows among ``designs``, by ``points``."""
        shown = [_point(self.table.results[design]) for design in designs]
        front = [self.points[designs[i]] for i in pareto.front(shown, DIRECTIONS)]
        known = list(self.points.values())
        return pareto.hypervolume(front, (min(m for m, _ in known), max(us for _, us in known)), DIRECTIONS)

    def share(self, trace: Trace, epochs: float) -> float:
        """What a search's front is worth after ``epochs``, over what the exhaustive search's is."""
        found = [design for (spent, _), design in zip(trace.steps, trace.designs, strict=True) if spent <= epochs]
        return self.worth(found) / self.worth(self.table.space.candidates)


def again(table: Table, found: Sequence[Table]) -> Again:
    """``table`` by the others of ``found``."""
    values: dict[Candidate, list[Point]] = {}
    for other in found:
        if other is not table:
            for candidate, point in zip(other.space.candidates, other.points, strict=True):
                values.setdefault(_seedless(candidate), []).append(point)
    means = {
        candidate: tuple(statistics.fmean(point[i] for point in values[_seedless(candidate)]) for i in (0, 1))
        for candidate in table.space.candidates
    }
    return Again(table, {candidate: (metric, us) for candidate, (metric, us) in means.items()})


def known_means(table: Table, found: Sequence[Table]) -> Trace:
    """What one would train who knew the mean of every design over the other training seeds, one after the other.

    Each adds most hypervolume of means to those before. Only the luck of ``table``'s own trainings is unknown.
    """
    means = again(table, found).points
    reference = min(metric for metric, _ in means.values()), max(us for _, us in means.values())
    chosen: list[Candidate] = []

    def worth(candidate: Candidate) -> tuple[float, float]:
        points = [means[c] for c in (*chosen, candidate)]
        return pareto.hypervolume(points, reference, DIRECTIONS), means[candidate][0]

    while len(chosen) < len(means):
        chosen.append(max((c for c in means if c not in chosen), key=worth))
    spent = itertools.accumulate(map(epochs_of, chosen))
    return Trace([(at, _point(table.results[c])) for at, c in zip(spent, chosen, strict=True)], tuple(chosen))


def others_front(table: Table, other: Table) -> Trace:
    """The front of all designs of the training seed ``other``, as ``table``'s trainings turned out; at no cost."""
    shown = [table.space.candidates[i] for i in pareto.front(other.points, DIRECTIONS)]
    return Trace([(0, _point(table.results[c])) for c in shown], tuple(shown))


def _controls(found: Sequence[Table]) -> dict[str, list[tuple[Table, Trace]]]:
    return {
        MEANS: [(table, known_means(table, found)) for table in found],
        OTHERS: [(t, others_front(t, other)) for t in found for other in found if other is not t],
    }


def _seedless(candidate: Candidate) -> Candidate:
    return candidate.model_copy(update={"seed": 0})


def _point(result: Result) -> Point:
    assert result.metric_val is not None
    assert result.latency_us is not None
    return result.metric_val, result.latency_us


def area(table: Table, trace: Trace) -> float:
    """Mean hypervolume over the epochs up to ``SHARE``."""
    shares = [SHARE * (step + 1) / STEPS for step in range(STEPS)]
    return statistics.fmean(table.hypervolume(trace.points(share * table.epochs)) for share in shares)


def row_of(name: str, found: Sequence[tuple[Table, Trace]], others: Sequence[Table]) -> Row:
    """A strategy over all its replays; its fronts once more by the ``others``' training seeds."""

    def mean(value: Callable[[Table, list[Point]], float], share: float) -> float:
        return statistics.fmean(value(table, trace.points(share * table.epochs)) for table, trace in found)

    judges = {id(table): again(table, others) for table, _ in found}
    shares = [judges[id(table)].share(trace, SHARE * table.epochs) for table, trace in found]
    ends = [table.hypervolume(trace.points(SHARE * table.epochs)) for table, trace in found]
    return {
        "strategy": name,
        **{f"hypervolume at {share:.0%}": mean(Table.hypervolume, share) for share in (0.05, SHARE, 0.2)},
        f"least at {SHARE:.0%}": min(ends),
        AGAIN: statistics.fmean(shares),
        f"least so at {SHARE:.0%}": min(shares),
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
    replays |= _controls(found)
    rows = [row_of(name, traces, found) for name, traces in replays.items() if traces]
    of_name = {row["strategy"]: row for row in rows}
    lead, error, rival = min((*_lead(replays[rival], replays[DEFAULT]), rival) for rival in RIVALS)
    losses = [
        (_seed(t), loss, lost_to_the_model(_widest(t))) for t in found if (loss := lost_to_the_model(t)) is not None
    ]
    best = of_name[DEFAULT][f"hypervolume at {SHARE:.0%}"]
    goals = [
        Goal("S1", f"hypervolume of {DEFAULT} at {SHARE:.0%} of the epochs, over that of all designs", "", best,
             at_least=0.99),
        Goal("S1r", "the same, both fronts by their mean accuracy over the other training seeds", "",
             of_name[DEFAULT][AGAIN], at_least=0.99),
        Goal("S2", f"area under the curve: {DEFAULT} less the best of {', '.join(RIVALS)}, and less the standard error",
             "", lead - error, at_least=0.0),
        Goal("S3", "measured hypervolume lost by choosing by predicted latency", "",
             max((loss for _, loss, _ in losses), default=None), at_most=0.01),
    ]  # fmt: skip
    lost = "; ".join(
        f"seed {seed} {loss:.1%}, {widest:.1%} of the widest network alone" for seed, loss, widest in losses
    )
    ceiling = of_name[MEANS]
    notes = [
        *_notes(found),
        f"What luck leaves: who knows the mean of every design over the other training seeds, and trains the best of "
        f"them first ({MEANS[9:]}), reaches {ceiling[f'hypervolume at {SHARE:.0%}']:.3f} at {SHARE:.0%}, with an area "
        f"of {ceiling[f'area to {SHARE:.0%}']:.3f}. The front of all designs of another seed, at any price, reaches "
        f"{of_name[OTHERS][f'hypervolume at {SHARE:.0%}']:.3f}. So no search can be expected to meet S1 here: what is "
        "missing above these is the luck of single trainings.",
        f"S2: the nearest rival is {rival}, {lead:+.2g} +- {error:.2g} behind (mean and standard error over training "
        "seeds).",
        f"S3, latencies measured here: {lost}. In the two narrower networks kernels meet 12 or 8 channels of codes, "
        "where storing them takes up to twice the time that the model expects; that puts the widths in another order.",
    ]
    return Measured(goals, rows, notes)


def _replays(name: str, found: Sequence[Table], draws: int) -> Iterator[tuple[Table, Trace]]:
    for table in found:
        if name == "halving" and len(table.results) < 2 * len(table.space.candidates):
            continue  # its short schedules were not trained
        for draw in range(draws):
            share = SHARE if name == "halving" else 0.2  # brackets are cut to the budget
            yield table, replay(name, table, draw=draw, budget=int(share * table.epochs))


def _lead(rival: Sequence[tuple[Table, Trace]], default: Sequence[tuple[Table, Trace]]) -> tuple[float, float]:
    """Mean difference of the areas, paired over training seeds and draws, and its standard error over seeds."""
    of_seed: dict[int, list[float]] = {}
    for mine, other in zip(default, rival, strict=True):
        of_seed.setdefault(id(mine[0]), []).append(area(*mine) - area(*other))
    means = [statistics.fmean(differences) for differences in of_seed.values()]
    error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return statistics.fmean(means), error


def _seed(table: Table) -> int:
    return table.space.candidates[0].seed


def _widest(table: Table) -> Table:
    """The designs of the first model alone."""
    kept = [i for i, c in enumerate(table.space.candidates) if c.model == table.space.candidates[0].model]
    space = table.space
    candidates, priors = (tuple(group[i] for i in kept) for group in (space.candidates, space.priors))
    return replace(table, space=replace(space, candidates=candidates, priors=priors))


def _notes(found: Sequence[Table]) -> list[str]:
    designs, epochs = len(found[0].space.candidates), found[0].epochs
    seeds = ", ".join(str(_seed(table)) for table in found)
    return [
        f"Space: {designs} designs (digits_cnn at three widths, 20 palettes and budgets), {epochs} epochs a training "
        f"seed. Training seeds that are complete: {seeds}; the goals ask for five. {DRAWS} draws of a strategy's own "
        "chance; `halving` only where short schedules were trained.",
        "Hypervolume: validation accuracy and predicted latency (avx512) against the worst of all designs, as part of "
        "that of all designs of its training seed; only whole trainings count. One validation example is 0.19 "
        "points, so that the front of all designs is partly the luckiest of near equals, which no search can foresee "
        "and no user keeps. So S1r takes the designs that a search shows on its front, and those that the exhaustive "
        "one shows, and gives each the mean accuracy of its other training seeds: what is left of them when they are "
        "trained again. It may exceed 1: of fewer designs, fewer are chosen for their luck.",
        "Epochs of FP32 starts are the same for all and not counted. How `combined` begins was chosen on training "
        "seeds 0 and 1 and on simulated trainings around their means; its noise is the spread over seeds 0 to 2. "
        "Scores on seeds 2 and 3 were looked at while variants were compared; seed 4 was trained when nothing was left "
        "to choose. Its latencies are those of a later cost model, and of later kernels.",
    ]


if __name__ == "__main__":
    main("search", TITLE, measure)
