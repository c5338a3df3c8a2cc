"""The Pareto front as users and scripts read it: ``front.json`` is ``ParetoFront``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from soniq_dse.records.base import Record
from soniq_dse.records.cost import Agreement, Estimate, Host, Measurement, Timeline
from soniq_dse.records.design import Assignment, EpochRecord
from soniq_dse.records.gpu import Machine
from soniq_dse.records.workload import Workload

FRONT_SCHEMA_VERSION = 1


class Objective(Record):
    """A quantity that the front trades; ``field`` is its key in a point."""

    field: str
    label: str
    unit: str
    direction: Literal["max", "min"]


class TaskInfo(Record):
    """What was learned, on what, and how it is scored.

    ``metric_unit`` is the unit of every metric value: ``%`` for 0..100, ``fraction`` for 0..1 (the report shows it in
    per cent), otherwise the metric's own (``BLEU``, ``nats``).
    """

    model: str
    data: str
    metric: str
    metric_unit: str
    direction: Literal["max", "min"]
    n_train: int
    n_val: int
    n_test: int


class DesignPoint(Record):
    """One design, averaged over its seeds. ``metric_se`` is the standard error of ``metric_val`` over seeds (None
    for one seed); an order within it does not dominate.

    ``role`` marks the references: ``fp32`` and ``int8`` are drawn apart and take no part in dominance.
    """

    id: str
    name: str
    role: Literal["design", "fp32", "int8"] = "design"
    palette: str
    width: float = 1.0
    """The model's channels times this."""
    bits_per_weight: float
    budget: float | None = None
    """What the design was allowed, in ``budget_unit``: bits per weight, or latency or energy of the whole network."""
    budget_unit: Literal["bits", "us", "uj"] | None = None
    budget_used: float | None = None
    """The most that a seed takes of it; predicted with the kernels that run, where it is latency or energy."""
    metric_val: float
    metric_test: float
    metric_se: float | None
    n_seeds: int
    latency_predicted_us: float | None
    latency_low_us: float | None
    latency_high_us: float | None
    latency_measured_us: float | None
    batch: int
    threads: int
    size_bytes: int
    energy_uj: float | None = None
    """Predicted dynamic energy of one call; None where the descriptor lacks figures for it."""
    dominated: bool
    order_uncertain: bool = False
    """Another design is better by the values, but not wherever in their intervals the true values lie."""


class ParetoFront(Record):
    """``front.json``: the small, stable part of a run."""

    schema_version: Annotated[int, Field(ge=1)] = FRONT_SCHEMA_VERSION
    host: Host
    task: TaskInfo
    objectives: tuple[Objective, ...]
    points: tuple[DesignPoint, ...]


class TextSample(Record):
    """A test example of a task of text: a sentence, its reference and the integer network's translation; or the start
    of a text, how it goes on, and how the network does."""

    source: str
    reference: str
    output: str


class DesignDetail(Record):
    """All that the report shows of one point, one entry per seed where it repeats."""

    id: str
    command: str
    assignments: tuple[Assignment, ...] = ()
    estimate: Estimate | None = None
    measurement: Measurement | None = None
    agreement: Agreement | None = None
    metric_fake_quant_val: float | None = None
    epochs: tuple[EpochRecord, ...] = ()
    seconds: float = 0.0
    confusion: tuple[tuple[int, ...], ...] | None = None
    """Test examples of the first seed, ``[true class][class the integer network says]``; None where it has no classes,
    or more than a page can show."""
    samples: tuple[TextSample, ...] = ()
    """What the first seed says, where the task is one of text."""


class OtherRun(Record):
    """Another run of the same task, laid over a report: its machine by a name of its own, its points and details."""

    machine: str
    hardware_title: str
    hardware_matches_host: bool
    created: str
    command: str
    points: tuple[DesignPoint, ...]
    details: tuple[DesignDetail, ...]


