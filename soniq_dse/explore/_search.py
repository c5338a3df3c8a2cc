"""Asks the strategy, trains what it asks for, tells it what came of that. A run that goes on asks the same again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soniq_dse import registry
from soniq_dse.cost.network import estimate
from soniq_dse.errors import UserError
from soniq_dse.explore._jobs import outcomes
from soniq_dse.explore._plan import Plan, training_name
from soniq_dse.explore._store_job import StoreJob
from soniq_dse.explore._train import Notify, Tracker, name_in, search_share, stored, task_of, train, work_of
from soniq_dse.records.design import Assignment, Candidate, RoundedStart, TrainedBaseline, TrainedDesign
from soniq_dse.records.front import SkippedDesign
from soniq_dse.records.workload import Workload
from soniq_dse.search import Base, Prior, Result, Space, epochs_of
from soniq_dse.store import Store, result_key


@dataclass
class Searched:
    """What a search trained (``asked``, shortened trainings included), what failed and why, and the epochs it spent."""

    asked: list[Candidate] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    epochs: int = 0


def search(plan: Plan, store: Store, notify: Notify) -> Searched:
    """Train the FP32 networks and the INT8 references, then what the strategy asks for; the store keeps it all.

    The run goes on without trainings that fail. FP32 networks of further seeds are trained when a design needs them.
    """
    first = [c for c in plan.baselines if plan.search == "exhaustive" or c.seed == plan.baselines[0].seed]
    run = _Run(plan, store, _tracker(plan, notify))
    run.baselines(first)
    run.designs([c for c in plan.candidates if c not in set(plan.designs) and c.seed in {b.seed for b in first}])
    strategy: Base = registry.load("search", plan.search)(_space(plan, run))
    while batch := strategy.ask():
        run.designs(batch)
        for candidate in batch:
            strategy.tell(run.result(candidate))
    run.found.epochs = strategy.spent
    return run.found


def not_trained(plan: Plan, store: Store, found: Searched) -> tuple[SkippedDesign, ...]:
    """The designs that the search left out, with how far each came."""
    asked = set(found.asked)
    total = epochs_of(plan.candidates[0])
    short: dict[Candidate, int] = {}
    for candidate in found.asked:
        whole = candidate.model_copy(update={"schedule": plan.candidates[0].schedule})
        if whole not in asked and stored(plan, store, "design", candidate) is not None:
            short[whole] = max(short.get(whole, 0), epochs_of(candidate))
    names = dict.fromkeys(training_name("design", c) for c in plan.designs if c not in asked)
    tried = {training_name("design", c): epochs for c, epochs in short.items()}
    return tuple(
        SkippedDesign(
            name=name,
            reason=f"dropped by the search {plan.search} after {tried[name]} of {total} epochs"
            if name in tried
            else f"not trained: the search {plan.search} chose others",
        )
        for name in names
    )


@dataclass
class _Run:
    plan: Plan
    store: Store
    tracker: Tracker
    found: Searched = field(default_factory=Searched)

    def baselines(self, candidates: Iterable[Candidate]) -> None:
        self.found.failures |= train(self.plan, self.store, self.tracker, "baseline", candidates)

    def designs(self, candidates: Sequence[Candidate]) -> None:
        """Train ``candidates``, and the FP32 starts that they lack."""
        starts = {(c.model, c.seed): c for c in self.plan.baselines}
        wanted = dict.fromkeys(starts[c.model, c.seed] for c in candidates)
        failures = self.found.failures
        lacking = [c for c in wanted if stored(self.plan, self.store, "baseline", c) is None]
        self.baselines([c for c in lacking if training_name("baseline", c) not in failures])
        ready = []
        for candidate in candidates:
            reason = failures.get(training_name("baseline", starts[candidate.model, candidate.seed]))
            if reason is None:
                ready.append(candidate)
            else:
                failures[name_in(self.plan, "design", candidate)] = f"its FP32 start failed: {reason}"
        failures |= train(self.plan, self.store, self.tracker, "design", ready)
        self.found.asked += candidates

    def result(self, candidate: Candidate) -> Result:
        """What became of a training."""
        trained = stored(self.plan, self.store, "design", candidate)
        if not isinstance(trained, TrainedDesign):
            return Result(candidate)
        return Result(candidate, trained.metric_val, self.latency_us(candidate, trained.assignment))

    def latency_us(self, candidate: Candidate, assignment: Assignment) -> float:
        options, workload = self.plan.options, self.plan.graph(candidate)
        return estimate(
            self.plan.hardware, workload, assignment, batch=options.batch, threads=options.threads
        ).latency_us


def _tracker(plan: Plan, notify: Notify) -> Tracker:
    designs = set(plan.designs)
    work = sum(work_of(plan, "baseline", c) for c in plan.baselines)
    work += sum(work_of(plan, "design", c) * (search_share(plan) if c in designs else 1.0) for c in plan.candidates)
    return Tracker(notify, work)


def _space(plan: Plan, run: _Run) -> Space:
    task = plan.task_info
    priors = () if plan.search == "exhaustive" else _priors(plan, run)
    return Space(plan.designs, priors, direction=task.direction, budget_epochs=plan.search_epochs)


def _priors(plan: Plan, run: _Run) -> tuple[Prior, ...]:
    """Of every design: those of the first seed hold for all."""
    known: dict[Candidate, Prior] = {}
    first = [c for c in plan.designs if c.seed == plan.baselines[0].seed]
    _round(plan, run, first)
    for candidate in first:
        rounded = run.store.get("rounded", _rounded_key(plan, candidate), RoundedStart)
        if rounded is not None:
            levels = rounded.assignment
            known[candidate] = Prior(run.latency_us(candidate, levels), rounded.metric_val, levels.bits_per_weight)
    seed = plan.baselines[0].seed
    return tuple(known.get(c.model_copy(update={"seed": seed}), Prior()) for c in plan.designs)


def _rounded_key(plan: Plan, candidate: Candidate) -> str:
    return result_key("rounded", candidate, plan.graph(candidate))


def _round(plan: Plan, run: _Run, candidates: Sequence[Candidate]) -> None:
    """Round the FP32 starts as the candidates are, a process per model; what fails stays unknown."""
    starts = {c.model: c for c in plan.baselines if c.seed == plan.baselines[0].seed}
    jobs = []
    for model, start in starts.items():
        lacking = [c for c in candidates if c.model == model]
        lacking = [c for c in lacking if run.store.get("rounded", _rounded_key(plan, c), RoundedStart) is None]
        if not lacking or stored(plan, run.store, "baseline", start) is None:
            continue
        asked = tuple((_rounded_key(plan, c), c.model_dump_json(), plan.graph(c).model_dump_json()) for c in lacking)
        key = plan.key("baseline", start)
        name, writes = f"{training_name('baseline', start)}, rounded", tuple(("rounded", one) for one, _, _ in asked)
        args = (asked, plan.options.limit, key)
        jobs.append(StoreJob(name, _round_all, args, writes, reads=(("baseline", key),)))
    run.tracker.phase = "rounding the FP32 starts"
    for outcome in outcomes(plan.options, run.store, jobs, lambda *_: None):
        if outcome.error:
            run.found.failures[outcome.job.name] = outcome.error


def _round_all(
    folder: str,
    asked: Sequence[tuple[str, str, str]],
    limit: int | None,
    baseline_key: str,
    say: Callable[[Any], None],
) -> None:
    """In a process of its own."""
    from soniq_dse.qat.proxy import rounded_start
    from soniq_dse.workloads import load_model

    first = Candidate.from_json(asked[0][1])
    task, (build, _) = task_of(first, limit), load_model(first.model)
    with Store(Path(folder)) as store:
        baseline = store.get("baseline", baseline_key, TrainedBaseline)
        if baseline is None:
            raise UserError("its FP32 start is no longer in the store")
        for key, text, graph in asked:
            candidate, workload = Candidate.from_json(text), Workload.from_json(graph)
            store.put("rounded", key, rounded_start(candidate, workload, build, task, baseline, store))
