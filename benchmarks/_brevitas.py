"""The peer of the accuracy benchmark: Brevitas at equal bits, epochs, optimizer, warm start and teacher."""

from __future__ import annotations

import time

import torch
from torch import nn

from benchmarks._frame import Row
from soniq_dse.qat.baseline import load_state, seeded_build
from soniq_dse.qat.training import Phase, Teacher, deterministic, metric_of, optimizer_for, outputs_of, run_phase
from soniq_dse.records.design import TrainedBaseline
from soniq_dse.records.palette import Level
from soniq_dse.store import Store
from soniq_dse.workloads.task import Task

EDGE_BITS = 8
"""Of the first and the last layer, as ours."""


def train_peer(model: str, level_name: str, task: Task, baseline: TrainedBaseline, store: Store) -> Row:
    """The network of ``baseline`` in Brevitas's layers, trained for as many epochs as a design."""
    begin, schedule = time.perf_counter(), baseline.schedule
    epochs = schedule.noise_epochs + schedule.finetune_epochs
    with deterministic(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(baseline.seed)
        network = seeded_build(model, baseline.seed)
        load_state(network, baseline, store)
        teacher = Teacher(outputs_of(network, task.train.inputs)) if task.n_classes is not None else None
        state = network.state_dict()
        twin = in_brevitas(network, Level.parse(level_name))
        twin.load_state_dict(state, strict=False)
        phase = Phase(
            "finetune", epochs, schedule.baseline_epochs, baseline.seed, schedule.batch_size, lambda _: None, teacher
        )
        run_phase(twin, task, phase, optimizer_for(list(twin.parameters()), schedule.learning_rate, []))
        val, test = metric_of(twin, task, "val"), metric_of(twin, task, "test")
    bits = float(Level.parse(level_name).weight_bits)
    return {
        "val": val, "test": test, "bits": bits, "bits of all weights": None, "bytes": None,
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def in_brevitas(model: nn.Module, level: Level) -> nn.Module:
    """``model`` with Brevitas's convolutions, ReLUs and linear layers in place of torch's, in place."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    _replace(model, level, convolutions[0])
    return model


def _replace(model: nn.Module, level: Level, first: nn.Conv2d) -> None:
    import brevitas.nn as qnn

    for name, child in model.named_children():
        if isinstance(child, nn.Conv2d):
            bits = EDGE_BITS if child is first else level.weight_bits
            made = qnn.QuantConv2d(
                child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding,
                groups=child.groups, bias=child.bias is not None, weight_bit_width=bits,
            )  # fmt: skip
        elif isinstance(child, nn.ReLU):
            made = qnn.QuantReLU(bit_width=level.activation_bits)
        elif isinstance(child, nn.Linear):
            made = qnn.QuantLinear(child.in_features, child.out_features, bias=True, weight_bit_width=EDGE_BITS)
        else:
            _replace(child, level, first)
            continue
        setattr(model, name, made)
