"""The fused multiply-add of the golden evaluation, rounded once, against exact rational numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.formats.weight_only import fused_multiply_add, weight_only

FLOATS = st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False)


def rounded(exact: Fraction) -> np.float32:
    """The nearest fp32 number, of two the even one."""
    near = np.float32(float(exact))  # a double rounding, at most one step off
    steps = [near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))]
    return min(steps, key=lambda v: (abs(Fraction(float(v)) - exact), int(np.float32(v).view(np.uint32)) & 1))


@settings(max_examples=300, deadline=None)
@given(a=FLOATS, b=st.integers(-127, 127), c=FLOATS)
def test_it_rounds_once(a: float, b: int, c: float) -> None:
    found = fused_multiply_add(np.float32([a]), np.float32([b]), np.float32([c]))[0]
    exact = Fraction(a) * b + Fraction(c)
    if abs(exact) < 2.0**-120:
        return
    assert found == rounded(exact)


def test_where_two_roundings_would_err() -> None:
    """Exactly half a step and a little more: fp64 loses the little, and rounding half to even goes down."""
    a, b, c = np.float32([2.0**-24 + 2.0**-47]), np.float32([1.0]), np.float32([1.0])
    assert fused_multiply_add(a, b, c)[0] == np.float32(1 + 2.0**-23)
    a, b, c = np.float32([2.0**-60]), np.float32([1.0]), np.float32([1 + 2.0**-23])
    assert fused_multiply_add(a, b, c)[0] == c[0]


def test_a_layer_is_close_to_exact_sums() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 5, 37)).astype(np.float32), rng.integers(-127, 128, (9, 37)).astype(np.int8)
    scale, bias = rng.uniform(0.5, 1, 9).astype(np.float32), rng.standard_normal(9).astype(np.float32)
    exact = (x.astype(np.float64) @ weight.T) * scale + bias
    bound = (37 + 3) * 2.0**-24 * (np.abs(x).astype(np.float64) @ np.abs(weight.T.astype(np.float64)) + np.abs(bias))
    assert (np.abs(weight_only(x, weight, scale, bias) - exact) <= bound).all()
