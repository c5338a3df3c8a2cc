"""What an allocator may measure of the FP32 network before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from soniq_dse.qat.apply import QuantizedModel
from soniq_dse.qat.fake_quant import ActivationQuantizer, WeightQuantizer
from soniq_dse.qat.problem import Logits, Problem
from soniq_dse.qat.training import device_of
from soniq_dse.workloads.task import Task

BATCH = 64


@dataclass(frozen=True)
class ReadWeight:
    """A layer's weight with its quantizer and the class of what it reads."""

    tensor_class: str
    quantizer: WeightQuantizer
    weight: nn.Parameter


class Probe:
    """The calibrated model in evaluation mode, its quantizers letting everything pass unless told otherwise."""

    def __init__(self, quantized: QuantizedModel, task: Task) -> None:
        self.problem: Problem = quantized.problem
        self._quantized, self._task = quantized, task
        names = {mixture: name for name, mixture in quantized.mixtures.items()}
        unpinned = {c.name for c in self.problem.classes}
        of_node = {node.name: node.module for node in quantized.workload.nodes}
        self._device = device_of(quantized.model)
        self.weights = [
            ReadWeight(
                names[quantizer.mixture],
                quantizer,
                quantized.model.get_submodule(of_node[node]).parametrizations.weight.original,
            )
            for node, quantizer in quantized.weights.items()
            if names.get(quantizer.mixture) in unpinned
        ]
        self.activations = [
            (names[quantizer.mixture], quantizer)
            for quantizer in quantized.activations.values()
            if names[quantizer.mixture] in unpinned
        ]

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Evaluation mode in floating point inside; training mode and noise after."""
        self._quantized.set_phase("float")
        self._quantized.model.eval()
        try:
            yield
        finally:
            self._quantized.model.zero_grad(set_to_none=True)
            self._quantized.model.train()
            self._quantized.set_phase("noise")

    def batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """``count`` batches of training examples (fewer where there are no more), the same ones every time."""
        batches = islice(self._task.batches("train", BATCH, seed=self.problem.seed), count)
        return ((inputs.to(self._device), targets.to(self._device)) for inputs, targets in batches)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The task's mean loss of a batch."""
        return self._task.loss(self._quantized.model(inputs), targets)

    @contextmanager
    def rounded(self, tensor_class: str, level: int) -> Iterator[None]:
        """One class at one level inside, weights and activations, all else in floating point."""
        mixture = self._quantized.mixtures[tensor_class]
        mixture.harden((level,) * mixture.channels)
        mixture.phase = "finetune"
        try:
            yield
        finally:
            mixture.phase = "float"

    @contextmanager
    def watching(self, seen: Callable[[str, ActivationQuantizer, Tensor], None]) -> Iterator[None]:
        """Calls ``seen(class, quantizer, tensor)`` for every tensor that is read inside, once each a forward pass."""
        handles = [
            quantizer.register_forward_pre_hook(lambda q, inputs, name=name: seen(name, q, inputs[0]))
            for name, quantizer in self.activations
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def logits(self, of_channel: dict[str, Tensor]) -> Logits:
        """Added losses ``[channels, levels]`` of every class, as preferences."""
        return {name: -added.double().cpu().numpy() for name, added in of_channel.items()}

    def nothing(self) -> dict[str, Tensor]:
        """Zeros ``[channels, levels]`` in float64 for every class."""
        n_levels = len(self.problem.palette.levels)
        return {
            c.name: torch.zeros(c.channels, n_levels, dtype=torch.float64, device=self._device)
            for c in self.problem.classes
        }

    def signs(self, index: int) -> list[Tensor]:
        """Random signs of the weights' shapes, for draw ``index``."""
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([self.problem.seed, index]).generate_state(1)[0])
        )
        return [
            torch.randint(0, 2, w.weight.shape, generator=generator).to(w.weight).mul_(2).sub_(1) for w in self.weights
        ]
