"""The deployment arithmetic against Python's own integers, and its identities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.formats import deployment, format_of, grid_of
from soniq_dse.formats.deployment import Window
from soniq_dse.formats.unsigned import Unsigned
from soniq_dse.formats.zerofree import ZeroFree
from soniq_dse.records.network import TensorQuantizer
from soniq_dse.records.palette import Palette

PALETTES = ["w1a1", "w2a2", "w4a4", "w8a8", "w1a1+w4a4", "w2a2+w2a4+w8a8"]


def quantizer_for(palette: Palette, channels: int, signed: bool, rng: np.random.Generator) -> TensorQuantizer:
    levels = rng.integers(0, len(palette.levels), channels)
    steps = rng.uniform(0.01, 2, len(palette.levels)).astype(np.float32)
    return TensorQuantizer(
        palette=palette, level_of_channel=tuple(map(int, levels)), steps=tuple(map(float, steps)), signed=signed
    )


def random_weight(quantizer: TensorQuantizer, shape: tuple[int, ...], groups: int, rng: Any) -> np.ndarray:
    """Integers that each input channel's weight format allows."""
    weight = np.zeros(shape, dtype=np.int8)
    n_out = shape[0] // groups
    for out in range(shape[0]):
        for channel in range(shape[1]):
            level = quantizer.palette.levels[quantizer.level_of_channel[(out // n_out) * shape[1] + channel]]
            form = level.weight_format
            grid = grid_of(form)
            codes = rng.integers(grid.lo, grid.hi + 1, shape[2:])
            weight[out, channel] = codes * grid.multiplier - grid.offset
    return weight


def conv_oracle(codes: np.ndarray, quantizer: TensorQuantizer, weight: np.ndarray, window: Window) -> dict:
    """Direct sums with Python's unbounded integers."""
    n, _, height, width = codes.shape
    n_out, n_in, kernel_h, kernel_w = weight.shape
    out_h = (height + 2 * window.padding[0] - window.dilation[0] * (kernel_h - 1) - 1) // window.stride[0] + 1
    out_w = (width + 2 * window.padding[1] - window.dilation[1] * (kernel_w - 1) - 1) // window.stride[1] + 1
    found: dict[tuple, int] = {}
    for level_index, level in enumerate(quantizer.palette.levels):
        grid = grid_of(level.activation_format(signed=quantizer.signed))
        for b, o, y, x in np.ndindex(n, n_out, out_h, out_w):
            total = 0
            for i, ky, kx in np.ndindex(n_in, kernel_h, kernel_w):
                channel = (o // (n_out // window.groups)) * n_in + i
                if quantizer.level_of_channel[channel] != level_index:
                    continue
                row = y * window.stride[0] + ky * window.dilation[0] - window.padding[0]
                col = x * window.stride[1] + kx * window.dilation[1] - window.padding[1]
                inside = 0 <= row < height and 0 <= col < width
                code = int(codes[b, channel, row, col]) if inside else grid.zero_code
                total += int(weight[o, i, ky, kx]) * grid.integer(code)
            found[level_index, b, o, y, x] = total
    return found


@pytest.mark.parametrize("palette", PALETTES)
@given(seed=st.integers(0, 2**32 - 1), signed=st.booleans(), data=st.data())
@settings(max_examples=6, deadline=None)
def test_convolution_is_the_big_integer_sum(palette: str, seed: int, signed: bool, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    window = Window(
        data.draw(pair(1, 2)), data.draw(pair(0, 2)), data.draw(pair(1, 2)), data.draw(st.sampled_from([1, 2]))
    )
    kernel = data.draw(pair(1, 2))
    quantizer = quantizer_for(Palette.parse(palette), 4, signed, rng)
    grids = deployment.channel_grids(quantizer)
    codes = deployment.requantize(rng.normal(0, 4, (2, 4, 4, 5)).astype(np.float32), grids)
    weight = random_weight(quantizer, (2, 4 // window.groups, *kernel), window.groups, rng)
    want = conv_oracle(codes, quantizer, weight, window)
    got = deployment.accumulate_conv2d(codes, grids, weight, window)
    assert sorted(got) == sorted(set(quantizer.level_of_channel))
    for (level, *at), total in want.items():
        assert (int(got[level][tuple(at)]) if level in got else 0) == total


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 40), signed=st.booleans())
@settings(max_examples=20, deadline=None)
def test_linear_is_the_big_integer_sum(seed: int, k: int, signed: bool) -> None:
    rng = np.random.default_rng(seed)
    quantizer = quantizer_for(Palette.parse("w1a2+w4a4+w8a8"), k, signed, rng)
    grids = deployment.channel_grids(quantizer)
    codes = deployment.requantize(rng.normal(0, 4, (3, k)).astype(np.float32), grids)
    weight = random_weight(quantizer, (5, k), 1, rng)
    as_integers = deployment.integers(codes, grids)
    for level, got in deployment.accumulate_linear(codes, grids, weight).items():
        chosen = [c for c in range(k) if quantizer.level_of_channel[c] == level]
        for row, out in np.ndindex(3, 5):
            assert int(got[row, out]) == sum(int(as_integers[row, c]) * int(weight[out, c]) for c in chosen)


@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(1, 7), k=st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_unsigned_sum_from_its_zero_free_twin(seed: int, bits: int, k: int) -> None:
    """sum(w u) = (sum(w z) + c sum(w)) / 2, exactly, for odd w."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, k).astype(np.uint8)
    w = ZeroFree.integers(rng.integers(0, 2**bits, k).astype(np.uint8), bits).astype(np.int64)
    twice = int((w * ZeroFree.integers(codes, bits)).sum()) + (2**bits - 1) * int(w.sum())
    assert twice % 2 == 0
    assert int((w * Unsigned.integers(codes, bits)).sum()) == twice // 2


def test_sums_beyond_fp32_stay_exact() -> None:
    """255 * 127 * 600 = 19,431,000 > 2**24: an odd total needs fp64."""
    k = 601
    weight = np.full((1, k), 127)
    weight[0, 0] = 1
    values = np.full((1, k), 255)
    assert int(deployment.exact_matmul(values, weight, 255)[0, 0]) == 255 * (127 * 600 + 1)


def test_sums_beyond_int32_are_refused() -> None:
    k = 2**31 // (255 * 127) + 1
    with pytest.raises(OverflowError, match=r"below 2\*\*31"):
        deployment.exact_matmul(np.full((1, k), 255), np.full((1, k), 127), 255)


def test_epilogue_adds_in_palette_order() -> None:
    """(2**24 + 1) - 2**24 in fp32 is 0, in the other order 1: the order of the sum shows."""
    accumulators = {1: np.full((1, 1), 1.0), 0: np.full((1, 1), 2.0**24), 2: np.full((1, 1), -(2.0**24))}
    ones = np.ones((3, 1), dtype=np.float32)
    assert deployment.epilogue(accumulators, ones, np.zeros(1, dtype=np.float32))[0, 0] == 0.0
    swapped = {0: accumulators[0], 1: accumulators[2], 2: accumulators[1]}
    assert deployment.epilogue(swapped, ones, np.zeros(1, dtype=np.float32))[0, 0] == 1.0


def test_requantize_equals_the_formats() -> None:
    rng = np.random.default_rng(0)
    for signed in (False, True):
        quantizer = quantizer_for(Palette.parse("w1a1+w2a2+w4a4+w8a8"), 12, signed, rng)
        values = rng.normal(0, 3, (4, 12, 3, 3)).astype(np.float32)
        codes = deployment.requantize(values, deployment.channel_grids(quantizer))
        for channel, level in enumerate(quantizer.level_of_channel):
            form = quantizer.palette.levels[level].activation_format(signed=signed)
            want = format_of(form).quantize(values[:, channel], quantizer.steps[level], form.bits)
            np.testing.assert_array_equal(codes[:, channel], want)
