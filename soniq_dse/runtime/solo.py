"""One layer by itself in the layer driver, on random codes: what autotuning and benchmarks time."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.kernels.layer import Choose, InputSegment, LayerWeights, merge_groups, plan_parts
from soniq_dse.kernels.layer_structs import LayerStruct, PackStruct
from soniq_dse.kernels.library import GUARD_BYTES, aligned_empty
from soniq_dse.kernels.strips import Geometry, bordered
from soniq_dse.kernels.walk import Image, layer_struct, tile_layer
from soniq_dse.records.palette import Level
from soniq_dse.runtime.executor import Team, depthwise_kernel, driver_flags, load_drivers
from soniq_dse.runtime.structs import Kind, StepStruct

_TO_U8 = {"inverse": 1.0, "shift": 128.0, "lo": 1.0, "hi": 255.0}
"""Requantisation of the output to int8 codes."""
COLD_BYTES, MOST_COPIES = 16 << 20, 8
"""Memory that copies of cold weights fill, and how many are enough: small ones lie in L2 in a network too."""


def random_layer(
    segments: Sequence[tuple[Level, int]],
    cols: int,
    kernel: tuple[int, int],
    *,
    groups: int = 1,
    in_order: NDArray[np.int64] | None = None,
    signed: bool = True,
    seed: int = 0,
) -> LayerWeights:
    """A layer of random integers over ``(level, input channels)`` segments, in groups of equally many channels.

    ``in_order``: position in the segments, one after another -> input channel; default: the same.
    """
    rng, parts, first = np.random.default_rng(seed), [], 0
    n_channels = sum(channels for _, channels in segments)
    order = np.arange(n_channels) if in_order is None else in_order
    bits = np.empty(n_channels, np.int64)
    for level, channels in segments:
        bits[order[first : first + channels]] = level.weight_bits
        parts.append(InputSegment(level, first, channels))
        first += channels
    in_group = n_channels // groups
    channel = np.arange(cols)[:, None] // (cols // groups) * in_group + np.arange(in_group)
    bits = bits[channel][:, :, None, None]
    c = np.where(bits == 8, 127, 2**bits - 1)
    values = rng.integers(-c, c + 1, (cols, in_group, *kernel))
    return LayerWeights(
        weight=np.where(bits == 8, values, np.clip(values // 2 * 2 + 1, -c, c)).astype(np.int8),
        in_order=order,
        segments=tuple(parts),
        signed=signed,
        groups=groups,
        scale=np.full((len(parts), cols), 1e-3, np.float32),
        bias=np.zeros(cols, np.float32),
    )


class SoloLayer:
    """A layer bound to memory; ``parts`` are how it was laid out. Its output are u8 codes.

    ``cold``: each call of ``pack_and_run`` takes another copy of the weights, as in a network, where the other layers
    have pushed them out of the nearest caches.

    Raises:
        UserError: a sum could overflow, or a part is too deep for its kernel.
        MissingCapabilityError: there is no compiler.
    """

    def __init__(
        self,
        weights: LayerWeights,
        geometry: Geometry,
        choose: Choose,
        *,
        features: Collection[str],
        threads: int = 1,
        cold: bool = False,
    ) -> None:
        flags, weights = driver_flags(features), merge_groups(weights)
        self.parts = plan_parts(weights, geometry, choose, depthwise_kernel(flags))
        self._library = load_drivers(flags)
        self._team = Team(self._library, threads)
        size = sum(part.packed.nbytes for part in self.parts)
        self._kept = self._structs(weights, geometry, threads, min(MOST_COPIES, -(-COLD_BYTES // size)) if cold else 1)
        packs = [StepStruct(int(Kind.PACK), ctypes.addressof(one)) for one in self._kept if isinstance(one, PackStruct)]
        layers = [
            StepStruct(int(Kind.LAYER), ctypes.addressof(one)) for one in self._kept if isinstance(one, LayerStruct)
        ]
        self._steps = [(StepStruct * (len(packs) + 1))(*packs, layer) for layer in layers]
        calls = [(self._team.address, ctypes.addressof(steps), len(steps)) for steps in self._steps]
        self._all, self._next = calls[0], itertools.cycle(calls)
        last = ctypes.addressof(self._steps[0]) + len(packs) * ctypes.sizeof(StepStruct)
        self._layer = self._team.address, last, 1
        self.pack_and_run()

    def run(self) -> None:
        """The layer on the input packed last."""
        self._library.soniq_run(*self._layer)

    def pack_and_run(self) -> None:
        """The packing of its input, and the layer."""
        self._library.soniq_run(*next(self._next))

    @property
    def kernels(self) -> tuple[str, ...]:
        """Symbols of the kernels that run, each once."""
        return tuple(dict.fromkeys(part.kernel.spec.symbol for part in self.parts))

    def time_runs(self, repeats: int) -> NDArray[np.float64]:
        """Seconds of each of ``repeats`` runs with packing: CPU time of the thread, wall time of several."""
        seconds = np.empty(repeats)
        self._library.soniq_time_runs(*self._all, repeats, seconds.ctypes.data)
        return seconds

    def _structs(
        self, weights: LayerWeights, geometry: Geometry, threads: int, copies: int
    ) -> list[PackStruct | LayerStruct]:
        """The arguments of the packs and of the layer for each copy of its weights; layers keep every buffer alive."""
        channels, cols = len(weights.in_order), weights.weight.shape[0]
        bits = np.concatenate([np.full(s.channels, s.level.activation_bits) for s in weights.segments])
        codes = _random_codes(geometry.pixels, bits)
        used = [bordered(part.strips, [geometry]) for part in self.parts]
        images = {
            strips: codes if strips.bare else aligned_empty((strips.size_bytes(geometry) + GUARD_BYTES,))
            for strips in used
        }
        pad = np.concatenate([2 ** (bits - 1), np.zeros(GUARD_BYTES)]).astype(np.uint8)
        structs: list[PackStruct | LayerStruct] = [
            strips.struct(geometry, codes=codes.ctypes.data, ld_codes=channels, pad_codes=pad, out=image.ctypes.data)
            for strips, image in images.items()
            if not strips.bare
        ]
        tiling = tile_layer(self.parts, geometry, cols, threads)
        scratch = aligned_empty((tiling.shares * tiling.scratch_bytes,))
        out = aligned_empty((geometry.rows * cols + GUARD_BYTES,))
        vectors: dict[str, Any] = {name: np.full(cols, value, np.float32) for name, value in _TO_U8.items()}
        kept = [codes, *images.values(), scratch, out]
        for _ in range(copies):
            struct = layer_struct(
                weights,
                geometry,
                [replace(part, packed=_copy(part.packed)) for part in self.parts],
                tiling,
                images=[Image(strips, images[strips].ctypes.data) for strips in used],
                pad_codes=pad,
                scratch=scratch.ctypes.data,
                codes_out=[{"codes": out.ctypes.data, **vectors}],
                residual=None,
                relu_first=0,
                relu_last=0,
                out=None,
            )
            struct.kept += kept
            structs.append(struct)
        return structs


def _copy(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    copied = aligned_empty(packed.shape)
    copied[...] = packed
    return copied


def _random_codes(pixels: int, bits: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Uniform codes ``[pixels, channels]`` of each channel's bits, with the guard bytes behind them."""
    codes = aligned_empty((pixels * len(bits) + GUARD_BYTES,))
    values = np.random.default_rng(1).integers(0, 256, (pixels, len(bits))).astype(np.uint8)
    codes[:-GUARD_BYTES] = (values & (2**bits - 1).astype(np.uint8)).reshape(-1)
    return codes
