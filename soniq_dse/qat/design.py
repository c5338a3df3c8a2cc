"""One candidate, trained: noise (phase 1), levels fixed, fine-tuning under rounding (phase 2), integers, metric.

Source: SONIQ, arXiv 2311.14114. Both phases start from the FP32 warm start, which also teaches them (distillation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from soniq_dse import registry
from soniq_dse.errors import UserError
from soniq_dse.qat.allocators import Base, Levels, Logits
from soniq_dse.qat.apply import QuantizedModel, quantize_model
from soniq_dse.qat.baseline import load_state
from soniq_dse.qat.checkpoint import Checkpoint
from soniq_dse.qat.deploy import deploy, size_bytes
from soniq_dse.qat.evaluate import evaluate_network
from soniq_dse.qat.sensitivity import Probe
from soniq_dse.qat.soft_assignment import SoftAssignment
from soniq_dse.qat.spending import spend
from soniq_dse.qat.training import (
    Phase,
    PhaseName,
    Progress,
    Teacher,
    deterministic,
    metric_of,
    optimizer_for,
    outputs_of,
    run_phase,
)
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.design import Assignment, Candidate, EpochRecord, TrainedBaseline, TrainedDesign
from soniq_dse.records.workload import Workload
from soniq_dse.workloads.task import Task

if TYPE_CHECKING:
    from soniq_dse.store import Store

CALIBRATION_EXAMPLES = 256


def train_design(
    candidate: Candidate,
    workload: Workload,
    build_model: Callable[[], nn.Module],
    task: Task,
    baseline: TrainedBaseline,
    store: Store,
    *,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    cost_of: Callable[[Assignment], float] | None = None,
) -> TrainedDesign:
    """Train ``candidate`` from ``baseline`` (of the same seed), and evaluate the integer network it becomes.

    Test data is looked at once, at the end. The same candidate gives the same arrays, bit for bit, on one processor
    type, also where a killed training goes on from its ``checkpoint``.

    ``cost_of`` says what the network really takes with an assignment, in the unit of ``candidate.costs``; the levels
    are then moved until that is within the budget.

    Raises:
        UserError: the candidate does not fit the model, the data or the baseline, or training diverged.
    """
    checkpoint = checkpoint or Checkpoint()
    _check(candidate, task, baseline)
    with deterministic(candidate.torch_threads):
        training = _Training(candidate, workload, build_model, task, baseline, store, progress, checkpoint, cost_of)
        levels = training.noise()
        fake_quant_val = training.finetune(levels)
        arrays: list[ArrayRef] = []

        def put(array: object) -> ArrayRef:
            arrays.append(store.put_array(array))  # type: ignore[arg-type]
            return arrays[-1]

        network = deploy(training.quantized, put)
        by_hash = {ref.sha256: store.get_array(ref) for ref in arrays}
        metric_val, _ = evaluate_network(network, by_hash, task, "val")
        metric_test, predictions = evaluate_network(network, by_hash, task, "test")
    return TrainedDesign(
        candidate=candidate,
        assignment=training.quantized.assignment(levels),
        network=network,
        arrays=tuple(arrays),
        metric_val=metric_val,
        metric_test=metric_test,
        metric_fake_quant_val=fake_quant_val,
        predictions_test=store.put_array(predictions),
        size_bytes=size_bytes(network),
        epochs=tuple(training.records),
        seconds=checkpoint.seconds,
    )


class _Training:
    """The two phases; ``records`` grows as they run."""

    def __init__(
        self,
        candidate: Candidate,
        workload: Workload,
        build_model: Callable[[], nn.Module],
        task: Task,
        baseline: TrainedBaseline,
        store: Store,
        progress: Progress | None,
        checkpoint: Checkpoint,
        cost_of: Callable[[Assignment], float] | None,
    ) -> None:
        self._cost_of = cost_of
        self.candidate, self.task, self._progress, self._checkpoint = candidate, task, progress, checkpoint
        self.records = [EpochRecord.model_validate(record) for record in checkpoint.notes.get("records", [])]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(candidate.seed)
            model = build_model()
        load_state(model, baseline, store)
        self._teacher = None
        if task.n_classes is not None:
            self._teacher = Teacher(outputs_of(model, task.train.inputs))
        self.quantized: QuantizedModel = quantize_model(model, workload, candidate)
        self.quantized.calibrate(torch.tensor(task.train.inputs[:CALIBRATION_EXAMPLES]))

    def noise(self) -> Levels:
        """Phase 1: learn the levels (or take those that need no learning) under noise."""
        quantized, problem = self.quantized, self.quantized.problem
        allocator = registry.load("allocator", self.candidate.allocator)()
        learn = allocator.learned and len(problem.palette.levels) > 1 and bool(problem.classes)
        soft = SoftAssignment(quantized) if learn else None
        levels = self._kept_levels()
        if soft is None:
            levels = levels or self._given_levels(allocator)
            self._keep_levels(levels)
            quantized.harden(levels)
        quantized.set_phase("noise")
        first, epochs = self.candidate.schedule.baseline_epochs, self.candidate.schedule.noise_epochs
        if self._checkpoint.is_past(first):
            return levels
        self._run("noise", first, epochs, soft)
        if soft is not None:
            levels = self._within_budget(allocator, soft.logits())
        self._keep_levels(levels)  # again, now with the epochs of this phase
        return levels

    def _keep_levels(self, levels: Levels) -> None:
        notes = self._checkpoint.notes
        notes["levels"], notes["records"] = levels, [record.to_json_value() for record in self.records]

    def _kept_levels(self) -> Levels:
        return {name: tuple(of_class) for name, of_class in self._checkpoint.notes.get("levels", {}).items()}

    def _given_levels(self, allocator: Base) -> Levels:
        problem = self.quantized.problem
        if len(problem.palette.levels) == 1 or not problem.classes:
            return {c.name: (0,) * c.channels for c in problem.classes}
        logits = allocator.measure(Probe(self.quantized, self.task)) if allocator.measured else None
        return self._within_budget(allocator, logits)

    def _within_budget(self, allocator: Base, logits: Logits | None) -> Levels:
        problem, cost_of = self.quantized.problem, self._cost_of
        if problem.costs is None or cost_of is None:
            return allocator.allocate(problem, logits)
        return spend(
            problem,
            lambda moved: allocator.allocate(moved, logits),
            lambda levels: cost_of(self.quantized.assignment(levels)),
        )

    def finetune(self, levels: Levels) -> float:
        """Phase 2: train under rounding at fixed levels; gives the validation metric of the fake-quantized model."""
        self.quantized.harden(levels)
        self.quantized.set_phase("finetune")
        schedule = self.candidate.schedule
        self._run("finetune", schedule.baseline_epochs + schedule.noise_epochs, schedule.finetune_epochs, None)
        metric = metric_of(self.quantized.model, self.task, "val")
        self.records[-1] = self.records[-1].model_copy(update={"metric_val": metric})
        return metric

    def _run(self, name: PhaseName, first_epoch: int, epochs: int, soft: SoftAssignment | None) -> None:
        schedule = self.candidate.schedule
        total = schedule.noise_epochs + schedule.finetune_epochs

        def report(epoch: int) -> None:
            done = epoch - schedule.baseline_epochs + 1
            if self._progress is not None:
                self._progress(f"{self.candidate.name} {name} epoch {done} of {total}", done / total)

        phase = Phase(
            name=name,
            epochs=epochs,
            first_epoch=first_epoch,
            seed=self.candidate.seed,
            batch_size=schedule.batch_size,
            report=report,
            teacher=self._teacher,
            before_step=soft.before_step if soft else None,
            after_backward=soft.after_backward if soft else None,
            velocity=soft.velocity if soft else {},
            keys=self.quantized.keys,
        )
        optimizer = optimizer_for(self.quantized.model_parameters(), schedule.learning_rate, self.quantized.log_steps())
        self.records += run_phase(self.quantized.model, self.task, phase, optimizer, self._checkpoint)


def _check(candidate: Candidate, task: Task, baseline: TrainedBaseline) -> None:
    """The baseline is of this model, data and seed, and the data are those that the candidate names."""
    if task.data_sha256 != candidate.data_sha256:
        raise UserError(
            f"data {task.name}: expected content {candidate.data_sha256[:12]} as the candidate says, "
            f"got {task.data_sha256[:12]}"
        )
    for field in ("model", "data_sha256", "seed"):
        if getattr(baseline, field) != getattr(candidate, field):
            raise UserError(
                f"baseline of {candidate.name}: expected {field} {getattr(candidate, field)!r}, "
                f"got {getattr(baseline, field)!r}"
            )
