"""One candidate, trained: noise (phase 1), levels fixed, fine-tuning under rounding (phase 2), integers, metric.

Source: SONIQ, arXiv 2311.14114. Both phases start from the FP32 warm start, which also teaches them (distillation).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from soniq_dse import registry
from soniq_dse.errors import UserError
from soniq_dse.qat.allocators import Base, Levels
from soniq_dse.qat.apply import QuantizedModel, quantize_model
from soniq_dse.qat.augment import augment
from soniq_dse.qat.average import Average
from soniq_dse.qat.baseline import load_state
from soniq_dse.qat.checkpoint import Checkpoint
from soniq_dse.qat.deploy import deploy, size_bytes
from soniq_dse.qat.evaluate import evaluate_network
from soniq_dse.qat.sensitivity import Probe
from soniq_dse.qat.soft_assignment import SoftAssignment
from soniq_dse.qat.spending import within_budget
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
from soniq_dse.records.design import (
    Assignment,
    Candidate,
    EpochRecord,
    Schedule,
    TrainedBaseline,
    TrainedDesign,
)
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
    device: str = "cpu",
) -> TrainedDesign:
    """Train ``candidate`` from ``baseline`` (of the same seed), and evaluate the integer network it becomes.

    Test data is looked at once, at the end. The same candidate gives the same arrays, bit for bit, on one processor
    type, also where a killed training goes on from its ``checkpoint``. ``device`` is where torch trains; the integers
    are evaluated on the CPU in any case.

    ``cost_of`` says what the network really takes with an assignment, in the unit of ``candidate.costs``; the levels
    are then moved until that is within the budget.

    Raises:
        UserError: the candidate does not fit the model, the data or the baseline, or training diverged.
    """
    checkpoint = checkpoint or Checkpoint()
    _check(candidate, task, baseline)
    with deterministic(candidate.torch_threads):
        training = _Training(
            candidate, workload, build_model, task, baseline, store, progress, checkpoint, cost_of, device
        )
        levels = training.noise()
        fake_quant_val = training.finetune(levels)
        training.quantized.model.cpu()
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
        device: str,
    ) -> None:
        self._cost_of = cost_of
        self.candidate, self.task, self._progress, self._checkpoint = candidate, task, progress, checkpoint
        self.records = [EpochRecord.model_validate(record) for record in checkpoint.notes.get("records", [])]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(candidate.seed)
            model = build_model()
        untrained = copy.deepcopy(model.state_dict())
        load_state(model, baseline, store)
        model.to(device)
        schedule, inputs = candidate.schedule, torch.tensor(task.train.inputs)
        self._augment = augment(schedule.augment, inputs)
        self._teacher = _teacher(model, task, schedule)
        if not schedule.warm_start:
            model.load_state_dict(untrained)
        self.quantized: QuantizedModel = quantize_model(model, workload, candidate)
        model.to(device)  # quantizers are made on the CPU
        self.quantized.calibrate(inputs[:CALIBRATION_EXAMPLES].to(device), measure_noise=schedule.noise == "measured")

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
        self._run("noise", first, epochs, soft=soft)
        if soft is not None:
            levels = within_budget(quantized, allocator, soft.logits(), self._cost_of)
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
        return within_budget(self.quantized, allocator, logits, self._cost_of)

    def finetune(self, levels: Levels) -> float:
        """Phase 2: train under rounding at fixed levels; gives the validation metric of the fake-quantized model."""
        schedule = self.candidate.schedule
        self.quantized.harden(levels)
        self.quantized.set_phase("finetune", clipped=schedule.clipped_gradient)
        first, epochs = schedule.baseline_epochs + schedule.noise_epochs, schedule.finetune_epochs
        average = Average(self.quantized.model, schedule.ema_decay) if schedule.ema_decay else None
        self._run("finetune", first, epochs, average=average)
        if average is not None:
            average.apply()
        metric = metric_of(self.quantized.model, self.task, "val")
        self.records[-1] = self.records[-1].model_copy(update={"metric_val": metric})
        return metric

    def _run(
        self,
        name: PhaseName,
        first_epoch: int,
        epochs: int,
        *,
        soft: SoftAssignment | None = None,
        average: Average | None = None,
    ) -> None:
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
            before_step=partial(self._before_step, soft),
            after_backward=soft.after_backward if soft else None,
            after_step=average.update if average else None,
            moved=soft.velocity if soft else average.tensors if average else {},
            keys=self.quantized.keys,
            augment=self._augment,
        )
        steps = self.quantized.log_steps()
        for step in steps:
            step.requires_grad_(schedule.learned_steps)
        optimizer = optimizer_for(
            self.quantized.model_parameters(), schedule.learning_rate, steps if schedule.learned_steps else []
        )
        self.records += run_phase(self.quantized.model, self.task, phase, optimizer, self._checkpoint)

    def _before_step(self, soft: SoftAssignment | None, done: float) -> None:
        ramp = self.candidate.schedule.noise_ramp
        self.quantized.scale_noise(min(1.0, done / ramp) if ramp else 1.0)
        if soft is not None:
            soft.before_step(done)


def _teacher(model: nn.Module, task: Task, schedule: Schedule) -> Teacher | None:
    """The FP32 network as it is, where it is to teach: its outputs where they stay the same, else its twin."""
    if task.n_classes is None or not schedule.distillation:
        return None
    if schedule.augment == "none":
        return Teacher(outputs_of(model, task.train.inputs), schedule.distillation, schedule.temperature)
    twin = copy.deepcopy(model).eval()
    return Teacher(torch.empty(0), schedule.distillation, schedule.temperature, twin)


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
