"""Geometry of the implicit GEMM and the corrections from raw to asked sums, worked by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.errors import UserError
from soniq_dse.formats import grid_of
from soniq_dse.kernels import reference
from soniq_dse.kernels.catalog import kernel
from soniq_dse.kernels.layer import Geometry, InputSegment, LayerWeights, block_rows, corrections, plan_parts
from soniq_dse.kernels.library import Kernel, load_kernel
from soniq_dse.records.palette import Level


def scalar(act: str, wgt: str) -> Kernel:
    return load_kernel(kernel(f"gemm_{act}_{wgt}_s32_1x1x8__scalar_direct"))


def test_gather_by_hand() -> None:
    # A 2 x 3 image, 2 x 2 kernel, padding 1 on the sides only, stride 2: pixels 0 1 2 / 3 4 5, pad pixel 6.
    # Output columns start at x = -1 and 1: (pad 0 / pad 3) and (1 2 / 4 5).
    geometry = Geometry(1, 2, 3, kernel=(2, 2), stride=(1, 2), padding=(0, 1))
    assert geometry.out_size == (1, 2)
    assert geometry.gather().tolist() == [[6, 1], [0, 2], [6, 4], [3, 5]]


def test_gather_of_a_linear_layer_is_the_identity() -> None:
    assert Geometry(5).gather().tolist() == [[0, 1, 2, 3, 4]]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_gather_equals_the_reference_convolution(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.integers(low, high)), data.draw(st.integers(low, high))

    size, window, stride, padding, dilation = pair(3, 7), pair(1, 3), pair(1, 3), pair(0, 2), pair(1, 2)
    geometry = Geometry(2, *size, window, stride, padding, dilation)
    if min(geometry.out_size) < 1:
        return
    rng = np.random.default_rng(0)
    values, weights = rng.integers(-9, 9, (2, *size, 3)), rng.integers(-3, 4, (4, 3, *window)).astype(np.int8)
    pad = np.array([1, -1, 2])
    pixels = np.concatenate([values.reshape(-1, 3), pad[None]])
    flat = weights.transpose(0, 2, 3, 1).reshape(4, geometry.taps, 3).astype(np.int64)
    got = sum(pixels[geometry.gather()[t]] @ flat[:, t].T for t in range(geometry.taps))
    wanted = reference.conv2d(values, weights, pad, stride=stride, padding=padding, dilation=dilation)
    np.testing.assert_array_equal(np.asarray(got).reshape(wanted.shape), wanted)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("act", "wgt"), [("u", "s8"), ("u", "z4"), ("z", "z4"), ("z", "s8")])
def test_corrections_give_the_asked_sums(bits: int, signed: bool, act: str, wgt: str) -> None:
    kernel_bits = min(width for width in (1, 2, 4, 8) if width >= bits)
    if act == "z" and kernel_bits == 8:
        pytest.skip("no kernel computes 8-bit zero-free activations")
    base = scalar(f"u{kernel_bits}", wgt)
    spec = base.spec.model_copy(update={"act": f"{act}{kernel_bits}"})
    kernel_of_family = Kernel(spec, base._struct, base._library)
    rng = np.random.default_rng(bits)
    codes = rng.integers(1 if bits == 8 and signed else 0, 2**bits, (6, 13))
    weights = (2 * rng.integers(0, 16, (5, 13)) - 15).astype(np.int8)
    level = Level(weight_bits=4, activation_bits=bits)
    padded = 3
    left, right, offset = corrections(
        kernel_of_family, grid_of(level.activation_format(signed=signed)), weights[:, None], padded
    )
    raw = reference.raw_gemm(spec.act, codes, weights)
    if act == "z" and wgt != "s8":
        raw = raw + padded * (2**kernel_bits - 1) * 15
    wanted = reference.asked_values(codes, bits, signed=signed) @ weights.astype(np.int64).T
    np.testing.assert_array_equal(((raw << left) + offset) >> right, wanted)


def test_sums_that_could_overflow_are_refused() -> None:
    grid = grid_of(Level(weight_bits=8, activation_bits=8).activation_format(signed=False))
    weights = np.full((1, 1, 70_000), 127, np.int8)  # 255 * 127 * 70,000 > 2**31
    with pytest.raises(UserError, match=r"expected below 2\*\*31"):
        corrections(scalar("u8", "s8"), grid, weights, 0)


def layer_of(channels: int, kernel_size: int, groups: int = 1, order: np.ndarray | None = None) -> LayerWeights:
    in_group = channels // groups
    return LayerWeights(
        weight=np.ones((2 * groups, in_group, kernel_size, kernel_size), np.int8),
        in_order=np.arange(channels) if order is None else order,
        segments=(InputSegment(Level(weight_bits=1, activation_bits=1), 0, channels),),
        signed=False,
        groups=groups,
        scale=np.ones((1, 2 * groups), np.float32),
        bias=np.zeros(2 * groups, np.float32),
    )


def test_narrow_layers_fold_taps_into_k() -> None:
    def parts(channels: int, size: int) -> tuple[bool, int, int]:
        (part,) = plan_parts(layer_of(channels, size), Geometry(1, 8, 8, (size, size)), lambda *_: scalar("u1", "z1"))
        return part.folded, part.taps, part.padded_k

    assert parts(3, 3) == (True, 1, 32)  # 27 in groups of 8, not 9 x 8
    assert parts(8, 3) == (False, 9, 72)  # nothing to gain
    assert parts(3, 1) == (False, 1, 8)


def test_groups_whose_channels_are_scattered_are_gathered() -> None:
    order = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    layer = layer_of(8, 1, groups=2, order=order)
    parts = plan_parts(layer, Geometry(1, 4, 4), lambda *_: scalar("u1", "z1"))
    assert [part.channels.tolist() for part in parts] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert [(part.first_column, part.folded, part.contiguous) for part in parts] == [(0, True, False), (2, True, False)]


def test_blocks_fill_the_tile() -> None:
    layer = layer_of(16, 1)
    (part,) = plan_parts(layer, Geometry(1, 32, 32), lambda *_: scalar("u1", "z1"))
    assert block_rows([part], Geometry(1, 32, 32), 64) == 60  # 16 KiB / 256 B = 64, to a multiple of 12
    assert block_rows([part], Geometry(1, 32, 32), 4096) == 12
    assert block_rows([part], Geometry(3), 64) == 3
