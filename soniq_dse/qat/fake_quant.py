"""The modules that quantize while a network trains: one mixture per tensor class, one quantizer per tensor and weight.

A class is *soft* in SONIQ's phase 1 (noise of mixed magnitudes), *hard* once its levels are fixed; hard quantizers add
noise of their level (phase 1 with a given assignment) or round (phase 2, evaluation). Source: SONIQ, arXiv 2311.14114.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from soniq_dse.formats import Grid, grid_of
from soniq_dse.qat.calibrate import best_steps
from soniq_dse.quantizers import TensorGrid
from soniq_dse.quantizers.lsq import LearnedStep
from soniq_dse.quantizers.noise import add_noise, noise_range
from soniq_dse.quantizers.unclipped import Unclipped
from soniq_dse.records.palette import Palette

Phase = Literal["float", "calibrate", "noise", "finetune"]
"""``float``: all passes as it is. ``calibrate``: so it does, and activations set their first steps."""

Quantize = Callable[[Tensor], Tensor]


class NoiseKeys:
    """Keys of the noise, one per quantizer and step; the next step's depend on nothing but the seed and its number.

    ``step`` is all the state there is: a run that resumes sets it.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.step, self._count = seed, 0, 0
        self._keys: tuple[Tensor, ...] = ()

    def place(self) -> int:
        """A new quantizer's place."""
        self._keys = ()
        self._count += 1
        return self._count - 1

    def advance(self) -> None:
        """Go on to the next step."""
        self._keys = ()
        self.step += 1

    def __getitem__(self, place: int) -> Tensor:
        """The key of a quantizer in this step: int64 scalar."""
        if not self._keys:
            words = np.random.PCG64(np.random.SeedSequence([self.seed, self.step])).random_raw(self._count)
            self._keys = torch.from_numpy(words.view(np.int64)).unbind()
        return self._keys[place]


