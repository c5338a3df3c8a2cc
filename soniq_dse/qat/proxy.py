"""What a design is worth before it is trained: the metric of its FP32 warm start, rounded as the design would be.

A forward pass over some training examples sets steps and re-estimates the running statistics of normalisation layers
(Nagel et al., "A white paper on neural network quantization", 2021, section 3); nothing is learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from soniq_dse import registry
from soniq_dse.qat.apply import quantize_model
from soniq_dse.qat.baseline import load_state
from soniq_dse.qat.training import deterministic, metric_of
from soniq_dse.records.design import Candidate, RoundedStart, TrainedBaseline
from soniq_dse.records.workload import Workload
from soniq_dse.workloads.task import Task

if TYPE_CHECKING:
    from soniq_dse.store import Store

EXAMPLES = 256


def rounded_start(
    candidate: Candidate,
    workload: Workload,
    build_model: Callable[[], nn.Module],
    task: Task,
    baseline: TrainedBaseline,
    store: Store,
) -> RoundedStart:
    """The validation metric of ``baseline`` at the levels of ``candidate``, shared evenly over all classes.

    Raises:
        UserError: the candidate does not fit the model.
    """
    with deterministic(candidate.torch_threads):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(candidate.seed)
            model = build_model()
        load_state(model, baseline, store)
        quantized = quantize_model(model, workload, candidate)
        inputs = torch.tensor(task.train.inputs[:EXAMPLES])
        quantized.calibrate(inputs)
        levels = registry.load("allocator", "uniform")().allocate(quantized.problem, None)
        quantized.harden(levels)
        quantized.set_phase("finetune")
        _renormalise(model, inputs)
        return RoundedStart(metric_val=metric_of(model, task, "val"), assignment=quantized.assignment(levels))


def _renormalise(model: nn.Module, inputs: torch.Tensor) -> None:
    """Running statistics of normalisation layers become those of ``inputs``."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    model.train()
    with torch.no_grad():
        model(inputs)
    model.eval()
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
