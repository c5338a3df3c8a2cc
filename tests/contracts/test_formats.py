"""What every number format must keep; the registry decides which there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse import registry
from soniq_dse.formats import Base

CASES = [(name, bits) for name in registry.names("format") for bits in registry.load("format", name).widths]
steps = st.floats(2.0**-20, 2.0**20, width=32)


def unit(name: str) -> type[Base]:
    return registry.load("format", name)


def every_code(name: str, bits: int) -> np.ndarray:
    grid = unit(name).grid(bits)
    return np.arange(grid.lo, grid.hi + 1).astype(np.uint8)


def test_the_families_of_the_deployment_arithmetic_are_there() -> None:
    assert {"zerofree", "unsigned", "int8"} <= set(registry.names("format"))


@pytest.mark.parametrize("name", registry.names("format"))
def test_family_is_the_file_name_and_other_widths_are_refused(name: str) -> None:
    family = unit(name)
    assert family.family == name
    for bits in {0, 9, 16} - set(family.widths):
        with pytest.raises(ValueError, match=f"bits of {name}: expected one of .* got {bits}"):
            family.levels(bits)


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_codes_count_the_levels_upwards_and_fit_the_width(name: str, bits: int) -> None:
    levels, codes = unit(name).levels(bits), every_code(name, bits)
    assert np.all(np.diff(levels) > 0)
    assert int(codes.max()) < 2**bits
    np.testing.assert_array_equal(unit(name).integers(codes, bits), levels)
    assert levels[0] in (0, -levels[-1]), "fake quantizers rely on grids that are symmetric or start at 0"


@pytest.mark.parametrize(("name", "bits"), CASES)
@given(step=steps)
@settings(max_examples=20, deadline=None)
def test_round_trip_is_the_identity_on_codes(name: str, bits: int, step: float) -> None:
    codes = every_code(name, bits)
    np.testing.assert_array_equal(unit(name).quantize(unit(name).dequantize(codes, step, bits), step, bits), codes)


@pytest.mark.parametrize(("name", "bits"), CASES)
@given(step=steps, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_quantize_is_monotone_nearest_and_saturates(name: str, bits: int, step: float, seed: int) -> None:
    grid, levels = unit(name).grid(bits), unit(name).levels(bits)
    spread = 1.5 * grid.magnitude * step
    values = np.sort(np.random.default_rng(seed).uniform(-spread, spread, 400)).astype(np.float32)
    codes = unit(name).quantize(values, step, bits)
    assert np.all(np.diff(codes.astype(int)) >= 0)
    assert grid.lo <= codes.min() <= codes.max() <= grid.hi
    # v = f32(f32(x * inv) + shift), |v| <= 1.5 * 2 * 256: three roundings of 2**-24 each move a tie by < 2**-13.
    exact = values.astype(np.float64) / np.float32(step)
    best = np.abs(exact[:, None] - levels).min(axis=1)
    got = np.abs(exact - unit(name).integers(codes, bits))
    assert np.all(got - best <= grid.multiplier * 2.0**-12)


@pytest.mark.parametrize(("name", "bits"), CASES)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(0, 67))
@settings(max_examples=20, deadline=None)
def test_unpack_inverts_pack_in_true_bits(name: str, bits: int, seed: int, k: int) -> None:
    codes = np.random.default_rng(seed).choice(every_code(name, bits), (3, k))
    packed = unit(name).pack(codes, bits)
    assert packed.shape == (3, -(-k * bits // 8))
    np.testing.assert_array_equal(unit(name).unpack(packed, k, bits), codes)
    # The documented bit order, worked with Python's integers.
    for row, bytes_ in zip(codes, packed, strict=True):
        stream = sum(int(code) << (i * bits) for i, code in enumerate(row))
        assert bytes_.tobytes() == stream.to_bytes(len(bytes_), "little")


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_padding_code_is_the_nearest_to_zero_from_above(name: str, bits: int) -> None:
    levels = unit(name).levels(bits)
    grid = unit(name).grid(bits)
    assert grid.integer(grid.zero_code) == levels[levels >= 0].min()


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_what_is_no_number_is_refused(name: str, bits: int) -> None:
    with pytest.raises(ValueError, match="NaN"):
        unit(name).quantize([0.0, float("nan")], 1.0, bits)
    with pytest.raises(ValueError, match="positive"):
        unit(name).quantize([0.0], 0.0, bits)
