"""A running average of a network's state, which often serves better than its last one."""

from __future__ import annotations

import torch
from torch import nn


class Average:
    """Exponential moving average of all that is floating point in ``model``'s state; ``tensors`` hold it.

    Source: Polyak and Juditsky 1992; in low-bit training it calms weights that oscillate between two codes
    (Nagel et al., arXiv 2203.11086).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.tensors = {name: value.clone() for name, value in self._state().items()}

    def update(self) -> None:
        """After a step: ``average = decay * average + (1 - decay) * now``."""
        with torch.no_grad():
            for name, value in self._state().items():
                self.tensors[name].lerp_(value, 1 - self._decay)

    def apply(self) -> None:
        """Give the model its average."""
        with torch.no_grad():
            for name, value in self._state().items():
                value.copy_(self.tensors[name])

    def _state(self) -> dict[str, torch.Tensor]:
        state = self._model.state_dict()  # shares its memory with the model
        return {name: value for name, value in state.items() if value.is_floating_point()}
