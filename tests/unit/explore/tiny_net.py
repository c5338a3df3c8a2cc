"""A network and data small enough to be trained in a test; named to the program as ``tiny_net:build`` and ``:task``."""

from __future__ import annotations

import numpy as np
from torch import nn

from soniq_dse.workloads.task import Split, Task


def build() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 9, 4),
    )


def task() -> Task:
    """Four blurred prototypes under noise."""
    rng = np.random.default_rng(7)
    prototypes = rng.random((4, 1, 6, 6), dtype=np.float32)

    def split(n: int) -> Split:
        targets = np.arange(n, dtype=np.int64) % 4
        noise = rng.normal(0, 0.3, (n, 1, 6, 6)).astype(np.float32)
        return Split(np.clip(prototypes[targets] + noise, 0, 1), targets)

    return Task("tiny", split(128), split(64), split(64), n_classes=4)


def broken() -> nn.Module:
    raise RuntimeError("no model today")


def leaving() -> nn.Module:
    raise SystemExit(4)


def with_silu() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 32), nn.SiLU(), nn.Linear(32, 4))


def one_output() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
