"""What stands beside our designs in the accuracy benchmark, from the same warm start, with the same teacher and epochs.

Brevitas at equal bits, and the FP32 network itself.
"""

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


def train_peer(model: str, level_name: str, task: Task, baseline: TrainedBaseline, store: Store, device: str) -> Row:
    """The network of ``baseline`` in Brevitas's layers, trained for as many epochs as a design."""
    level = Level.parse(level_name)
    return {**_trained(model, level, task, baseline, store, device), "bits": float(level.weight_bits), "bytes": None}


def train_control(model: str, task: Task, baseline: TrainedBaseline, store: Store, device: str) -> Row:
    """The network of ``baseline`` in FP32, taught and trained as a design is."""
    return {**_trained(model, None, task, baseline, store, device), "bits": 32.0, "bytes": baseline.size_bytes}


def _trained(model: str, level: Level | None, task: Task, baseline: TrainedBaseline, store: Store, device: str) -> Row:
    begin, schedule = time.perf_counter(), baseline.schedule
    epochs = schedule.noise_epochs + schedule.finetune_epochs
    with deterministic(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(baseline.seed)
        network = seeded_build(model, baseline.seed)
        load_state(network, baseline, store)
        network.to(device)
        teacher = Teacher(outputs_of(network, task.train.inputs)) if task.n_classes is not None else None
        if level is not None:
            state = network.state_dict()
            network = in_brevitas(network, level)
            network.load_state_dict(state, strict=False)
            network.to(device)
        phase = Phase(
            "finetune", epochs, schedule.baseline_epochs, baseline.seed, schedule.batch_size, lambda _: None, teacher
        )
        run_phase(network, task, phase, optimizer_for(list(network.parameters()), schedule.learning_rate, []))
        val, test = metric_of(network, task, "val"), metric_of(network, task, "test")
    return {"val": val, "test": test, "bits of all weights": None, "seconds": time.perf_counter() - begin}


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
