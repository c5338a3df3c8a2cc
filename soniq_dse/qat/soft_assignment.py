"""SONIQ's phase 1: temperature-annealed soft levels of every channel, on the budget at every step.

``pi_c = softmax((a_c - nu b) / tau)`` with nu solved so that the expected cost meets the budget exactly (no gradient
through nu) and tau falling from 1 to 0.1 geometrically. The logits a start at 0 and follow a momentum gradient,
normalised by one root mean square over all of them. Source: SONIQ, arXiv 2311.14114; the normalisation is ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from soniq_dse.qat.apply import QuantizedModel
from soniq_dse.qat.budget import solve_multiplier

FIRST_TEMPERATURE = 1.0
LAST_TEMPERATURE = 0.1
LEARNING_RATE = 0.05
MOMENTUM = 0.95
TINY = 1e-20


class SoftAssignment:
    """Drives the mixtures of a model's unpinned classes through phase 1."""

    def __init__(self, quantized: QuantizedModel) -> None:
        self._problem = quantized.problem
        self._mixtures = {c.name: quantized.mixtures[c.name] for c in self._problem.classes}
        self._logits = {name: m.logits for name, m in self._mixtures.items() if m.logits is not None}
        sizes = self._problem.classes
        self._costs = {c.name: np.asarray(self._problem.costs_per_weight(c)) for c in sizes}
        rows = [np.tile(self._costs[c.name], (c.channels, 1)) for c in sizes]
        self._every_cost = np.concatenate(rows or [np.zeros((0, len(self._problem.palette.levels)))])
        self._weights = np.concatenate([np.full(c.channels, c.weights_per_channel) for c in sizes] or [np.zeros(0)])
        self.velocity = {name: torch.zeros_like(m.logits) for name, m in self._mixtures.items() if m.logits is not None}
        self._nu = 0.0
        self._temperature = FIRST_TEMPERATURE

    def before_step(self, done: float) -> None:
        """Set every class's shares for a step at the share ``done`` of the phase."""
        if not self._logits:
            return
        self._temperature = FIRST_TEMPERATURE * (LAST_TEMPERATURE / FIRST_TEMPERATURE) ** done
        if self._problem.limit is not None:
            every, target = np.concatenate(list(self.logits().values())), self._problem.limit / self._weights.sum()
            self._nu = solve_multiplier(every, self._every_cost, self._weights, target, self._temperature)
        for name, logits in self._logits.items():
            penalty = torch.from_numpy((self._nu * self._costs[name]).astype(np.float32))
            self._mixtures[name].shares = ((logits - penalty.to(logits.device)) / self._temperature).softmax(dim=1)

    def after_backward(self) -> None:
        """Move the logits along their gradient."""
        gradients = {name: logits.grad for name, logits in self._logits.items()}
        if not gradients:
            return
        if self._problem.whole:  # one preference of all channels
            gradients = {name: gradient.mean(dim=0, keepdim=True) for name, gradient in gradients.items()}
        count = sum(gradient.numel() for gradient in gradients.values())
        square = sum(float(gradient.square().sum()) for gradient in gradients.values())
        scale = 1 / max((square / count) ** 0.5, TINY)
        with torch.no_grad():
            for name, gradient in gradients.items():
                velocity = self.velocity[name].mul_(MOMENTUM).add_(gradient, alpha=scale)
                self._logits[name].sub_(velocity, alpha=LEARNING_RATE)
                self._logits[name].grad = None

    def logits(self) -> dict[str, npt.NDArray[np.float64]]:
        """Preferences of every class: ``[channels, levels]``."""
        return {name: logits.detach().double().cpu().numpy() for name, logits in self._logits.items()}

    def expected_cost(self) -> float:
        """What the present shares expect per weight, in the unit of the problem's limit."""
        shares = [m.shares.detach().double().cpu().numpy() for m in self._mixtures.values() if m.shares is not None]
        return float((np.concatenate(shares) * self._every_cost).sum(axis=1) @ self._weights / self._weights.sum())
