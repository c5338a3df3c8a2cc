"""The passes over memory that the fake quantizers are made of: C++ on the CPU, torch elsewhere, the same numbers.

Every function works on ``values`` as they lie in memory, flat: ``[rows][period][inner]``, where parameter p of
``period`` serves the values of middle index p (``arrange`` finds the three). In fp32 the elementwise results of both
ways are equal bit for bit; sums of n values differ by the order of addition, at most by n * 2**-24 of the sum of their
magnitudes.

They are torch operators (``torch.ops.soniq``), so that ``torch.compile`` takes them as they are.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from soniq_dse.errors import MissingCapabilityError
from soniq_dse.hardware.host import detect_host
from soniq_dse.native.compiler import build_library

SHORT_RUN = 8
"""Shorter runs of one parameter are spread over their values: vectors would not be filled."""
_MASK = 0xFFFFFFFF


class Arrangement(NamedTuple):
    """How values lie in memory: the order of their axes, the shape that parameters are expanded to, and ``inner``."""

    order: tuple[int, ...]
    shape: tuple[int, ...]
    inner: int

    def flat(self, values: Tensor) -> Tensor:
        """All values in the order of memory, ``[n]``."""
        return values.permute(self.order).reshape(-1)

    def spread(self, parameter: Tensor) -> Tensor:
        """A parameter that broadcasts against the values, ``[period]``."""
        return parameter.expand(self.shape).permute(self.order).reshape(-1).contiguous()

    def restore(self, flat: Tensor, like: Tensor) -> Tensor:
        """The inverse of ``flat``, in the type of ``like``."""
        sizes = [like.shape[axis] for axis in self.order]
        inverse = [self.order.index(axis) for axis in range(len(sizes))]
        return flat.view(sizes).permute(inverse).to(like.dtype)


def wide(values: Tensor) -> Tensor:
    """``values``, in fp32 where they have 16 bits."""
    return values.float() if values.dtype.itemsize == 2 else values


def arrange(values: Tensor, shape: torch.Size) -> Arrangement:
    """The arrangement of ``values`` for parameters of ``shape``, which broadcasts against them.

    Images in channels-last order stay in it.
    """
    axes = tuple(range(values.ndim))
    channels_last = values.ndim == 4 and not values.is_contiguous() and values.stride(1) == 1
    order = (0, 2, 3, 1) if channels_last else axes
    padded = (1,) * (values.ndim - len(shape)) + tuple(shape)
    places = [place for place, axis in enumerate(order) if padded[axis] > 1]
    first, last = (places[0], places[-1]) if places else (0, -1)
    inner = math.prod([values.shape[axis] for axis in order[last + 1 :]])
    if places and 1 < inner < SHORT_RUN:
        last, inner = len(order) - 1, 1
    inside = {order[place] for place in range(first, last + 1)}
    return Arrangement(order, tuple(values.shape[axis] if axis in inside else 1 for axis in axes), inner)


def uniform_noise(count: int, key: Tensor) -> Tensor:
    """fp32 ``[count]``, uniform in -1..1: a hash (MurmurHash3's finaliser) of each place and ``key``, int64.

    A multiple of 2**-23 that depends on nothing else, so that a gradient makes it again rather than remember it.
    """
    h = (torch.arange(count, device=key.device) + (key & _MASK)) & _MASK
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _MASK
    h = h ^ ((key >> 32) & _MASK)
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & _MASK
    h = h ^ (h >> 16)
    return (h >> 8).to(torch.float32) * 2.0**-23 - 1.0


def noise(values: Tensor, half: Tensor, edge: Tensor, inner: int, signed: bool, key: Tensor) -> Tensor:
    """``clamp(values, -edge or 0, edge) + half * noise`` where strictly inside; ``half``, ``edge`` ``[period]``."""
    native = _native(values, half, edge)
    if native is not None:
        out = torch.empty_like(values)
        native.soniq_noise_forward(*_sizes(values, half, inner), *_at(values, half, edge), signed, int(key), *_at(out))
        return out
    x, low, top, inside = _range(values, edge, inner, signed)
    epsilon = uniform_noise(values.numel(), key.to(x.device)).to(x.dtype).view(x.shape)
    jitter = torch.where(inside, half.view(1, -1, 1) * epsilon, 0.0)
    return (torch.maximum(torch.minimum(x, top), low) + jitter).view(-1)


def noise_backward(
    gradient: Tensor, values: Tensor, edge: Tensor, inner: int, signed: bool, key: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``noise`` to (values, half, edge)."""
    native = _native(gradient, values, edge)
    if native is not None:
        to_values, totals = torch.empty_like(values), torch.zeros(2, len(edge), dtype=torch.float64)
        read = (*_sizes(values, edge, inner), *_at(gradient, values, edge), signed, int(key))
        native.soniq_noise_backward(*read, *_at(to_values, totals))
        to_half, to_edge = totals.to(values.dtype).unbind()
        return to_values, to_half.clone(), to_edge.clone()
    x, low, top, inside = _range(values, edge, inner, signed)
    g = gradient.view(x.shape)
    through = torch.where(inside, g, 0.0)
    epsilon = uniform_noise(values.numel(), key.to(x.device)).to(x.dtype).view(x.shape)
    beyond = torch.where(x >= top, g, 0.0)
    if signed:
        beyond = beyond - torch.where(x <= low, g, 0.0)
    return through.view(-1), (through * epsilon).sum(dim=(0, 2)), beyond.sum(dim=(0, 2))


def rounded(values: Tensor, step: Tensor, table: Tensor, inner: int) -> Tensor:
    """``step * integer`` of the nearest code; ``step`` ``[period]``.

    ``table``: multiplier, offset, lo and hi of the codes as rows, ``[4, period]``, or ``[4, 1]`` for all.
    """
    native = _native(values, step, table)
    if native is not None:
        out = torch.empty_like(values)
        read = (*_sizes(values, step, inner), *_at(values, step, table), table.shape[1])
        native.soniq_round_forward(*read, *_at(out))
        return out
    return _round(values.view(-1, len(step), inner), step, table).view(-1)


def rounded_backward(
    gradient: Tensor, values: Tensor, step: Tensor, table: Tensor, inner: int, signed: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of ``rounded`` to (values, step): straight through strictly between the lowest and the top code."""
    native = _native(gradient, values, step, table)
    if native is not None:
        to_values, totals = torch.empty_like(values), torch.zeros(len(step), dtype=torch.float64)
        read = (*_sizes(values, step, inner), *_at(gradient, values, step, table), table.shape[1], signed)
        native.soniq_round_backward(*read, *_at(to_values, totals))
        return to_values, totals.to(values.dtype) / step
    x = values.view(-1, len(step), inner)
    multiplier, offset, _, hi = table
    *_, inside = _range(values, (step * (multiplier * hi - offset)).expand(len(step)), inner, signed)
    g = gradient.view(x.shape)
    through = torch.where(inside, g, 0.0)
    return through.view(-1), (g * _round(x, step, table) - through * x).sum(dim=(0, 2)) / step


def _range(values: Tensor, edge: Tensor, inner: int, signed: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(values ``[rows, period, inner]``, lower end, upper end, where values lie strictly between them)."""
    x, top = values.view(-1, len(edge), inner), edge.view(1, -1, 1)
    low = -top if signed else torch.zeros_like(top)
    return x, low, top, (x > low) & (x < top)


def _round(x: Tensor, step: Tensor, table: Tensor) -> Tensor:
    alpha = step.view(1, -1, 1)
    multiplier, offset, lo, hi = table.view(4, 1, -1, 1)
    codes = x * (1.0 / (multiplier * alpha)) + offset / multiplier
    codes = torch.minimum(torch.maximum(codes, lo), hi).round()
    return (codes * multiplier - offset) * alpha


def _native(*tensors: Tensor) -> ctypes.CDLL | None:
    """The C++ half, where all of them are what it reads: fp32 in this machine's memory."""
    fit = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    return _library() if fit else None


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The C++ half, built for this machine's vectors; None where there is no compiler."""
    flags = ("-mavx2",) if "avx2" in detect_host().features else ("-Wno-psabi",)
    try:
        library = ctypes.CDLL(str(build_library([Path(__file__).with_name("fused.cpp")], flags=flags)))
    except MissingCapabilityError:
        return None
    kinds = {"i": ctypes.c_int64, "p": ctypes.c_void_p}
    for name, parameters in _PARAMETERS.items():
        function = getattr(library, f"soniq_{name}")
        function.argtypes, function.restype = [kinds[kind] for kind in parameters], None
    return library


_PARAMETERS = {
    "noise_forward": "iiipppiip",
    "noise_backward": "iiipppiipp",
    "round_forward": "iiipppip",
    "round_backward": "iiippppiipp",
}
"""C++ function -> its parameters: ``i`` int64, ``p`` pointer."""


def _sizes(values: Tensor, parameter: Tensor, inner: int) -> tuple[int, int, int]:
    period = len(parameter)
    return values.numel() // (period * inner), period, inner


def _at(*tensors: Tensor) -> tuple[int, ...]:
    if not all(tensor.is_contiguous() for tensor in tensors):
        raise ValueError(f"expected tensors that are contiguous, got strides {[t.stride() for t in tensors]}")
    return tuple(tensor.data_ptr() for tensor in tensors)


_OPERATORS = torch.library.Library("soniq", "DEF")


def _register(function: Callable[..., Any], schema: str, *results: int) -> Any:
    """``torch.ops.soniq.NAME``; result i has the shape of the argument whose place is ``results[i]``."""
    name = function.__name__
    _OPERATORS.define(f"{name}{schema}")
    _OPERATORS.impl(name, function, "CompositeExplicitAutograd")

    def fake(*arguments: Any) -> Any:
        made = tuple(torch.empty_like(arguments[place]) for place in results)
        return made if len(made) > 1 else made[0]

    torch.library.register_fake(f"soniq::{name}", fake, lib=_OPERATORS)
    return getattr(torch.ops.soniq, name).default


_NOISE = "Tensor edge, int inner, bool signed, Tensor key)"
noise_op = _register(noise, f"(Tensor values, Tensor half, {_NOISE} -> Tensor", 0)
noise_backward_op = _register(
    noise_backward, f"(Tensor gradient, Tensor values, {_NOISE} -> (Tensor, Tensor, Tensor)", 1, 2, 2
)
_ROUND = "Tensor values, Tensor step, Tensor table, int inner"
rounded_op = _register(rounded, f"({_ROUND}) -> Tensor", 0)
rounded_backward_op = _register(rounded_backward, f"(Tensor gradient, {_ROUND}, bool signed) -> (Tensor, Tensor)", 1, 2)