class ClassMixture(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """The levels of the channels of one tensor class: soft shares, or one level per channel.

    ``logits`` (``[channels, levels]``, initially 0) exist where the palette leaves a choice.
    """

    def __init__(self, palette: Palette, channels: int, *, signed: bool) -> None:
        super().__init__()
        self.palette, self.channels, self.signed = palette, channels, signed
        self.weight_grids = [grid_of(level.weight_format) for level in palette.levels]
        self.weight_only = all(level.is_weight_only for level in palette.levels)
        formats = [] if self.weight_only else [level.activation_format(signed=signed) for level in palette.levels]
        self.activation_grids = [grid_of(form) for form in formats]
        self.logits = nn.Parameter(torch.zeros(channels, len(palette.levels))) if len(palette.levels) > 1 else None
        self.phase: Phase = "noise"
        self.shares: Tensor | None = None
        """The soft assignment ``[channels, levels]``, with a gradient to the logits; None where the class is hard."""
        self.level: Tensor
        self.register_buffer("level", torch.zeros(channels, dtype=torch.long))
        self.only_level: int | None = 0
        """The level of all channels, where they agree."""
        self.noise_scale = 1.0
        """Of all noise, besides what each quantizer measured."""
        self.measures_noise = False
        """Whether calibration sets the size of the noise; it is uniform otherwise."""
        self.clipped = True
        """Whether the gradient of rounding ends at the lowest and the top code."""

    def harden(self, level_of_channel: tuple[int, ...]) -> None:
        """Give every channel its level, for good."""
        self.shares = None
        if self.logits is not None:
            self.logits.requires_grad_(False)
        self.level.copy_(torch.tensor(level_of_channel))
        self.only_level = level_of_channel[0] if len(set(level_of_channel)) == 1 else None


class _Grids(nn.Module):  # type: ignore[misc]
    """The grids of a palette's levels, moved from device to device with the model."""

    def __init__(self, grids: Sequence[Grid]) -> None:
        super().__init__()
        stacked = TensorGrid.stacked(grids)
        self._signed = stacked.signed
        self.register_buffer("_parts", stacked.parts, persistent=False)

    @property
    def all(self) -> TensorGrid:
        """Tensors ``[levels]``."""
        return TensorGrid(self._parts, self._signed)

    def of_level(self, level: int) -> TensorGrid:
        """One for all values."""
        return TensorGrid(self._parts[:, level].contiguous(), self._signed)


def _function(mixture: ClassMixture, step: Tensor, grid: TensorGrid, gain: Tensor, key: Tensor) -> Quantize:
    """Noise or rounding at one level, or at a level per channel."""
    if mixture.phase == "noise":
        half, edge = noise_range(step, grid)
        return partial(add_noise, half=half * gain, edge=edge, key=key, signed=grid.signed)
    return partial((LearnedStep if mixture.clipped else Unclipped).apply, step=step, grid=grid)


def _noise_gain(values: Tensor, error: Tensor, half: Tensor, edge: Tensor) -> Tensor:
    """rms of a rounding error over that of uniform noise of the same half step, where nothing saturates: a scalar."""
    inside = (values.abs() < edge) & (values != 0)  # zeros behind a ReLU are exact
    share = torch.where(inside, error / half, 0.0)
    return (3 * share.square().sum() / inside.sum().clamp(min=1)).sqrt()


class _Last(NamedTuple):
    """What an activation quantizer last read and gave, and the function between them."""

    values: Tensor
    result: Tensor
    quantize: Quantize


class ActivationQuantizer(nn.Module):  # type: ignore[misc]
    """Quantizes one tensor, for all that read it; the step of each level is learned as a logarithm.

    Args:
        mixture: of the tensor's class.
        n_features: channels of this tensor: those of the class, or a multiple (flattened: each channel repeated).
        channel_axis: axis of the channels.
    """

    def __init__(self, mixture: ClassMixture, n_features: int, channel_axis: int, keys: NoiseKeys) -> None:
        super().__init__()
        self.mixture, self.channel_axis = mixture, channel_axis
        self._keys, self._place = keys, keys.place()
        self.repeats = n_features // mixture.channels
        self.log_step = nn.Parameter(torch.zeros(len(mixture.activation_grids)))
        self.register_buffer("_gain", torch.ones(len(mixture.activation_grids)), persistent=False)
        self._grid = _Grids(mixture.activation_grids)
        self.readers = 0
        """Layers that read the tensor; each calls ``release`` when it has run."""
        self._released = 0
        self._last: _Last | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Quantized values; a second reader of the same tensor gets the first one's result."""
        if self._last is not None and self._last.values is values:
            return self._last.result
        if self.mixture.phase == "calibrate":
            self._calibrate(values)
        if self.mixture.phase in ("float", "calibrate"):
            return values
        quantize = self._quantize(values)
        self._last = _Last(values, quantize(values), quantize)
        return self._last.result

    def release(self) -> None:
        """A layer has read the tensor; behind the last of them it is let go."""
        self._released += 1
        if self._released == self.readers:
            self.forget()

    def forget(self) -> None:
        """Let go of the last tensor."""
        self._last, self._released = None, 0

    def remade(self) -> AbstractContextManager[object]:
        """While a layer runs in this context, autograd keeps no quantized input of it, but makes it again.

        The values before quantization are kept anyway, for the quantizer's own gradient: that saves one tensor a
        layer, at the price of one more pass over it.
        """
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return nullcontext()
        hooks: AbstractContextManager[object] = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)
        return hooks

    def _pack(self, tensor: Tensor) -> Tensor | Callable[[], Tensor]:
        last = self._last
        if last is None or tensor.data_ptr() != last.result.data_ptr() or tensor.dtype != last.result.dtype:
            return tensor
        alike = tensor.shape == last.result.shape and tensor.stride() == last.result.stride()
        if not alike and not (tensor.numel() == last.result.numel() and tensor.is_contiguous()):
            return tensor
        values, quantize, shape = last.values.detach(), last.quantize, tensor.shape
        return lambda: quantize(values).view(shape)

    def zero_values(self) -> Tensor:
        """Per feature, the value that a convolution pads with: exact zero, or one step of a zero-free grid."""
        codes = [float(grid.integer(grid.zero_code)) for grid in self.mixture.activation_grids]
        values = torch.tensor(codes, device=self.log_step.device) * self.log_step.exp()
        shares = self.mixture.shares
        of_channel = values[self.mixture.level] if shares is None else _product(shares, values)
        return of_channel.repeat_interleave(self.repeats)

    def errors(self, values: Tensor) -> list[Tensor]:
        """What rounding at each level, at its first step, adds to ``values``."""
        steps = self.log_step.exp()
        rounded = [LearnedStep.apply(values, step, self._grid.of_level(j)) for j, step in enumerate(steps)]
        return [result - values for result in rounded]

    def by_channel(self, values: Tensor) -> Tensor:
        """``values`` of the tensor's shape summed to ``[channels]`` of its class."""
        rows = values.movedim(self.channel_axis, 0).flatten(1).sum(dim=1)
        return rows.view(-1, self.repeats).sum(dim=1)

    def _calibrate(self, values: Tensor) -> None:
        rows = values.detach().reshape(1, -1)
        steps = [best_steps(rows, grid)[0] for grid in self.mixture.activation_grids]
        with torch.no_grad():
            self.log_step.copy_(torch.stack(steps).log())
            if self.mixture.measures_noise:
                ranges = zip(*noise_range(self.log_step.exp(), self._grid.all), strict=True)
                found = zip(self.errors(values), ranges, strict=True)
                self._gain.copy_(torch.stack([_noise_gain(values, error, *reach) for error, reach in found]))

    def _quantize(self, values: Tensor) -> Quantize:
        mixture, steps, key = self.mixture, self.log_step.exp(), self._keys[self._place]
        gain = self._gain * mixture.noise_scale
        if mixture.shares is not None:
            half, edge = noise_range(steps, self._grid.all)
            half, edge = (self._spread(_product(mixture.shares, v), values) for v in (half * gain, edge))
            return partial(add_noise, half=half, edge=edge, key=key, signed=mixture.signed)
        level = mixture.only_level
        if level is not None:
            return _function(mixture, steps[level], self._grid.of_level(level), gain[level], key)
        step, gain = (self._spread(of_level[mixture.level], values) for of_level in (steps, gain))
        grid = self._grid.all.map(lambda part: self._spread(part[mixture.level], values))
        return _function(mixture, step, grid, gain, key)

    def _spread(self, of_channel: Tensor, values: Tensor) -> Tensor:
        shape = [1] * values.ndim
        shape[self.channel_axis] = -1
        return of_channel.repeat_interleave(self.repeats).view(shape) if self.repeats > 1 else of_channel.view(shape)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Of matrices, in their own 32 bits whatever autocast does around."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right


