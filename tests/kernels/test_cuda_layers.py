"""CUDA layer kernels on the CPU: convolutions and mixed segments, exact against the golden convolution."""

from __future__ import annotations

import ctypes
from itertools import pairwise

import numpy as np
import pytest
from cuda_harness import aligned, library
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.hardware.load import load_machine
from soniq_dse.kernels.gpu_catalog import gpu_layer_kernel_for, gpu_layer_kernels, part_for
from soniq_dse.kernels.gpu_layer import Epilogue, GpuSegment, layer_grid, layer_table
from soniq_dse.kernels.reference import conv2d
from soniq_dse.records.gpu import GpuKernel, GpuLayerKernel, GpuModel
from soniq_dse.records.palette import Level
from soniq_dse.records.workload import Conv2dLayer

WIDEST, BYTES = gpu_layer_kernels()
PARTS = [(kernel, part) for kernel in (WIDEST, BYTES) for part in kernel.parts]
PLAIN = Conv2dLayer(name="c", in_channels=5, out_channels=17, height=4, width=3, kernel=(3, 3), padding=(1, 1))


def run(
    kernel: GpuLayerKernel, layer: Conv2dLayer, segments: list[GpuSegment], epilogue: Epilogue, seed: int = 0
) -> NDArray[np.float32]:
    """``[rows, out_channels]`` by the shim."""
    out, kept = np.full((layer.rows + 1, layer.out_channels), np.nan, np.float32), []

    def place(array: NDArray[np.generic]) -> int:
        kept.append(aligned(np.ascontiguousarray(array).reshape(-1).view(np.uint32)))
        return int(kept[-1].ctypes.data)

    table = layer_table(layer, segments, epilogue, out.ctypes.data, place)
    function = getattr(library(kernel.path), kernel.symbol)
    grid = layer_grid(kernel, layer)
    stuck = function(ctypes.c_void_p(table.ctypes.data), *grid, kernel.threads, ctypes.c_uint(seed))
    assert not stuck, "threads wait at a barrier for others that never come"
    assert np.isnan(out[-1]).all()
    return out[:-1]


