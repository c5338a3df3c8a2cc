"""Our kernels on the shapes of the benchmark: single products, and layers of segments through the layer driver."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks._peers import Call, Shape
from soniq_dse.cost.network import choose_kernels
from soniq_dse.hardware.features import plain
from soniq_dse.hardware.host import default_descriptor, detect_host, match_host
from soniq_dse.hardware.load import load_hardware
from soniq_dse.kernels.catalog import kernel, kernels_for, token_bits
from soniq_dse.kernels.library import Kernel, load_for_host, round_up
from soniq_dse.kernels.measure import random_codes, random_weights
from soniq_dse.kernels.strips import Geometry
from soniq_dse.records.choice import PartShape
from soniq_dse.records.cost import KernelSpec
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Level
from soniq_dse.runtime.layer_steps import first_fitting
from soniq_dse.runtime.solo import SoloLayer, random_layer

SEGMENT_MULTIPLE = 64
"""Channels of a segment: what popcount wants."""

Features = tuple[str, ...]
Mix = Sequence[tuple[Level, float]]


@dataclass(frozen=True)
class Ours:
    """Two calls: the kernel alone, and with the packing of its input codes; ``waste``: padding of k per real k."""

    label: str
    kernels: tuple[str, ...]
    run: Call
    pack_and_run: Call
    waste: float


@functools.lru_cache(maxsize=1)
def host_descriptor() -> HardwareModel | None:
    """The shipped descriptor of this processor, by which the runtime chooses; None: there is none."""
    path, _ = default_descriptor(detect_host())
    found = load_hardware(path)
    return found if match_host(found, detect_host())[0] else None


@functools.lru_cache(maxsize=1024)
def choose(shape: PartShape, features: Features, algorithm: str = "") -> tuple[KernelSpec, bool | None]:
    """What the runtime would choose for a part; the first by ``algorithm`` where one serves the level exactly."""
    level = shape.level
    ranked = kernels_for(level, signed=shape.signed, features=features, rows=shape.rows, cols=shape.cols)
    exact = (spec for spec in ranked if spec.algorithm == algorithm and token_bits(spec.wgt) == level.weight_bits)
    forced = next(exact, None)
    if forced is not None:
        return forced, None
    hw = host_descriptor()
    known = {plain(feature) for feature in features}
    usable = () if hw is None else tuple(feature for feature in hw.features if plain(feature) in known)
    if hw is not None and usable:
        made = choose_kernels(hw.model_copy(update={"features": usable}), [shape]).of(shape)
        if made is not None:
            return kernel(made.taken.symbol), made.taken.folded
    return first_fitting(shape, features), None


def part_of(shape: Shape, level: Level) -> PartShape:
    """A product as a part of a layer."""
    signed = level.activation_bits < 8
    return PartShape(
        level=level, signed=signed, rows=shape.rows, cols=shape.cols, taps=1, channels=shape.k, pixels=shape.rows
    )


def gemm(shape: Shape, level: Level, features: Features, algorithm: str = "") -> Ours | None:
    """One product on one kernel, raw sums out; None where no vector kernel serves the level."""
    spec, _ = choose(part_of(shape, level), features, algorithm)
    if not spec.features:
        return None
    loaded, rng = load_for_host(spec, features), np.random.default_rng(0)
    codes = random_codes(loaded, (shape.rows, shape.k), rng)
    weights = loaded.pack_w(random_weights(loaded, (shape.cols, 1, shape.k), rng))
    call = loaded.prepare(codes, weights, cols=shape.cols, k=shape.k)
    waste = round_up(shape.k, spec.k_group) / shape.k - 1
    return Ours(level.name, (spec.symbol,), call.run, call.pack_and_run, waste)


def solo(shape: Shape, mix: Mix, features: Features, algorithm: str = "", threads: int = 1) -> SoloLayer:
    """A linear layer or convolution over segments with the given shares of its channels; u8 codes out."""

    def kernel_for(asked: PartShape) -> tuple[Kernel, bool | None]:
        spec, folded = choose(asked, features, algorithm)
        return load_for_host(spec, features), folded

    segments = [(level, count) for (level, _), count in zip(mix, _counts(shape, mix), strict=True)]
    weights = random_layer(segments, shape.cols, (shape.kernel, shape.kernel), groups=shape.groups)
    return SoloLayer(weights, geometry_of(shape), kernel_for, features=features, threads=threads)


def layer(shape: Shape, mix: Mix, features: Features, algorithm: str = "") -> Ours:
    """The two calls of ``solo``."""
    found = solo(shape, mix, features, algorithm)
    shares = [count / shape.in_channels for count in _counts(shape, mix)]
    label = "+".join(f"{share:.0%} {level.name}" for share, (level, _) in zip(shares, mix, strict=True))
    padded = sum(part.padded_k * part.cols for part in found.parts) / shape.cols
    kernels = tuple(dict.fromkeys(part.kernel.spec.symbol for part in found.parts))
    return Ours(label.removeprefix("100% "), kernels, found.run, found.pack_and_run, padded / shape.k - 1)


def geometry_of(shape: Shape) -> Geometry:
    """Where the rows of a shape find their pixels."""
    if not shape.size:
        return Geometry(shape.rows)
    side, step, border = shape.kernel, shape.stride, shape.padding
    return Geometry(1, shape.size, shape.size, (side, side), stride=(step, step), padding=(border, border))


def _counts(shape: Shape, mix: Mix) -> list[int]:
    """Channels of each segment: whole multiples where the layer is wide enough for that; the last takes the rest."""
    channels = shape.in_channels
    multiple = SEGMENT_MULTIPLE if channels >= 4 * SEGMENT_MULTIPLE else 1
    counts = [round(share * channels / multiple) * multiple for _, share in mix[:-1]]
    return [*counts, channels - sum(counts)]
