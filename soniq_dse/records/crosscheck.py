"""Predictions set beside measurements, layer by layer and network by network; and the measurements that are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from soniq_dse.records.base import Record
from soniq_dse.records.choice import Choices
from soniq_dse.records.cost import Bound, Host, Measurement, NonNegative, Timeline
from soniq_dse.records.workload import Layer


class CrosscheckRow(Record):
    """One layer or network. ``group`` names what differs in its levels only; ``error_percent`` is predicted over
    measured less 1; ``within`` whether the measurement lies in the predicted interval. Without a measurement these are
    None and ``reason`` says why there is none."""

    name: str
    kind: Literal["layer", "network"]
    group: str
    levels: str
    threads: int
    macs: int
    kernels: tuple[str, ...] = ()
    bound: Bound
    predicted_us: NonNegative
    low_us: NonNegative
    high_us: NonNegative
    interval: str
    measured_us: NonNegative | None = None
    mad_us: NonNegative | None = None
    samples: int = 0
    settled: bool | None = None
    error_percent: float | None = None
    within: bool | None = None
    reason: str = "not measured"


class CrosscheckSummary(Record):
    """Scores of the measured rows; None where too little was measured. ``regret``: what taking the fastest level by the
    model costs over the fastest measured, among rows of one group. Fields of networks and of memory-bound layers are of
    these alone; all others are of layers."""

    n_rows: int
    n_measured: int
    mape_percent: float | None = None
    median_percent: float | None = None
    p95_percent: float | None = None
    worst_percent: float | None = None
    worst_name: str | None = None
    bias_percent: float | None = None
    tau: float | None = None
    regret_mean_percent: float | None = None
    regret_worst_percent: float | None = None
    coverage_percent: float | None = None
    coverage_p_value: float | None = None
    half_width_percent: float | None = None
    memory_mape_percent: float | None = None
    n_networks_measured: int = 0
    networks_mape_percent: float | None = None
    networks_worst_percent: float | None = None


class CrosscheckGoal(Record):
    """A numbered goal of the cost model; ``bound`` in words (``<= 5``)."""

    id: str
    name: str
    unit: str
    value: float
    bound: str
    met: bool


class Crosscheck(Record):
    """``crosscheck.json``. ``predictions_sha256`` is the hash of the file of predictions, written at ``predicted_at``,
    before anything was measured; ``not_measured`` says why nothing was."""

    schema_version: Annotated[int, Field(ge=1)] = 1
    command: str
    hardware: str
    hardware_title: str
    hardware_sha256: str
    matches_host: bool
    not_measured: str | None
    host: Host
    compiler: str
    predicted_at: str
    predictions_sha256: str
    measured_at: str | None
    summary: CrosscheckSummary
    goals: tuple[CrosscheckGoal, ...]
    rows: tuple[CrosscheckRow, ...]
    timelines: tuple[Timeline, ...] = ()
    """Loops of the kernels of the layers farthest off."""


class MeasuredLayer(Record):
    """A layer as it was measured: on which kernels, from which sources (symbol -> hash)."""

    layer: Layer
    choices: Choices
    kernels: dict[str, str]
    measurement: Measurement


class MeasuredLayers(Record):
    """``hwmodels/measured/NAME/layers.json``: what intervals of estimates on a machine rest on.

    Kept are measurements, not errors: these follow from the model as it is when an estimate is made.
    """

    schema_version: Annotated[int, Field(ge=1)] = 1
    hardware: str
    hardware_sha256: str
    date: str
    host: Host
    compiler: str
    layers: tuple[MeasuredLayer, ...]
