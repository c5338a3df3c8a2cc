"""The modules that quantize while a network trains: one mixture per tensor class, one quantizer per tensor and weight.

A class is *soft* in SONIQ's phase 1 (noise of mixed magnitudes), *hard* once its levels are fixed; hard quantizers add
noise of their level (phase 1 with a given assignment) or round (phase 2, evaluation). Source: SONIQ, arXiv 2311.14114.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from soniq_dse.formats import grid_of
from soniq_dse.qat.calibrate import best_steps
from soniq_dse.quantizers import TensorGrid
from soniq_dse.quantizers.lsq import LearnedStep
from soniq_dse.quantizers.noise import UniformNoise, add_noise, noise_range
from soniq_dse.records.palette import Palette

Phase = Literal["calibrate", "noise", "finetune"]
"""``calibrate``: weights pass as they are, activations set their first steps."""


class NoisePool:
    """Uniform numbers in -1..1, drawn once and handed out as views at random places: noise at no cost per step.

    A view never wraps; two views of one step overlap by chance only, and ``refill`` draws anew (once per epoch).
    """

    def __init__(self, seed: int, size: int = 2**21) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._places = np.random.Generator(np.random.PCG64(seed))
        self._values = torch.empty(size)
        self.refill()

    def refill(self) -> None:
        """Draw all numbers again."""
        self._values.uniform_(-1, 1, generator=self._generator)

    def take(self, shape: torch.Size) -> Tensor:
        """A view of ``shape``; the pool grows to four times the largest shape asked for."""
        count = shape.numel()
        if 4 * count > len(self._values):
            self._values = torch.empty(4 * count)
            self.refill()
        place = 16 * int(self._places.integers((len(self._values) - count) // 16 + 1))
        return self._values[place : place + count].view(shape)


class ClassMixture(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """The levels of the channels of one tensor class: soft shares, or one level per channel.

    ``logits`` (``[channels, levels]``, initially 0) exist where the palette leaves a choice.
    """

    def __init__(self, palette: Palette, channels: int, *, signed: bool) -> None:
        super().__init__()
        self.palette, self.channels, self.signed = palette, channels, signed
        self.weight_grids = [grid_of(level.weight_format) for level in palette.levels]
        self.activation_grids = [grid_of(level.activation_format(signed=signed)) for level in palette.levels]
        self.logits = nn.Parameter(torch.zeros(channels, len(palette.levels))) if len(palette.levels) > 1 else None
        self.phase: Phase = "noise"
        self.shares: Tensor | None = None
        """The soft assignment ``[channels, levels]``, with a gradient to the logits; None where the class is hard."""
        self.level: Tensor = torch.zeros(channels, dtype=torch.long)
        self.only_level: int | None = 0
        """The level of all channels, where they agree."""

    def harden(self, level_of_channel: tuple[int, ...]) -> None:
        """Give every channel its level, for good."""
        self.shares = None
        self.level = torch.tensor(level_of_channel, dtype=torch.long)
        self.only_level = level_of_channel[0] if len(set(level_of_channel)) == 1 else None


def _quantized(values: Tensor, step: Tensor, grid: TensorGrid, phase: Phase, pool: NoisePool) -> Tensor:
    if phase == "noise":
        return UniformNoise.apply(values, step, grid, pool.take(values.shape))
    return LearnedStep.apply(values, step, grid)


class ActivationQuantizer(nn.Module):  # type: ignore[misc]
    """Quantizes one tensor, for all that read it; the step of each level is learned as a logarithm.

    Args:
        mixture: of the tensor's class.
        n_features: channels of this tensor: those of the class, or a multiple (flattened: each channel repeated).
        channel_axis: axis of the channels.
    """

    def __init__(self, mixture: ClassMixture, n_features: int, channel_axis: int, pool: NoisePool) -> None:
        super().__init__()
        self.mixture, self.channel_axis, self.pool = mixture, channel_axis, pool
        self.repeats = n_features // mixture.channels
        self.log_step = nn.Parameter(torch.zeros(len(mixture.activation_grids)))
        self._grids = [TensorGrid.of(grid) for grid in mixture.activation_grids]
        self._grid = TensorGrid.stacked(mixture.activation_grids)
        self._cached: tuple[Tensor, Tensor] | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Quantized values; a second reader of the same tensor gets the first one's result."""
        if self._cached is not None and self._cached[0] is values:
            return self._cached[1]
        if self.mixture.phase == "calibrate":
            self._calibrate(values)
            return values
        result = self._quantize(values)
        self._cached = (values, result)
        return result

    def forget(self) -> None:
        """Let go of the last tensor."""
        self._cached = None

    def zero_values(self) -> Tensor:
        """Per feature, the value that a convolution pads with: exact zero, or one step of a zero-free grid."""
        codes = [float(grid.integer(grid.zero_code)) for grid in self.mixture.activation_grids]
        values = torch.tensor(codes) * self.log_step.exp()
        shares = self.mixture.shares
        of_channel = values[self.mixture.level] if shares is None else shares @ values
        return of_channel.repeat_interleave(self.repeats)

    def _calibrate(self, values: Tensor) -> None:
        rows = values.detach().reshape(1, -1)
        steps = [best_steps(rows, grid)[0] for grid in self.mixture.activation_grids]
        with torch.no_grad():
            self.log_step.copy_(torch.stack(steps).log())

    def _quantize(self, values: Tensor) -> Tensor:
        mixture, steps = self.mixture, self.log_step.exp()
        if mixture.shares is None:
            level = mixture.only_level
            if level is not None:
                return _quantized(values, steps[level], self._grids[level], mixture.phase, self.pool)
            step = self._spread(steps[mixture.level], values)
            grid = self._grid.map(lambda part: self._spread(part[mixture.level], values))
            return _quantized(values, step, grid, mixture.phase, self.pool)
        half, edge = (self._spread(mixture.shares @ v, values) for v in noise_range(steps, self._grid))
        return add_noise(values, half, edge, self.pool.take(values.shape), signed=mixture.signed)

    def _spread(self, of_channel: Tensor, values: Tensor) -> Tensor:
        shape = [1] * values.ndim
        shape[self.channel_axis] = -1
        return of_channel.repeat_interleave(self.repeats).view(shape) if self.repeats > 1 else of_channel.view(shape)


