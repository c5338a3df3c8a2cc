"""A control that learns nothing: one pass over calibration data ranks the channels."""

from __future__ import annotations

import torch
from torch import Tensor

from soniq_dse.qat.allocators import Base, Levels, Logits, Problem
from soniq_dse.qat.allocators.hardening import harden
from soniq_dse.qat.fake_quant import ActivationQuantizer
from soniq_dse.qat.sensitivity import BATCH, Probe

N_BATCHES = 8


class Fisher(Base):
    """Expected loss by the diagonal of the empirical Fisher information, of weights and activations alike.

    Rounding adds an error d to each number x, and 1/2 sum E[(dL/dx)^2] d^2 to the loss. For weights E[(dL/dx)^2] is the
    squared gradient of a batch's mean times its size, as good as that of single examples where their mean is near zero.
    Source: the use of Fisher information is Theis et al., arXiv 1801.05787; that of Hessians in its place, HAWQ.
    """

    learned = False
    measured = True

    def measure(self, probe: Probe) -> Logits:
        """See ``Base.measure``: one forward and backward pass per batch."""
        added = probe.nothing()
        kept: dict[ActivationQuantizer, tuple[str, Tensor]] = {}

        def keep(name: str, quantizer: ActivationQuantizer, values: Tensor) -> None:
            if quantizer not in kept:
                values.retain_grad()
                kept[quantizer] = (name, values)

        n_batches = 0
        with probe.passing(), probe.watching(keep):
            for inputs, targets in probe.batches(N_BATCHES):
                kept.clear()
                n_batches += 1
                loss = probe.loss(inputs, targets)
                gradients = torch.autograd.grad(
                    loss, [w.weight for w in probe.weights] + [values for _, values in kept.values()]
                )
                with torch.no_grad():
                    self._add(probe, kept, gradients, added)
        return probe.logits({name: total / n_batches for name, total in added.items()})

    def allocate(self, problem: Problem, logits: Logits | None) -> Levels:
        """See ``Base.allocate``."""
        if logits is None:
            raise ValueError("logits: expected what measure saw, got None")
        return harden(problem, logits)

    @staticmethod
    def _add(
        probe: Probe,
        kept: dict[ActivationQuantizer, tuple[str, Tensor]],
        gradients: tuple[Tensor, ...],
        added: dict[str, Tensor],
    ) -> None:
        n_weights = len(probe.weights)
        for read, gradient in zip(probe.weights, gradients[:n_weights], strict=True):
            for level, error in enumerate(read.quantizer.errors(read.weight)):
                loss = 0.5 * BATCH * (gradient * error).square_()
                added[read.tensor_class][:, level] += read.quantizer.by_channel(loss)
        for (quantizer, (name, values)), gradient in zip(kept.items(), gradients[n_weights:], strict=True):
            for level, error in enumerate(quantizer.errors(values)):
                # Of a mean over the batch: each example's own gradient is BATCH times this.
                loss = 0.5 * BATCH * (gradient * error).square_()
                added[name][:, level] += quantizer.by_channel(loss)
