"""The FP32 network: the warm start of every design, and the reference at equal epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from soniq_dse.qat.augment import augment
from soniq_dse.qat.checkpoint import Checkpoint
from soniq_dse.qat.training import Phase, Progress, deterministic, metric_of, optimizer_for, run_phase
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.design import EpochRecord, Schedule, TrainedBaseline
from soniq_dse.workloads.loading import load_model
from soniq_dse.workloads.task import Task

if TYPE_CHECKING:
    from soniq_dse.store import Store


def train_baseline(
    model: str,
    task: Task,
    schedule: Schedule,
    seed: int,
    store: Store,
    *,
    progress: Progress | None = None,
    torch_threads: int = 1,
    checkpoint: Checkpoint | None = None,
    device: str = "cpu",
) -> TrainedBaseline:
    """Train the FP32 network called ``model`` on ``task``.

    The warm start has ``baseline_epochs`` and is kept in ``store``; the reference metrics are those of the same run
    continued for as many epochs as a design has beyond it, with the learning rate restarted, as a design's is.
    With a ``checkpoint`` a training that was killed goes on, to the same bits.

    Raises:
        UserError: no such model, or training diverged.
    """
    checkpoint = checkpoint or Checkpoint()
    with deterministic(torch_threads):
        network = seeded_build(model, seed).to(device)
        warm, more = schedule.baseline_epochs, schedule.noise_epochs + schedule.finetune_epochs
        shown = augment(schedule.augment, torch.tensor(task.train.inputs))

        def report(epoch: int) -> None:
            if progress is not None:
                progress(f"FP32 epoch {epoch + 1} of {warm + more}", (epoch + 1) / (warm + more))

        records = [EpochRecord.model_validate(record) for record in checkpoint.notes.get("records", [])]
        state = tuple((name, ArrayRef.model_validate(ref)) for name, ref in checkpoint.notes.get("warm", []))
        for first, epochs in ((0, warm), (warm, more)):
            if checkpoint.is_past(first):
                continue
            if first and not state:
                state = tuple((name, _put(store, value)) for name, value in network.state_dict().items())
                checkpoint.notes["records"] = [record.to_json_value() for record in records]
                checkpoint.notes["warm"] = [(name, ref.to_json_value()) for name, ref in state]
            phase = Phase("baseline", epochs, first, seed, schedule.batch_size, report, augment=shown)
            optimizer = optimizer_for(list(network.parameters()), schedule.learning_rate, [])
            records += run_phase(network, task, phase, optimizer, checkpoint)
            records[-1] = records[-1].model_copy(update={"metric_val": metric_of(network, task, "val")})
        return TrainedBaseline(
            model=model,
            data=task.name,
            data_sha256=task.data_sha256,
            seed=seed,
            schedule=schedule,
            metric_val=metric_of(network, task, "val"),
            metric_test=metric_of(network, task, "test"),
            state=state,
            size_bytes=sum(ref.size_bytes for _, ref in state),
            epochs=tuple(records),
            seconds=checkpoint.seconds,
        )


def seeded_build(model: str, seed: int) -> nn.Module:
    """The model with first weights drawn for ``seed``; torch's global generator is left as it was."""
    build, _ = load_model(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def load_state(network: nn.Module, baseline: TrainedBaseline, store: Store) -> None:
    """Give ``network`` the warm start's weights."""
    network.load_state_dict({name: torch.tensor(store.get_array(ref)) for name, ref in baseline.state})


def _put(store: Store, value: Tensor) -> ArrayRef:
    return store.put_array(np.asarray(value.detach().cpu().numpy()))
