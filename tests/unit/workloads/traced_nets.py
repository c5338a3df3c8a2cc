"""Models as they are traced, and what their tests ask of the trace."""

from __future__ import annotations

import torch
from torch import nn

from soniq_dse.records.workload import TensorClass, Workload
from soniq_dse.workloads.trace import trace


def traced(model: nn.Module, *shape: int, nonnegative: bool = True) -> Workload:
    return trace(model, torch.zeros(shape), name="toy", input_nonnegative=nonnegative)


def read_by(workload: Workload, consumer: str) -> TensorClass:
    (found,) = [c for c in workload.tensor_classes if consumer in c.consumers]
    return found


def reasons(workload: Workload) -> dict[str, str]:
    return {part.node: part.reason for part in workload.unsupported}


def conv(i: int, o: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1, **options)


class Function(nn.Module):
    """A forward pass given as a function of (module, x), over the modules that it names."""

    def __init__(self, function: object, **modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self._function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._function(self, x)
