"""Networks that misbehave while designs with 4-bit weights are trained, and only then: ``wild_net:raises`` ..."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize

CALLS_BEFORE = 1
LEAK_MIB = 800
_held: list[torch.Tensor] = []


class Wild(nn.Conv2d):
    """A convolution that does what ``act`` does to its output once it has been called a few times."""

    act: Callable[[torch.Tensor], torch.Tensor]
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if parametrize.is_parametrized(self) and self.training:
            widest = max(level.weight_bits for level in self.parametrizations.weight[0].mixture.palette.levels)
            self.calls += 1
            if widest == 4 and self.calls > CALLS_BEFORE:
                return self.act(y)
        return y


def _raise(y: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no more of this")


def _hang(y: torch.Tensor) -> torch.Tensor:
    time.sleep(3600)
    return y


def _leak(y: torch.Tensor) -> torch.Tensor:
    _held.append(torch.ones(LEAK_MIB * 2**18))
    time.sleep(0.5)
    return y


def _network(act: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    wild = Wild(16, 32, 3, stride=2, padding=1, bias=False)
    wild.act = act
    layers = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), wild, nn.BatchNorm2d(32)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(32 * 9, 4))


def raises() -> nn.Module:
    return _network(_raise)


def hangs() -> nn.Module:
    return _network(_hang)


def gives_nan() -> nn.Module:
    return _network(lambda y: y * float("nan"))


def leaks() -> nn.Module:
    return _network(_leak)
