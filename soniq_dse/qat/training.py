"""The training loop of every phase: deterministic for a seed, whatever else the machine does."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from soniq_dse.errors import UserError
from soniq_dse.qat.checkpoint import Checkpoint, Moving
from soniq_dse.records.design import EpochRecord
from soniq_dse.workloads.task import Task, shuffled

if TYPE_CHECKING:
    from soniq_dse.qat.fake_quant import NoiseKeys

EVALUATION_BATCH = 256
WEIGHT_DECAY = 1e-4
STEP_LEARNING_RATE = 5e-3
"""Adam's rate for the logarithms of the quantizers' steps."""

PhaseName = Literal["baseline", "noise", "finetune"]
Progress = Callable[[str, float], None]
"""Called with what is being done and the share of the whole training that is done."""


@contextlib.contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Fixed threads and deterministic algorithms while the block runs; what was set before comes back after it."""
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a pass over every new tensor
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.utils.deterministic.fill_uninitialized_memory = before[2]


@dataclass(frozen=True)
class Teacher:
    """Logits of the FP32 warm start on the training split, ``[n, classes]``, and how much they count.

    The loss is ``(1 - weight) * task loss + weight * T**2 * KL(teacher || student)`` at temperature T.
    Source: Hinton et al., arXiv 1503.02531. Where batches are augmented, ``network`` gives their logits: a teacher
    must see what its student sees (Beyer et al., arXiv 2106.05237).
    """

    logits: Tensor
    weight: float = 0.5
    temperature: float = 2.0
    network: nn.Module | None = None

    def loss(self, outputs: Tensor, inputs: Tensor, rows: Tensor, task_loss: Tensor) -> Tensor:
        """The mixed loss of a batch whose examples are ``rows`` of the training split, ``inputs`` what is shown."""
        if self.network is None:
            logits = self.logits[rows]
        else:
            with torch.no_grad():
                logits = self.network(inputs)
        scaled = logits / self.temperature
        student = nn.functional.log_softmax(outputs / self.temperature, dim=1)
        divergence = nn.functional.kl_div(student, scaled.log_softmax(dim=1), reduction="batchmean", log_target=True)
        return (1 - self.weight) * task_loss + self.weight * self.temperature**2 * divergence


@dataclass(frozen=True)
class Phase:
    """One phase of training; ``first_epoch`` counts all epochs of this seed, so that no order of data comes twice."""

    name: PhaseName
    epochs: int
    first_epoch: int
    seed: int
    batch_size: int
    report: Callable[[int], None]
    teacher: Teacher | None = None
    before_step: Callable[[float], None] | None = None
    """Called before each step with the share of the phase that is done."""
    after_backward: Callable[[], None] | None = None
    after_step: Callable[[], None] | None = None
    moved: dict[str, Tensor] = field(default_factory=dict)
    """What the two move, in place."""
    augment: Callable[[Tensor], Tensor] | None = None
    """Inputs of a batch -> what the network is shown."""
    keys: NoiseKeys | None = None


def optimizer_for(
    model_parameters: list[nn.Parameter], learning_rate: float, steps: list[nn.Parameter]
) -> torch.optim.Optimizer:
    """AdamW over ``parameter_groups``."""
    groups = parameter_groups(model_parameters, learning_rate, steps)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, fused=True)
    return optimizer


def parameter_groups(
    model_parameters: list[nn.Parameter],
    learning_rate: float,
    steps: list[nn.Parameter],
    step_learning_rate: float = STEP_LEARNING_RATE,
    weight_decay: float = WEIGHT_DECAY,
) -> list[dict[str, Any]]:
    """Weight decay on tensors of at least two axes; the quantizers' log steps at their own rate. No empty group."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model_parameters if p.ndim > 1], "lr": learning_rate, "weight_decay": weight_decay},
        {"params": [p for p in model_parameters if p.ndim <= 1], "lr": learning_rate, "weight_decay": 0.0},
        {"params": steps, "lr": step_learning_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def run_phase(
    model: nn.Module, task: Task, phase: Phase, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint | None = None
) -> list[EpochRecord]:
    """Train ``model`` in place, from where ``checkpoint`` stands; the learning rates fall to 0 along a cosine.

    What torch's generator gives inside (dropout) depends on the seed and the phase alone.

    Raises:
        UserError: the loss is no longer finite.
    """
    checkpoint = checkpoint or Checkpoint()
    device = device_of(model)
    inputs, targets = (torch.tensor(array).to(device) for array in (task.train.inputs, task.train.targets))
    batch = min(phase.batch_size, len(inputs))
    per_epoch = len(inputs) // batch
    top_rates = [group["lr"] for group in optimizer.param_groups]
    moving = Moving(model, optimizer, phase.moved, phase.keys)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(phase.seed * 1_000_003 + phase.first_epoch)
        at = checkpoint.resume(phase.first_epoch, moving)
        for epoch in range(at.epoch, phase.epochs):
            order = torch.from_numpy(shuffled(len(inputs), phase.seed, phase.first_epoch + epoch))
            for index in range(at.batch, per_epoch):
                done = (epoch + index / per_epoch) / phase.epochs
                for group, rate in zip(optimizer.param_groups, top_rates, strict=True):
                    group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * done))
                rows = order[index * batch : (index + 1) * batch].to(device)
                at.loss_sum += _step(model, task, phase, optimizer, rows, inputs, targets, done)
                at.epoch, at.batch = epoch, index + 1
                checkpoint.keep(phase.first_epoch, at, moving)
            at.records.append(_epoch_record(phase, epoch, at.loss_sum / per_epoch))
            at.batch, at.loss_sum = 0, 0.0
            phase.report(phase.first_epoch + epoch)
    return at.records


def _epoch_record(phase: Phase, epoch: int, loss: float) -> EpochRecord:
    if not math.isfinite(loss):
        raise UserError(
            f"training ({phase.name}, epoch {epoch + 1}): expected a finite loss, got {loss}; "
            "a lower learning rate may help"
        )
    return EpochRecord(phase=phase.name, epoch=phase.first_epoch + epoch, loss=loss)


def _step(
    model: nn.Module,
    task: Task,
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    rows: Tensor,
    inputs: Tensor,
    targets: Tensor,
    done: float,
) -> float:
    if phase.before_step is not None:
        phase.before_step(done)
    shown = inputs[rows] if phase.augment is None else phase.augment(inputs[rows])
    outputs = model(shown)
    loss = task.loss(outputs, targets[rows])
    if phase.teacher is not None:
        loss = phase.teacher.loss(outputs, shown, rows, loss)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if phase.after_backward is not None:
        phase.after_backward()
    optimizer.step()
    if phase.after_step is not None:
        phase.after_step()
    return float(loss.detach())


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of ``model`` lie; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def outputs_of(model: nn.Module, inputs: np.ndarray) -> Tensor:
    """Outputs in evaluation mode, without a gradient, for ``inputs [n, ...]``; the mode before comes back."""
    was_training, device = model.training, device_of(model)
    model.eval()
    with torch.no_grad():
        batches = [
            model(torch.tensor(inputs[at : at + EVALUATION_BATCH]).to(device))
            for at in range(0, len(inputs), EVALUATION_BATCH)
        ]
    model.train(was_training)
    return torch.cat(batches)


def metric_of(model: nn.Module, task: Task, split: Literal["train", "val", "test"]) -> float:
    """The task's metric of ``model`` on a split."""
    return task.metric.of(lambda x: outputs_of(model, x).cpu().numpy(), task.split(split), EVALUATION_BATCH)