def _unpack(kept: Tensor | Callable[[], Tensor]) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    with torch.no_grad():
        return kept()


class WeightQuantizer(nn.Module):  # type: ignore[misc]
    """A parametrization of a weight ``[out, in / groups, ...]``: one learned step per level and output channel.

    The level of a weight is that of the input channel it reads.
    """

    def __init__(self, mixture: ClassMixture, weight: Tensor, groups: int, keys: NoiseKeys) -> None:
        super().__init__()
        self.mixture, self._keys, self._place = mixture, keys, keys.place()
        n_out, n_in = weight.shape[:2]
        self.n_weights = weight.numel()
        self.repeats = n_in * groups // mixture.channels
        group = torch.arange(n_out) // (n_out // groups)
        channel = None if groups == 1 else group[:, None] * n_in + torch.arange(n_in)
        self.register_buffer("_channel", channel, persistent=False)
        self._grid = _Grids(mixture.weight_grids)
        steps = torch.stack([best_steps(weight.detach().flatten(1), grid) for grid in mixture.weight_grids])
        self.log_step = nn.Parameter(steps.log())
        self.register_buffer("_gain", torch.ones(len(mixture.weight_grids)), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Quantized weight of the same shape."""
        mixture, steps = self.mixture, self.log_step.exp()
        if mixture.phase == "calibrate" and mixture.measures_noise:
            self._measure_noise(weight)
        if mixture.phase in ("float", "calibrate"):
            return weight
        tail, gain = (1,) * (weight.ndim - 2), self._gain * mixture.noise_scale
        if mixture.shares is not None:
            half, edge = noise_range(steps.T, self._grid.all)
            ranges = (self._mixed(mixture.shares, v) for v in (half * gain, edge))
            half, edge = (v.view(*v.shape, *tail) for v in ranges)
            return add_noise(weight, half, edge, self._keys[self._place], signed=True)
        level = mixture.only_level
        if level is not None:
            step, grid, gain = steps[level].view(-1, 1, *tail), self._grid.of_level(level), gain[level]
        else:
            index = self.input_level()
            step = steps.T[:, index] if index.ndim == 1 else steps.T.gather(1, index)
            step = step.view(*step.shape, *tail)
            grid = self._grid.all.map(lambda part: part[index].view(-1, *index.shape[-1:], *tail))
            gain = gain[index].view(-1, *index.shape[-1:], *tail)
        return _function(mixture, step, grid, gain, self._keys[self._place])(weight)

    def _measure_noise(self, weight: Tensor) -> None:
        with torch.no_grad():
            half, edge = noise_range(self.log_step.exp().T, self._grid.all)
            shape = (-1, *(1,) * (weight.ndim - 1))
            ranges = [(h.view(shape), e.view(shape)) for h, e in zip(half.T, edge.T, strict=True)]
            found = zip(self.errors(weight), ranges, strict=True)
            self._gain.copy_(torch.stack([_noise_gain(weight, error, *reach) for error, reach in found]))

    def errors(self, weight: Tensor) -> list[Tensor]:
        """What rounding at each level, at its first steps, adds to ``weight``."""
        steps = self.log_step.exp().view(len(self.log_step), -1, *(1,) * (weight.ndim - 1))
        rounded = [LearnedStep.apply(weight, step, self._grid.of_level(j)) for j, step in enumerate(steps)]
        return [result - weight for result in rounded]

    def by_channel(self, values: Tensor) -> Tensor:
        """``values`` of the weight's shape summed to ``[channels]``: what reads each channel of the class."""
        if self._channel is None:
            return values.movedim(1, 0).flatten(1).sum(dim=1).view(-1, self.repeats).sum(dim=1)
        each = values.flatten(2).sum(dim=2).flatten()
        features = self.mixture.channels * self.repeats
        return each.new_zeros(features).index_add_(0, self._channel.flatten(), each).view(-1, self.repeats).sum(dim=1)

    def input_level(self) -> Tensor:
        """Level of each input ``[in]``, or with groups of each output and input ``[out, in / groups]``."""
        level = self.mixture.level
        level = level.repeat_interleave(self.repeats) if self.repeats > 1 else level
        return level if self._channel is None else level[self._channel]

    def _mixed(self, shares: Tensor, of_level: Tensor) -> Tensor:
        """``of_level [out, levels]`` mixed for each input: ``[out, in / groups]``."""
        shares = shares.repeat_interleave(self.repeats, dim=0) if self.repeats > 1 else shares
        if self._channel is None:
            return _product(of_level, shares.T)
        return (shares[self._channel] * of_level[:, None, :]).sum(dim=-1)
