"""Evaluations, one per design and seed -> the points of the front, one per design, and their details."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from soniq_dse import pareto
from soniq_dse.records.cost import Agreement, Estimate, Measurement
from soniq_dse.records.design import Assignment, EpochRecord
from soniq_dse.records.front import DesignDetail, DesignPoint, Objective, SearchStep, TaskInfo, TextSample

LATENCY = Objective(field="latency_predicted_us", label="latency, predicted", unit="us", direction="min")


@dataclass(frozen=True)
class Evaluation:
    """One design of one seed, as far as it came. ``name`` is without the seed; ``command`` reproduces the design."""

    role: Literal["design", "fp32", "int8"]
    name: str
    palette: str
    command: str
    bits_per_weight: float
    metric_val: float
    metric_test: float
    size_bytes: int
    batch: int
    threads: int
    estimate: Estimate | None
    measurement: Measurement | None
    agreement: Agreement
    width: float = 1.0
    assignment: Assignment | None = None
    metric_fake_quant_val: float | None = None
    epochs: tuple[EpochRecord, ...] = ()
    seconds: float = 0.0
    budget: float | None = None
    budget_unit: Literal["bits", "us", "uj"] | None = None
    budget_used: float | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    samples: tuple[TextSample, ...] = ()


def objectives_of(task: TaskInfo) -> tuple[Objective, Objective]:
    """What the front trades: the metric on the validation split (test is shown but chooses nothing) and the latency."""
    label = f"{task.metric}, validation"
    return Objective(field="metric_val", label=label, unit=task.metric_unit, direction=task.direction), LATENCY


def point_id(name: str) -> str:
    """A short stable name for links and selections: 12 hex digits of the hash of ``name``."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def points_of(evaluations: Sequence[Evaluation], task: TaskInfo) -> tuple[DesignPoint, ...]:
    """One point per name, in order of first appearance, with dominance over the designs.

    Metrics, bits, sizes and latencies are means over seeds; the latency interval spans those of all seeds. Where seeds
    repeat, a design whose order to another lies within their standard errors is not dominated by it; so with latencies
    whose intervals rest on measurements. Stated tolerances are of errors that all designs share, and open no order.
    """
    points = [_point(list(group)) for group in _groups(evaluations)]
    designs = [point for point in points if point.role == "design"]
    values = [(point.metric_val, point.latency_predicted_us) for point in designs]
    calibrated = {e.name for e in evaluations if e.estimate is not None and e.estimate.calibrated}
    bars = [(metric_bar(point), _latency_bar(point) if point.name in calibrated else None) for point in designs]
    standings = pareto.standings(values, (task.direction, "min"), bars)
    standing_of = {point.id: standing for point, standing in zip(designs, standings, strict=True)}
    return tuple(
        point.model_copy(
            update={
                "dominated": standing_of.get(point.id) == "dominated",
                "order_uncertain": standing_of.get(point.id) == "uncertain",
            }
        )
        for point in points
    )


def details_of(evaluations: Sequence[Evaluation]) -> tuple[DesignDetail, ...]:
    """What the report shows beside each point: the first seed's layers and training, every seed's assignment."""
    return tuple(_detail(group) for group in _groups(evaluations))


def hypervolume_of(points: Sequence[DesignPoint], task: TaskInfo) -> float | None:
    """Hypervolume of the designs against the worst metric and latency of all points; None for fewer than two designs.

    In metric unit times microseconds. The reference depends on the run: compare runs of equal points only.
    """
    designs = _placed(points, "design")
    if len(designs) < 2:
        return None
    return pareto.hypervolume([_values(point) for point in designs], _reference(points, task), (task.direction, "min"))


