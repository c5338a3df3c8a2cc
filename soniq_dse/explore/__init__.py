"""The main pipeline: machine -> palettes -> candidates -> trained designs -> latency, predicted and measured -> front.

Everything that takes time is a result in the store, kept the moment it is there under a key that names all its inputs.
So there is one path, whether a run starts or goes on: what the store holds is read, what it lacks is done.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from soniq_dse.agreement import agree
from soniq_dse.cost.network import estimate
from soniq_dse.errors import UserError
from soniq_dse.explore._asked import machine_of
from soniq_dse.explore._budgets import budget_of, overdrawn
from soniq_dse.explore._confusion import confusion
from soniq_dse.explore._measure import Measurer
from soniq_dse.explore._measure_gpu import GpuMeasurer
from soniq_dse.explore._measure_node import NodeMeasurer, node_for
from soniq_dse.explore._pins import words_of
from soniq_dse.explore._plan import INT8, Options, Plan, design_name, make_plan
from soniq_dse.explore._ray import Node, cluster_cores
from soniq_dse.explore._samples import continuations, translations
from soniq_dse.explore._search import Searched, not_trained, search
from soniq_dse.explore._train import Forecast, Notify, Progress, forecast, stored
from soniq_dse.explore._what_if import Asked, what_ifs
from soniq_dse.explore._worst import worst_timelines
from soniq_dse.hardware.host import detect_host
from soniq_dse.records.cost import Measurement
from soniq_dse.records.design import Candidate, TrainedBaseline, TrainedDesign
from soniq_dse.records.front import DesignPoint, ParetoFront, Report, RunInfo, SkippedDesign, TextSample
from soniq_dse.records.gpu import GpuModel
from soniq_dse.report.build import build_report
from soniq_dse.report.points import Evaluation, details_of, hypervolume_of, objectives_of, points_of, search_of
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.search import epochs_of
from soniq_dse.store import Store
from soniq_dse.workloads import width_of

__all__ = [
    "Forecast",
    "Notify",
    "Options",
    "Outcome",
    "Plan",
    "Progress",
    "cluster_cores",
    "explore",
    "forecast",
    "machine_of",
    "make_plan",
]

MANY_DESIGNS = 100
"""Of more designs than these only the front is asked what if."""


@dataclass(frozen=True)
class Outcome:
    """What a run left: its folder, page and numbers, and the designs that failed, by name, with the reason."""

    folder: Path
    page: Path
    report: Report
    failures: dict[str, str]


def explore(plan: Plan, notify: Notify, command: str = "") -> Outcome:
    """Walk ``plan`` to its report; what an earlier run with the same inputs finished is not done again.

    Args:
        plan: what to do, by ``make_plan``.
        notify: told of progress.
        command: what the user typed, for the report.

    Raises:
        UserError: the disk refuses, or another process is at the same run.
    """
    with _only_one(plan.folder), Store(plan.store_folder) as store:
        _write_info(plan, command)
        if plan.options.fresh:
            _forget(plan, store)
        found = search(plan, store, notify)
        failures = found.failures
        node, plan = node_for(plan)
        evaluations = list(_evaluate(plan, store, found, notify, node))
        report = _report(plan, evaluations, failures, command, not_trained(plan, store, found), found)
        page = _written(report, plan.folder)
    return Outcome(plan.folder, page, report, failures)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the run's lock; the system frees it however the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "w")  # noqa: SIM115  # held to the end of the block
    except OSError as error:
        raise UserError(
            f"run folder {folder}: expected to write there, got: {error.strerror}; name another: --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"run folder {folder}: another process is at this run; name another: --out") from error
        yield


def _written(report: Report, folder: Path) -> Path:
    try:
        return build_report(report, folder)
    except OSError as error:
        raise UserError(
            f"run folder {folder}: cannot write the report: {error.strerror}; trainings are kept"
        ) from error


def _write_info(plan: Plan, command: str) -> None:
    """Say what the run set out to do; a run that goes on keeps its beginning."""
    path = plan.folder / "run.json"
    with contextlib.suppress(OSError, ValidationError):
        if RunInfo.from_json(path.read_bytes()).key == plan.run_key and not plan.options.fresh:
            return
    info = RunInfo(
        key=plan.run_key,
        command=command,
        started=_now(),
        model=plan.task_info.model,
        data=plan.task_info.data,
        hardware=plan.hardware.name,
        palettes=tuple(dict.fromkeys(c.palette.name for c in plan.candidates)),
        n_seeds=plan.options.seeds,
        total=len(plan.baselines) + len(plan.candidates),
        baselines=tuple(plan.key("baseline", c) for c in plan.baselines),
        designs=tuple(plan.key("design", c) for c in plan.candidates),
        search=plan.search,
        search_epochs=plan.search_epochs,
        store=None if plan.options.store is None else str(plan.options.store.resolve()),
    )
    try:
        path.write_text(info.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"run folder {plan.folder}: cannot write there: {error.strerror}; name another: --out"
        ) from error


def _forget(plan: Plan, store: Store) -> None:
    for candidate in plan.baselines:
        store.remove("baseline", plan.key("baseline", candidate))
    for candidate in plan.candidates:
        store.remove("design", plan.key("design", candidate))


def _evaluate(plan: Plan, store: Store, found: Searched, notify: Notify, node: Node | None) -> Iterator[Evaluation]:
    """Estimates and measurements of all that was asked for and trained, references first, in the order of the plan."""
    asked, measurer = set(found.asked), _measurer(plan, store, found, notify, node)
    references = [(c, stored(plan, store, "baseline", c)) for c in plan.baselines if plan.is_reference(c)]
    baselines = [(c, trained) for c, trained in references if isinstance(trained, TrainedBaseline)]
    candidates = [(c, stored(plan, store, "design", c)) for c in plan.candidates if c in asked]
    designs = [(c, trained) for c, trained in candidates if isinstance(trained, TrainedDesign)]
    measurer.prepare([candidate for candidate, _ in baselines], designs)
    for candidate, baseline in baselines:
        yield _baseline_evaluation(plan, candidate, baseline, measurer)
    for candidate, trained in designs:
        notify(Progress("measuring", 1.0, None))
        yield _design_evaluation(plan, candidate, trained, measurer)


def _measurer(plan: Plan, store: Store, found: Searched, notify: Notify, node: Node | None) -> Measurer:
    if node is not None:
        return NodeMeasurer(plan, store, found.failures, notify, node)
    kind = GpuMeasurer if isinstance(plan.hardware, GpuModel) else Measurer
    return kind(plan, store, found.failures, notify)


def _design_evaluation(plan: Plan, candidate: Candidate, trained: TrainedDesign, measurer: Measurer) -> Evaluation:
    options, workload = plan.options, plan.graph(candidate)
    packed = measurer.packed(candidate, trained)
    predicted = estimate(
        plan.hardware,
        workload,
        trained.assignment,
        batch=options.batch,
        threads=options.threads,
        choices=packed.choices,
    )
    measured = measurer.design(candidate, trained, packed)
    bits = trained.assignment.bits_per_weight
    predictions = measurer.store.get_array(trained.predictions_test)
    budget, unit, used = budget_of(candidate, plan.hardware, predicted, bits_per_weight=bits)
    return Evaluation(
        role="int8" if candidate.palette == INT8 and plan.is_reference(candidate) else "design",
        name=design_name(candidate),
        palette=candidate.palette.name,
        width=width_of(candidate.model),
        command=_command_of(plan, candidate),
        bits_per_weight=bits,
        budget=budget,
        budget_unit=unit,
        budget_used=used,
        metric_val=trained.metric_val,
        metric_test=trained.metric_test,
        size_bytes=trained.size_bytes,
        batch=options.batch,
        threads=options.threads,
        estimate=predicted,
        measurement=measured,
        agreement=agree(predicted, measured, host_mismatch=plan.host_mismatch if measured.skipped else None),
        assignment=trained.assignment,
        metric_fake_quant_val=trained.metric_fake_quant_val,
        epochs=trained.epochs,
        seconds=trained.seconds,
        confusion=confusion(predictions, plan.task.test.targets, plan.task.n_classes),
        samples=translations(plan.task, predictions) or _continuations(plan, packed, measured),
    )


def _continuations(plan: Plan, packed: PackedNetwork, measured: Measurement) -> tuple[TextSample, ...]:
    """None where the network was not run here."""
    is_elsewhere = measured.skipped or plan.host_mismatch or plan.host != detect_host()
    return () if is_elsewhere else continuations(plan.task, packed, plan.options.threads)


def _baseline_evaluation(plan: Plan, candidate: Candidate, trained: TrainedBaseline, measurer: Measurer) -> Evaluation:
    options = plan.options
    predicted = estimate(plan.hardware, plan.workload, batch=options.batch, threads=options.threads)
    measured = measurer.baseline(candidate)
    return Evaluation(
        role="fp32",
        name="FP32",
        palette="fp32",
        command=_command_of(plan, candidate),
        bits_per_weight=32.0,
        metric_val=trained.metric_val,
        metric_test=trained.metric_test,
        size_bytes=trained.size_bytes,
        batch=options.batch,
        threads=options.threads,
        estimate=predicted,
        measurement=measured,
        agreement=agree(predicted, measured, host_mismatch=plan.host_mismatch),
        epochs=trained.epochs,
        seconds=trained.seconds,
    )


def _report(
    plan: Plan,
    evaluations: list[Evaluation],
    failures: dict[str, str],
    command: str,
    left_out: tuple[SkippedDesign, ...],
    found: Searched,
) -> Report:
    points = points_of(evaluations, plan.task_info)
    spent = [(design_name(c), epochs_of(c)) for c in found.asked if not (c.palette == INT8 and plan.is_reference(c))]
    failed = tuple(SkippedDesign(name=name, reason=f"failed: {reason}") for name, reason in failures.items())
    return Report(
        title=f"{plan.task_info.model} on {plan.hardware.title}",
        created=_now(),
        command=command,
        hardware=plan.hardware.name,
        hardware_title=plan.hardware.title,
        hardware_matches_host=plan.host_mismatch is None,
        front=ParetoFront(host=plan.host, task=plan.task_info, objectives=objectives_of(plan.task_info), points=points),
        details=details_of(evaluations),
        skipped=plan.skipped + left_out + failed,
        workload=plan.graph(_widest_design(plan)) if plan.candidates else plan.workload,
        notes=_notes(plan, evaluations, points, len(left_out), found.epochs),
        hypervolume=hypervolume_of(points, plan.task_info),
        search=search_of(spent, points, plan.task_info),
        machine=plan.hardware,
        timelines=worst_timelines(plan.hardware, evaluations),
        what_if=what_ifs(plan, _asked_about(plan, evaluations, points)),
    )


def _asked_about(plan: Plan, evaluations: Sequence[Evaluation], points: Sequence[DesignPoint]) -> dict[str, Asked]:
    """What is asked of every design by id, its first seed; of many, of the front and the references."""
    names = {point.name: point.id for point in points if len(points) <= MANY_DESIGNS or not point.dominated}
    graphs = {design_name(candidate): plan.graph(candidate) for candidate in plan.candidates}
    asked: dict[str, Asked] = {}
    for one in evaluations:
        if one.name in names:
            asked.setdefault(names[one.name], (graphs.get(one.name, plan.workload), one.assignment))
    return asked


def _widest_design(plan: Plan) -> Candidate:
    """One that has the pins which the INT8 reference lacks, where there is one."""
    widest = [candidate for candidate in plan.candidates if plan.is_reference(candidate)]
    return next((candidate for candidate in widest if candidate.palette != INT8), widest[0])


def _notes(
    plan: Plan, evaluations: list[Evaluation], points: Sequence[DesignPoint], n_left_out: int, epochs: int
) -> tuple[str, ...]:
    notes = [
        f"Chosen on the validation split ({plan.task_info.n_val} examples), shown on the test split "
        f"({plan.task_info.n_test} examples, used for nothing else)."
    ]
    pins = words_of(_widest_design(plan)) if plan.candidates else []
    if pins:
        notes.append(f"Kept at a level of their own, in the designs but not in INT8: {' '.join(pins)}.")
    if n_left_out:
        total = sum(map(epochs_of, plan.designs))
        notes.append(
            f"Searched by {plan.search}, which spent {epochs} of the {total} epochs that all designs would take: "
            f"{n_left_out} trainings were left out (they are listed), and a better design may be among them."
        )
    if plan.options.seeds < 5:
        notes.append(
            f"Seeds per design: {plan.options.seeds}. Differences below the run-to-run noise (about half a point from "
            "2 bits up, more at 1 bit) mean nothing; --seeds 5 gives error bars."
        )
    notes += [text for text in map(overdrawn, points) if text]
    if plan.host != detect_host():
        notes.append(f"Latencies are measured on a node of the cluster: {plan.host.processor}.")
    notes += _unmeasured(plan, [(e.name, e.measurement) for e in evaluations if e.measurement])
    notes += [f"{part.node} ({part.op}) stays in floating point: {part.reason}." for part in plan.workload.unsupported]
    return tuple(notes)


def _unmeasured(plan: Plan, found: Sequence[tuple[str, Measurement]]) -> list[str]:
    """What was not measured here, and where kept measurements come from."""
    kept = [one.host for _, one in found if one.host and plan.host_mismatch]
    reasons = {one.skipped: name for name, one in found if one.skipped}
    if plan.host_mismatch is None:
        return [f"Not measured ({name}): {reason}." for reason, name in reasons.items()]
    if not kept:
        return [f"Latencies are predicted only: {plan.host_mismatch}."]
    return [
        f"{len(kept)} of {len(found)} latencies are kept measurements of {kept[0].processor}; the others are predicted "
        "only."
    ]


def _command_of(plan: Plan, candidate: Candidate) -> str:
    """The command that trains and measures this design alone, into a folder of its own."""
    options, schedule = plan.options, candidate.schedule
    epochs = f"{schedule.baseline_epochs},{schedule.noise_epochs},{schedule.finetune_epochs}"
    trained = ["--palettes", candidate.asked, "--epochs", epochs, "--seeds", str(options.seeds)]
    words = ["soniq-dse", "explore", "--hw", options.hw or plan.hardware.name, "--model", candidate.model]
    words += ["--data", plan.task_info.data, *trained]
    words += ["--batch", str(options.batch), "--threads", str(options.threads)]
    if options.limit is not None:
        words += ["--limit", str(options.limit)]
    words += words_of(candidate)
    words += [word for setting in options.settings for word in ("--vary", setting)]
    if candidate.granularity != "class":
        words += ["--granularity", candidate.granularity]
    for setting in options.recipe:
        words += ["--recipe", setting]
    if candidate.allocator != "soniq":
        words += ["--allocator", candidate.allocator]
    return shlex.join(words)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
