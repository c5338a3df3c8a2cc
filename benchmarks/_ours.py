"""Our kernels on the shapes of the benchmark: single products, and layers of segments through the layer driver."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks._peers import Call, Shape
from soniq_dse.kernels.catalog import kernels_for, token_bits
from soniq_dse.kernels.layer import GUARD_BYTES, InputSegment, LayerWeights, Part, layer_struct, plan_parts, tile_layer
from soniq_dse.kernels.layer_structs import LayerStruct, PackStruct
from soniq_dse.kernels.library import Kernel, aligned_empty, load_for_host, round_up
from soniq_dse.kernels.measure import random_codes, random_weights
from soniq_dse.kernels.strips import Geometry, bordered
from soniq_dse.records.choice import PartShape
from soniq_dse.records.cost import KernelSpec
from soniq_dse.records.palette import Level
from soniq_dse.runtime.executor import driver_flags, load_drivers

SEGMENT_MULTIPLE = 64
"""Channels of a segment: what popcount wants."""


@dataclass(frozen=True)
class Ours:
    """Two calls: the kernel alone, and with the packing of its input codes; ``waste``: padding of k per real k."""

    label: str
    kernels: tuple[str, ...]
    run: Call
    pack_and_run: Call
    waste: float


def choose(level: Level, rows: int, cols: int, features: Sequence[str], algorithm: str = "") -> KernelSpec:
    """What the runtime would choose for a product; the first by ``algorithm`` where one serves the level exactly."""
    found = kernels_for(level, signed=level.activation_bits < 8, features=features, rows=rows, cols=cols)
    exact = (spec for spec in found if spec.algorithm == algorithm and token_bits(spec.wgt) == level.weight_bits)
    return next(exact, found[0])


def gemm(shape: Shape, level: Level, features: Sequence[str], algorithm: str = "") -> Ours:
    """One product on one kernel; raw sums out."""
    spec = choose(level, shape.rows, shape.cols, features, algorithm)
    kernel, rng = load_for_host(spec, features), np.random.default_rng(0)
    codes = random_codes(kernel, (shape.rows, shape.k), rng)
    weights = kernel.pack_w(random_weights(kernel, (shape.cols, 1, shape.k), rng))
    call = kernel.prepare(codes, weights, cols=shape.cols, k=shape.k)
    waste = round_up(shape.k, spec.k_group) / shape.k - 1
    return Ours(level.name, (spec.symbol,), call.run, call.pack_and_run, waste)


def layer(shape: Shape, mix: Sequence[tuple[Level, float]], features: Sequence[str], algorithm: str = "") -> Ours:
    """A linear layer or convolution over segments with the given shares of its channels; u8 codes out."""
    weights, geometry = _weights(shape, mix), _geometry(shape)

    def kernel_for(asked: PartShape) -> tuple[Kernel, bool | None]:
        return load_for_host(choose(asked.level, asked.rows, asked.cols, features, algorithm), features), None

    parts = plan_parts(weights, geometry, kernel_for)
    drivers = load_drivers(driver_flags(features))
    packs, struct = _layer_structs(weights, geometry, parts, sum(segment.channels for segment in weights.segments))
    addresses = [ctypes.c_void_p(ctypes.addressof(item)) for item in (*packs, struct)]

    def run(kept: object = (packs, struct)) -> None:
        drivers.soniq_layer(addresses[-1])

    def pack_and_run() -> None:
        for address in addresses[:-1]:
            drivers.soniq_pack(address)
        drivers.soniq_layer(addresses[-1])

    pack_and_run()
    label = "+".join(
        f"{segment.channels * geometry.taps / shape.k:.0%} {segment.level.name}" for segment in weights.segments
    )
    padded = sum(part.padded_k for part in parts)
    kernels = tuple(dict.fromkeys(part.kernel.spec.symbol for part in parts))
    return Ours(label.removeprefix("100% "), kernels, run, pack_and_run, padded / shape.k - 1)


def _geometry(shape: Shape) -> Geometry:
    if not shape.size:
        return Geometry(shape.rows)
    return Geometry(1, shape.size, shape.size, (3, 3), padding=(1, 1))


def _weights(shape: Shape, mix: Sequence[tuple[Level, float]]) -> LayerWeights:
    channels, side, rng = (
        (shape.cols, 3, np.random.default_rng(0)) if shape.size else (shape.k, 1, np.random.default_rng(0))
    )
    # The first share is rounded to whole segments where the layer is wide enough for that; the last takes the rest.
    multiple = SEGMENT_MULTIPLE if channels >= 4 * SEGMENT_MULTIPLE else 1
    segments, blocks, first = [], [], 0
    for index, (level, share) in enumerate(mix):
        count = channels - first if index == len(mix) - 1 else round(share * channels / multiple) * multiple
        c = 127 if level.weight_bits == 8 else 2**level.weight_bits - 1
        values = rng.integers(-c, c + 1, (shape.cols, count, side, side))
        blocks.append(values if level.weight_bits == 8 else values // 2 * 2 + 1)
        segments.append(InputSegment(level, first, count))
        first += count
    weight = np.clip(np.concatenate(blocks, axis=1), -127, 127).astype(np.int8)
    scale = np.full((len(segments), shape.cols), 1e-3, np.float32)
    bias = np.zeros(shape.cols, np.float32)
    return LayerWeights(weight, np.arange(channels), tuple(segments), True, 1, scale, bias)


def _layer_structs(
    weights: LayerWeights, geometry: Geometry, parts: Sequence[Part], channels: int
) -> tuple[list[PackStruct], LayerStruct]:
    """The arguments of the packs and of the layer; the structures keep every buffer alive."""
    cols, rng = weights.weight.shape[0], np.random.default_rng(1)
    codes = aligned_empty((geometry.pixels * channels + GUARD_BYTES,))
    bits = np.concatenate([np.full(s.channels, s.level.activation_bits) for s in weights.segments])
    codes[:-GUARD_BYTES] = rng.integers(0, 256, (geometry.pixels, channels)).astype(np.uint8).reshape(-1) & np.tile(
        (2**bits - 1).astype(np.uint8), geometry.pixels
    )
    pad = (2 ** (bits - 1)).astype(np.uint8)
    images = {
        strips: aligned_empty((strips.size_bytes(geometry) + GUARD_BYTES,))
        for strips in dict.fromkeys(bordered(part.strips, [geometry]) for part in parts)
    }
    packs = [
        strips.struct(geometry, codes=codes.ctypes.data, ld_codes=channels, pad_codes=pad, out=image.ctypes.data)
        for strips, image in images.items()
    ]
    tiling = tile_layer(parts, geometry, cols)
    scratch, out = aligned_empty((tiling.scratch_bytes,)), aligned_empty((geometry.rows * cols + GUARD_BYTES,))
    vectors = {name: np.full(cols, value, np.float32) for name, value in _TO_U8.items()}
    struct = layer_struct(
        weights, geometry, parts, tiling,
        images=[(used, images[used].ctypes.data) for used in (bordered(part.strips, [geometry]) for part in parts)],
        scratch=scratch.ctypes.data, codes_out=[{"codes": out.ctypes.data, **vectors}],
        residual=None, relu_first=0, relu_last=0, out=None,
    )  # fmt: skip
    struct.kept += [codes, images, scratch, out]
    return packs, struct


_TO_U8 = {"inverse": 1.0, "shift": 128.0, "lo": 1.0, "hi": 255.0}
"""Requantisation to int8 codes."""