class JointPoint(Record):
    """A design on a machine that no other design on any machine surely dominates; ``certain`` where none does by the
    values either. ``machine`` is ``Report.hardware`` or ``OtherRun.machine``, ``id`` the point there."""

    machine: str
    id: str
    certain: bool


class SearchStep(Record):
    """How far the front had come after a design: epochs that the search had spent until then, on trainings it cut short
    too (FP32 starts and references apart), and the hypervolume of the designs so far, against the reference of
    ``Report.hypervolume``."""

    id: str
    epochs: int
    hypervolume: float


class WhatIf(Record):
    """What if the machine were another: ``settings`` of its fields, and for designs by id, predicted latency over that
    on the machine as it is. Both are bounds of the kernels' loops (core model ``incore``), kernels chosen anew."""

    label: str
    settings: tuple[str, ...]
    latency_ratio: dict[str, Annotated[float, Field(ge=0)]]


class SkippedDesign(Record):
    """A candidate that was not trained to the end, and why."""

    name: str
    reason: str


class Summary(Record):
    """What the report says first; ``report.build_report`` derives it from the points.

    ``finding_id`` is the design that ``finding`` speaks of. Speed-ups are over the network of the same width in INT8
    and FP32: its latency over the design's, both measured where both were, otherwise both predicted
    (``speedup_kind``). Ratios are predicted over measured latency; the worst is the farthest from 1 on a log scale.
    """

    finding: str
    finding_id: str | None = None
    speedup_over_int8: float | None = None
    speedup_over_fp32: float | None = None
    speedup_kind: Literal["measured", "predicted"] | None = None
    knee_id: str | None = None
    knee_reason: str = ""
    n_measured: int = 0
    n_within_interval: int = 0
    ratio_median: float | None = None
    ratio_worst: float | None = None


class Report(Record):
    """``report.json``: every number of the page."""

    schema_version: Annotated[int, Field(ge=1)] = 1
    title: str
    created: str
    command: str
    hardware: str
    hardware_title: str
    hardware_matches_host: bool
    front: ParetoFront
    details: tuple[DesignDetail, ...]
    skipped: tuple[SkippedDesign, ...]
    workload: Workload
    notes: tuple[str, ...]
    """What was not measured, and other things the reader must know."""
    hypervolume: float | None
    search: tuple[SearchStep, ...] = ()
    """In the order in which designs were tried."""
    machine: Machine | None = None
    """The descriptor of ``hardware`` that the predictions were made by, resolved."""
    what_if: tuple[WhatIf, ...] = ()
    """About ``machine``; of many designs, those of the front."""
    timelines: tuple[Timeline, ...] = ()
    """Loops of the kernels of the layers farthest off."""
    others: tuple[OtherRun, ...] = ()
    """Runs on other machines that were asked to be shown beside this one; they take no part in ``summary``."""
    joint: tuple[JointPoint, ...] = ()
    """The front over this machine and those of ``others``, fastest first; empty where none was asked for."""
    folders: tuple[str, ...] = ()
    """Of the runs behind ``joint``, from the report's own folder: this machine's, then those of ``others``."""
    summary: Summary | None = None


class RunInfo(Record):
    """``run.json``: what an exploration set out to do; written before its first training, so that a killed run shows.

    ``key`` is the hash of everything that decides the result. ``baselines`` and ``designs`` are the store's keys of the
    ``total`` trainings, references included; a ``search`` within ``search_epochs`` does a part of them. ``store`` is
    None where the store is in the run's own folder.
    """

    schema_version: Annotated[int, Field(ge=1)] = 1
    key: str
    command: str
    started: str
    model: str
    data: str
    hardware: str
    palettes: tuple[str, ...]
    n_seeds: int
    total: int
    baselines: tuple[str, ...] = ()
    designs: tuple[str, ...] = ()
    search: str = "exhaustive"
    search_epochs: int | None = None
    store: str | None = None
