"""Trainings, each in a process of its own, results straight into the store."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soniq_dse.cost.channel_table import assignment_cost
from soniq_dse.errors import UserError
from soniq_dse.explore._jobs import outcomes
from soniq_dse.explore._plan import Plan, training_name
from soniq_dse.explore._store_job import StoreJob
from soniq_dse.native.processes import Outcome
from soniq_dse.records.design import Assignment, Candidate, TrainedBaseline, TrainedDesign
from soniq_dse.records.gpu import machine_from_json
from soniq_dse.records.workload import Workload
from soniq_dse.search import epochs_of
from soniq_dse.store import Store
from soniq_dse.workloads import load_task
from soniq_dse.workloads.task import Task

TYPICAL_MACS_PER_SECOND = 4e10
"""Of an FP32 training (forward and backward) on one AVX-512 core; only for the first guess at the time left."""
FIXED_SHARE = 0.2
"""Of an epoch of the widest network: what does not shrink with its width."""
START_SECONDS = 1.5
"""Before the first step of a training: its data, its calibration."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands: the share of its trainings that is done, and the seconds left (None: nothing to go by yet).

    ``line`` is worth keeping on the screen; None where only the share has changed.
    """

    phase: str
    share: float
    seconds_left: float | None
    line: str | None = None


Notify = Callable[[Progress], None]


@dataclass
class Tracker:
    """Turns what the trainings say into shares and seconds left; epochs are its unit of work."""

    notify: Notify
    total: float
    phase: str = ""
    kept: float = 0.0
    shares: dict[str, tuple[float, float]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def keep(self, work: float) -> None:
        """Count work that an earlier run has done."""
        self.kept += work

    def update(self, name: str, work: float, share: float, line: str | None = None) -> None:
        """``share`` of the ``work`` called ``name`` is done."""
        self.shares[name] = (work, share)
        now = sum(work * share for work, share in self.shares.values())
        done = self.kept + now
        left = (time.monotonic() - self.started) * (self.total - done) / now if now > 0.02 * self.total else None
        self.notify(Progress(self.phase, done / self.total if self.total else 1.0, left, line))


def work_of(plan: Plan, kind: str, candidate: Candidate) -> float:
    """Epochs of a training: quantized ones count twice, those of narrower networks in part (rules of thumb)."""
    schedule = candidate.schedule
    quantized = schedule.noise_epochs + schedule.finetune_epochs
    epochs = schedule.baseline_epochs + quantized if kind == "baseline" else 2.0 * quantized
    share = _macs(plan.variants[candidate.model].workload) / _macs(plan.workload)
    return epochs * (FIXED_SHARE + (1 - FIXED_SHARE) * share)


def _macs(workload: Workload) -> float:
    """Multiply-accumulates per example."""
    return sum(layer.macs for layer in workload.layers) / workload.input_shape[0]


@dataclass(frozen=True)
class Forecast:
    """Every training of a plan as (name, whether it is finished), and the seconds that the others take."""

    trainings: tuple[tuple[str, bool], ...]
    seconds: float

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the trainings still to do."""
        return tuple(name for name, is_finished in self.trainings if not is_finished)


def search_share(plan: Plan) -> float:
    """The part of the epochs of all designs that the search may spend."""
    total = sum(map(epochs_of, plan.designs))
    return 1.0 if plan.search_epochs is None or not total else min(1.0, plan.search_epochs / total)


def forecast(plan: Plan) -> Forecast:
    """What is still to be trained, and how long it takes: by the pace of what is finished, else by a typical one."""
    wanted = [("baseline", c) for c in plan.baselines] + [("design", c) for c in plan.candidates]
    found: list[TrainedBaseline | TrainedDesign | None] = [None] * len(wanted)
    if (plan.store_folder / "records").is_dir() and not plan.options.fresh:
        with Store(plan.store_folder) as store:
            found = [stored(plan, store, kind, candidate) for kind, candidate in wanted]
    work = [work_of(plan, kind, candidate) for kind, candidate in wanted]
    paces = [record.seconds / w for record, w in zip(found, work, strict=True) if record is not None]
    pace = (
        statistics.fmean(paces)
        if paces
        else 3 * _macs(plan.workload) * plan.task_info.n_train / TYPICAL_MACS_PER_SECOND
    )
    shares = [search_share(plan) if kind == "design" and c in plan.designs else 1.0 for kind, c in wanted]
    parts = zip(found, work, shares, strict=True)
    left = [share * (START_SECONDS + w * pace) for record, w, share in parts if record is None]
    names = [training_name(kind, candidate) for kind, candidate in wanted]
    trainings = tuple((name, record is not None) for name, record in zip(names, found, strict=True))
    return Forecast(trainings, max(sum(left) / plan.options.jobs, max(left, default=0.0)))


