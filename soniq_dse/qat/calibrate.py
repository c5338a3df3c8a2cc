"""First values of the quantizers' steps: the least squared error over a row of candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from soniq_dse.formats import Grid

CANDIDATES = torch.logspace(-1.6, 0.05, 48, base=10)
"""Top of the grid as a share of the largest magnitude: from 1/40 (one bit of a long-tailed tensor) to just above it."""

SAMPLE = 2**16
"""Values that a search looks at, evenly spaced over the tensor."""


def best_steps(rows: Tensor, grid: Grid) -> Tensor:
    """The step of each row of ``rows [n_rows, n]`` with the least squared error on ``grid``: fp32 ``[n_rows]``.

    A row of zeros gets a step of 1.
    """
    stride = -(-rows.shape[1] * rows.shape[0] // SAMPLE)
    rows = rows[:, ::stride] if stride > 1 else rows
    peak = rows.abs().amax(dim=1)
    peak = torch.where(peak > 0, peak, torch.full_like(peak, float(grid.magnitude)))
    best = torch.full_like(peak, torch.inf)
    steps = torch.ones_like(peak)
    for share in CANDIDATES.tolist():
        step = peak * (share / grid.magnitude)
        codes = (rows / (grid.multiplier * step)[:, None] + grid.shift).round_().clamp_(grid.lo, grid.hi)
        error = (codes.mul_(grid.multiplier).sub_(grid.offset).mul_(step[:, None]) - rows).square_().mean(dim=1)
        better = error < best
        best = torch.where(better, error, best)
        steps = torch.where(better, step, steps)
    return steps
