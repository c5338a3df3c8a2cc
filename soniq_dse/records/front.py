"""The Pareto front as users and scripts read it: ``front.json`` is ``ParetoFront``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from soniq_dse.records.base import Record
from soniq_dse.records.cost import Agreement, Estimate, Host, Measurement
from soniq_dse.records.design import Assignment, EpochRecord
from soniq_dse.records.workload import Workload

FRONT_SCHEMA_VERSION = 1


class Objective(Record):
    """A quantity that the front trades; ``field`` is its key in a point."""

    field: str
    label: str
    unit: str
    direction: Literal["max", "min"]


class TaskInfo(Record):
    """What was learned, on what, and how it is scored."""

    model: str
    data: str
    metric: str
    metric_unit: str
    direction: Literal["max", "min"]
    n_train: int
    n_val: int
    n_test: int


class DesignPoint(Record):
    """One design, averaged over its seeds. ``metric_se`` is the standard error over seeds (None for one seed).

    ``role`` marks the references: ``fp32`` and ``int8`` are drawn apart and take no part in dominance.
    """

    id: str
    name: str
    role: Literal["design", "fp32", "int8"] = "design"
    palette: str
    bits_per_weight: float
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
    dominated: bool


class ParetoFront(Record):
    """``front.json``: the small, stable part of a run."""

    schema_version: Annotated[int, Field(ge=1)] = FRONT_SCHEMA_VERSION
    host: Host
    task: TaskInfo
    objectives: tuple[Objective, ...]
    points: tuple[DesignPoint, ...]


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


class SkippedDesign(Record):
    """A candidate that was not trained to the end, and why."""

    name: str
    reason: str


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