def train(plan: Plan, store: Store, tracker: Tracker, kind: str, candidates: Iterable[Candidate]) -> dict[str, str]:
    """Train what the store lacks of ``candidates``.

    Returns:
        Trainings that failed, by name, with the reason.
    """
    jobs: list[StoreJob] = []
    work: dict[str, float] = {}
    of_name: dict[str, Candidate] = {}
    for candidate in candidates:
        if stored(plan, store, kind, candidate) is not None:
            tracker.keep(work_of(plan, kind, candidate))
            continue
        name = name_in(plan, kind, candidate)
        work[name], of_name[name] = work_of(plan, kind, candidate), candidate
        jobs.append(_job(plan, kind, candidate))
    tracker.phase = "training the FP32 start" if kind == "baseline" else "training designs"
    tracker.update(kind, 0.0, 0.0)
    failures: dict[str, str] = {}
    told = lambda job, share: tracker.update(job.name, work[job.name], share)  # noqa: E731
    for outcome in outcomes(plan.options, store, jobs, told):
        name = outcome.job.name
        record = None if outcome.error else stored(plan, store, kind, of_name[name])
        reason = outcome.error or ("" if record else "its result is not in the store")
        if record is None:
            failures[name] = reason
        tracker.update(name, work[name], 1.0, _line(plan, outcome, record, reason))
    return failures


def stored(plan: Plan, store: Store, kind: str, candidate: Candidate) -> TrainedBaseline | TrainedDesign | None:
    """The finished training, or None."""
    key = plan.key(kind, candidate)
    if kind == "baseline":
        return store.get(kind, key, TrainedBaseline)
    return store.get(kind, key, TrainedDesign)


def name_in(plan: Plan, kind: str, candidate: Candidate) -> str:
    """The training's name, with its epochs where a search shortened its schedule."""
    is_short = kind == "design" and candidate.schedule != plan.candidates[0].schedule
    return training_name(kind, candidate) + (f", {epochs_of(candidate)} epochs" if is_short else "")


def _job(plan: Plan, kind: str, candidate: Candidate) -> StoreJob:
    name, key = name_in(plan, kind, candidate), plan.key(kind, candidate)
    args = (candidate.model_dump_json(), plan.options.limit, key)
    if kind == "baseline":
        return StoreJob(name, _train_baseline, args, writes=((kind, key),))
    start = plan.key("baseline", candidate)
    machine = None if candidate.costs is None else plan.hardware.model_dump_json()
    more = (start, plan.graph(candidate).model_dump_json(), machine, plan.options.batch, plan.options.threads)
    return StoreJob(name, _train_design, (*args, *more), writes=((kind, key),), reads=(("baseline", start),))


def _line(plan: Plan, outcome: Outcome, record: TrainedBaseline | TrainedDesign | None, reason: str) -> str:
    if record is None:
        return f"{outcome.job.name}: failed: {reason}"
    info = plan.task_info
    return (
        f"{outcome.job.name}: {info.metric} {record.metric_val:.2f} {info.metric_unit} (val), {outcome.seconds:.0f} s"
    )


def _train_baseline(folder: str, text: str, limit: int | None, key: str, say: Callable[[Any], None]) -> None:
    """In a process of its own."""
    from soniq_dse.qat.baseline import train_baseline
    from soniq_dse.qat.checkpoint import Checkpoint

    candidate = Candidate.from_json(text)
    with Store(Path(folder)) as store:
        record = train_baseline(
            candidate.model,
            task_of(candidate, limit),
            candidate.schedule,
            candidate.seed,
            store,
            progress=lambda _, share: say(share),
            torch_threads=candidate.torch_threads,
            checkpoint=Checkpoint(store, "baseline", key),
        )
        store.put("baseline", key, record)


def _train_design(
    folder: str,
    text: str,
    limit: int | None,
    key: str,
    baseline_key: str,
    graph: str,
    machine: str | None,
    batch: int,
    threads: int,
    say: Callable[[Any], None],
) -> None:
    """In a process of its own."""
    from soniq_dse.qat.checkpoint import Checkpoint
    from soniq_dse.qat.design import train_design
    from soniq_dse.workloads import load_model

    candidate, workload = Candidate.from_json(text), Workload.from_json(graph)
    with Store(Path(folder)) as store:
        baseline = store.get("baseline", baseline_key, TrainedBaseline)
        if baseline is None:
            raise UserError("its FP32 start is no longer in the store")
        build, _ = load_model(candidate.model)
        record = train_design(
            candidate,
            workload,
            build,
            task_of(candidate, limit),
            baseline,
            store,
            progress=lambda _, share: say(share),
            checkpoint=Checkpoint(store, "design", key),
            cost_of=_cost_of(candidate, workload, machine, batch, threads),
        )
        store.put("design", key, record)


def _cost_of(
    candidate: Candidate, workload: Workload, machine: str | None, batch: int, threads: int
) -> Callable[[Assignment], float] | None:
    """What the whole network takes on the machine, in the unit of the candidate's budget; None where that is bits."""
    if candidate.costs is None or machine is None:
        return None
    hardware, unit = machine_from_json(machine), candidate.costs.unit
    return lambda levels: assignment_cost(hardware, workload, levels, unit, batch=batch, threads=threads)


def task_of(candidate: Candidate, limit: int | None) -> Task:
    """The data of ``candidate``, the same examples as the run began with.

    Raises:
        UserError: they are others.
    """
    task = load_task(candidate.data, limit)
    if task.data_sha256 != candidate.data_sha256:
        raise UserError(
            f"data {candidate.data}: expected the same examples every time, got others than the run began with; "
            "is its split random?"
        )
    return task