class WeightQuantizer(nn.Module):  # type: ignore[misc]
    """A parametrization of a weight ``[out, in / groups, ...]``: one learned step per level and output channel.

    The level of a weight is that of the input channel it reads.
    """

    def __init__(self, mixture: ClassMixture, weight: Tensor, groups: int, pool: NoisePool) -> None:
        super().__init__()
        self.mixture, self.pool = mixture, pool
        n_out, n_in = weight.shape[:2]
        self.repeats = n_in * groups // mixture.channels
        group = torch.arange(n_out) // (n_out // groups)
        self._channel = None if groups == 1 else group[:, None] * n_in + torch.arange(n_in)
        self._grids = [TensorGrid.of(grid) for grid in mixture.weight_grids]
        self._grid = TensorGrid.stacked(mixture.weight_grids)
        steps = torch.stack([best_steps(weight.detach().flatten(1), grid) for grid in mixture.weight_grids])
        self.log_step = nn.Parameter(steps.log())

    def forward(self, weight: Tensor) -> Tensor:
        """Quantized weight of the same shape."""
        mixture, steps = self.mixture, self.log_step.exp()
        if mixture.phase == "calibrate":
            return weight
        tail = (1,) * (weight.ndim - 2)
        if mixture.shares is not None:
            ranges = (self._mixed(mixture.shares, v) for v in noise_range(steps.T, self._grid))
            half, edge = (v.view(*v.shape, *tail) for v in ranges)
            return add_noise(weight, half, edge, self.pool.take(weight.shape), signed=True)
        level = mixture.only_level
        if level is not None:
            step, grid = steps[level].view(-1, 1, *tail), self._grids[level]
        else:
            index = self.input_level()
            step = steps.T[:, index] if index.ndim == 1 else steps.T.gather(1, index)
            step = step.view(*step.shape, *tail)
            grid = self._grid.map(lambda part: part[index].view(-1, *index.shape[-1:], *tail))
        return _quantized(weight, step, grid, mixture.phase, self.pool)

    def input_level(self) -> Tensor:
        """Level of each input ``[in]``, or with groups of each output and input ``[out, in / groups]``."""
        level = self.mixture.level
        level = level.repeat_interleave(self.repeats) if self.repeats > 1 else level
        return level if self._channel is None else level[self._channel]

    def _mixed(self, shares: Tensor, of_level: Tensor) -> Tensor:
        """``of_level [out, levels]`` mixed for each input: ``[out, in / groups]``."""
        shares = shares.repeat_interleave(self.repeats, dim=0) if self.repeats > 1 else shares
        if self._channel is None:
            return of_level @ shares.T
        return (shares[self._channel] * of_level[:, None, :]).sum(dim=-1)