def segment(layer: Conv2dLayer, part: GpuKernel, channels: int, seed: int = 0, signed: bool = False) -> GpuSegment:
    """Random operands of ``channels`` in all groups; with ``signed`` codes stand for 2u - c."""
    rng = np.random.default_rng(seed)
    pixels, c_act = layer.batch * layer.height * layer.width, 2**part.activation_bits - 1
    largest = 127 if part.wgt == "s8" else 2**part.weight_bits - 1
    shape = (layer.out_channels, *layer.kernel, channels // layer.groups)
    weights = 2 * rng.integers(0, largest + 1, shape) - largest
    if part.wgt == "s8":
        weights = rng.integers(-127, 128, shape)
    sums = weights.sum(axis=(1, 2, 3))
    return GpuSegment(
        part=part,
        codes=rng.integers(0, c_act + 1, (pixels, channels)).astype(np.uint8),
        pad_codes=rng.integers(0, c_act + 1, channels).astype(np.uint8),
        weights=weights.astype(np.int8),
        scale=rng.uniform(0.01, 1, layer.out_channels).astype(np.float32),
        offset=(-c_act * sums * signed).astype(np.int32),
        left=int(signed),
    )


def exact(layer: Conv2dLayer, one: GpuSegment) -> NDArray[np.int64]:
    """``[rows, out_channels]`` of the integers that codes stand for."""

    def values(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
        wide = codes.astype(np.int64)
        return 2 * wide - (2**one.part.activation_bits - 1) if one.left else wide

    images = values(one.codes).reshape(layer.batch, layer.height, layer.width, -1)
    return conv2d(
        images, one.weights.transpose(0, 3, 1, 2), values(one.pad_codes),
        stride=layer.stride, padding=layer.padding, dilation=layer.dilation, groups=layer.groups,
    ).reshape(layer.rows, layer.out_channels)  # fmt: skip


def expected(layer: Conv2dLayer, segments: list[GpuSegment], epilogue: Epilogue) -> NDArray[np.float32]:
    """Every operation rounded on its own, in the order that the kernel states."""
    t = np.zeros((layer.rows, layer.out_channels), np.float32)
    for one in segments:
        t = t + exact(layer, one).astype(np.float32) * one.scale
    t = t + epilogue.bias
    t = np.maximum(t, 0) if epilogue.relu_first else t
    t = t if epilogue.residual is None else t + epilogue.residual
    return np.maximum(t, 0) if epilogue.relu_last else t


def no_epilogue(layer: Conv2dLayer) -> Epilogue:
    return Epilogue(np.zeros(layer.out_channels, np.float32))


@pytest.mark.parametrize(
    ("kernel", "part"), PARTS, ids=[f"{kernel.symbol[-4:]}-{part.wgt}{part.act}" for kernel, part in PARTS]
)
def test_a_convolution_equals_the_golden_one(kernel: GpuLayerKernel, part: GpuKernel) -> None:
    """Padding of codes that are not 0; one channel past a group of k, so that a tap has two steps."""
    layer = PLAIN.model_copy(update={"in_channels": part.k_group + 1})
    one = segment(layer, part, layer.in_channels)
    np.testing.assert_array_equal(
        run(kernel, layer, [one], no_epilogue(layer), seed=1), expected(layer, [one], no_epilogue(layer))
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": (2, 1), "batch": 2, "height": 5, "width": 4},
        {"dilation": (2, 2), "padding": (2, 1), "height": 7, "width": 5, "stride": (1, 2)},
        {"kernel": (1, 1), "padding": (0, 0), "batch": 3, "out_channels": 64},
        {"groups": 2, "in_channels": 6, "out_channels": 34},
        {"kernel": (4, 2), "padding": (0, 2), "out_channels": 65, "height": 8, "width": 13},
    ],
    ids=["stride", "dilation", "pointwise", "groups", "past-a-tile"],
)
def test_any_geometry(changes: dict) -> None:
    layer = Conv2dLayer.model_validate(PLAIN.model_dump() | changes)
    for kernel, part in ((WIDEST, WIDEST.parts[0]), (BYTES, BYTES.parts[-2])):
        one = segment(layer, part, layer.in_channels, signed=True)
        np.testing.assert_array_equal(
            run(kernel, layer, [one], no_epilogue(layer)), expected(layer, [one], no_epilogue(layer))
        )


@pytest.mark.parametrize("kernel", [WIDEST, BYTES], ids=lambda kernel: kernel.symbol)
def test_segments_of_every_bits_in_one_launch(kernel: GpuLayerKernel) -> None:
    """Also neighbours that use shared memory at other sizes, and an epilogue of all there is."""
    segments = [segment(PLAIN, part, 2 + i, seed=i, signed=i % 2 == 1) for i, part in enumerate(kernel.parts)]
    layer = PLAIN.model_copy(update={"in_channels": sum(one.codes.shape[1] for one in segments)})
    rng = np.random.default_rng(7)
    residual = rng.normal(0, 100, (layer.rows, layer.out_channels)).astype(np.float32)
    bias = rng.normal(0, 100, layer.out_channels).astype(np.float32)
    for epilogue in (Epilogue(bias, residual, True, True), Epilogue(bias, residual), Epilogue(bias, None, True)):
        np.testing.assert_array_equal(
            run(kernel, layer, segments, epilogue, seed=2), expected(layer, segments, epilogue)
        )
    backwards = run(kernel, layer, segments[::-1], epilogue)
    np.testing.assert_array_equal(backwards, expected(layer, segments[::-1], epilogue))


def test_the_widest_native_kernel_serves_a_gpu_and_a_part_every_level() -> None:
    for name, chosen in (("h200", WIDEST), ("rtx_5090", BYTES)):
        gpu = load_machine(name)
        assert isinstance(gpu, GpuModel)
        assert gpu_layer_kernel_for(gpu) == chosen
        for bits in ((1, 1), (1, 2), (2, 2), (2, 4), (3, 3), (4, 8), (7, 8)):
            level = Level(weight_bits=bits[0], activation_bits=bits[1])
            part = part_for(chosen, level)
            assert part.activation_bits >= bits[1]
            assert part.weight_bits == bits[0] or part.wgt == "s8"
    with pytest.raises(UserError, match="expected a level of integer activations, got w4"):
        part_for(WIDEST, Level(weight_bits=4, activation_bits=32))


def test_parts_are_distinct_and_their_limits_those_of_int32() -> None:
    kinds = [16 * part.weight_bits + part.activation_bits for part in WIDEST.parts]
    assert len(set(kinds)) == len(kinds)
    for kernel, part in PARTS:
        assert part.symbol == kernel.symbol
        largest = 127 if part.wgt == "s8" else 2**part.weight_bits - 1
        assert part.k_max * largest * (2**part.activation_bits - 1) < 2**31
    for first, second in pairwise(BYTES.parts):
        assert first.k_group == 2 * second.k_group


def test_too_many_segments_are_refused() -> None:
    one = segment(PLAIN, WIDEST.parts[0], 5)
    with pytest.raises(UserError, match="segments: expected 1 to 8, got 9"):
        layer_table(PLAIN, [one] * 9, no_epilogue(PLAIN), 0, lambda array: array.ctypes.data)