def search_of(
    spent: Sequence[tuple[str, int]], points: Sequence[DesignPoint], task: TaskInfo
) -> tuple[SearchStep, ...]:
    """How the hypervolume grew over the epochs spent: a step for every design, after its last training.

    Empty where ``hypervolume_of`` gives None; else its last step ends there.

    Args:
        spent: every training in order, those that were cut short included: the design's name, and the epochs.
        points: of the designs, and the references.
        task: what was learned.
    """
    designs = {point.name: point for point in _placed(points, "design")}
    if len(designs) < 2:
        return ()
    directions: tuple[pareto.Direction, pareto.Direction] = (task.direction, "min")
    reference, last = _reference(points, task), {name: i for i, (name, _) in enumerate(spent)}
    front: list[tuple[float, float | None]] = []
    steps, volume = [], 0.0
    epochs = 0
    for i, (name, more) in enumerate(spent):
        epochs += more
        if last[name] != i or name not in designs:
            continue
        values = _values(designs[name])
        grown = pareto.hypervolume([*front, values], reference, directions)
        if grown > volume:  # else it lies behind the front, which alone need be kept
            front = [*(other for other in front if not pareto.dominates(values, other, directions)), values]
            volume = grown
        steps.append(SearchStep(id=designs[name].id, epochs=epochs, hypervolume=volume))
    return tuple(steps)


def _placed(points: Sequence[DesignPoint], role: str | None = None) -> list[DesignPoint]:
    return [p for p in points if p.latency_predicted_us is not None and role in (None, p.role)]


def _values(point: DesignPoint) -> tuple[float, float | None]:
    return point.metric_val, point.latency_predicted_us


def _reference(points: Sequence[DesignPoint], task: TaskInfo) -> tuple[float, float]:
    """The worst metric and latency of all points."""
    known = _placed(points)
    worst = min if task.direction == "max" else max
    return worst(point.metric_val for point in known), max(point.latency_predicted_us or 0.0 for point in known)


def _groups(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    groups: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(evaluation.name, []).append(evaluation)
    return list(groups.values())


def _point(seeds: list[Evaluation]) -> DesignPoint:
    first = seeds[0]
    estimates = [seed.estimate for seed in seeds if seed.estimate is not None]
    energies = [estimate.energy_uj for estimate in estimates if estimate.energy_uj is not None]
    measured = [seed.measurement.median_us for seed in seeds if seed.measurement and seed.measurement.median_us]
    return DesignPoint(
        id=point_id(first.name),
        name=first.name,
        role=first.role,
        palette=first.palette,
        width=first.width,
        bits_per_weight=statistics.fmean(seed.bits_per_weight for seed in seeds),
        budget=first.budget,
        budget_unit=first.budget_unit,
        budget_used=max((seed.budget_used for seed in seeds if seed.budget_used is not None), default=None),
        metric_val=statistics.fmean(seed.metric_val for seed in seeds),
        metric_test=statistics.fmean(seed.metric_test for seed in seeds),
        metric_se=standard_error([seed.metric_val for seed in seeds]),
        n_seeds=len(seeds),
        latency_predicted_us=statistics.fmean(e.latency_us for e in estimates) if estimates else None,
        latency_low_us=min(e.low_us for e in estimates) if estimates else None,
        latency_high_us=max(e.high_us for e in estimates) if estimates else None,
        latency_measured_us=statistics.fmean(measured) if measured else None,
        batch=first.batch,
        threads=first.threads,
        size_bytes=round(statistics.fmean(seed.size_bytes for seed in seeds)),
        energy_uj=statistics.fmean(energies) if energies else None,
        dominated=False,
    )


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean; None for one value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def metric_bar(point: DesignPoint) -> pareto.Interval | None:
    """One standard error of the mean over seeds to either side; None for one seed."""
    if point.metric_se is None:
        return None
    return pareto.Interval(point.metric_val - point.metric_se, point.metric_val + point.metric_se)


def _latency_bar(point: DesignPoint) -> pareto.Interval | None:
    if point.latency_low_us is None or point.latency_high_us is None:
        return None
    return pareto.Interval(point.latency_low_us, point.latency_high_us)


def _detail(seeds: list[Evaluation]) -> DesignDetail:
    first = seeds[0]
    return DesignDetail(
        id=point_id(first.name),
        command=first.command,
        assignments=tuple(seed.assignment for seed in seeds if seed.assignment is not None),
        estimate=first.estimate,
        measurement=first.measurement,
        agreement=first.agreement,
        metric_fake_quant_val=first.metric_fake_quant_val,
        epochs=first.epochs,
        seconds=sum(seed.seconds for seed in seeds),
        confusion=first.confusion,
        samples=first.samples,
    )
