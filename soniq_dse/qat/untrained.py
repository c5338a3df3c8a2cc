"""The integer network of a model as it is made, at a given assignment: no data, no training; to be timed, not used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from soniq_dse.qat.apply import QuantizedModel, quantize_model
from soniq_dse.qat.deploy import deploy
from soniq_dse.qat.deploy_tokens import n_tokens_of
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.design import Assignment, Candidate, Schedule
from soniq_dse.records.network import IntegerNetwork
from soniq_dse.records.workload import Workload
from soniq_dse.store import array_sha256

Array = npt.NDArray[Any]
CALIBRATION_EXAMPLES = 8


def untrained_network(
    build: Callable[[], nn.Module], workload: Workload, assignment: Assignment, *, seed: int = 0
) -> tuple[IntegerNetwork, dict[str, Array]]:
    """The network and its arrays by hash; steps are set on normal inputs, or on any tokens.

    Raises:
        UserError: the network has an operator without an integer form.
    """
    candidate = Candidate(
        model=workload.name,
        data="random",
        data_sha256="",
        palette=assignment.palette,
        seed=seed,
        schedule=Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        quantized = quantize_model(build(), workload, candidate)
        quantized.calibrate(_examples(quantized))
    free = {c.name for c in quantized.problem.classes}
    quantized.harden({name: levels for name, levels in assignment.level_of_channel.items() if name in free})
    quantized.set_phase("finetune")
    quantized.model.eval()
    arrays: dict[str, Array] = {}

    def put(array: Array) -> ArrayRef:
        ref = ArrayRef(sha256=array_sha256(array), shape=array.shape, dtype=str(array.dtype))
        arrays[ref.sha256] = array
        return ref

    return deploy(quantized, put), arrays


def _examples(quantized: QuantizedModel) -> torch.Tensor:
    shape = (CALIBRATION_EXAMPLES, *quantized.workload.input_shape[1:])
    n_tokens = n_tokens_of(quantized.model, quantized.workload)
    return torch.randn(shape) if n_tokens is None else torch.randint(n_tokens, shape)
