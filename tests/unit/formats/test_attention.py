"""Attention and norms of the golden evaluation against plain ones in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.formats.attention import LEAST_EXPONENT, attention, exponentials
from soniq_dse.formats.normalisation import lane_sum, layer_norm

U = 2.0**-24


def test_exponentials_are_within_a_unit_in_the_last_place() -> None:
    x = -np.geomspace(1e-30, 87, 200_001).astype(np.float32)
    x = np.concatenate([x[x >= LEAST_EXPONENT], np.float32([0, -0.0, LEAST_EXPONENT])])
    expected = np.exp(x.astype(np.float64))
    assert np.abs(exponentials(x) - expected).max(initial=0) <= 1
    assert (np.abs(exponentials(x) - expected) / np.spacing(expected.astype(np.float32))).max() <= 1
    assert exponentials(np.float32([0, -0.0])).tolist() == [1, 1]
    assert exponentials(np.float32([-87.001, -1e4, -np.inf])).tolist() == [0, 0, 0]


def test_lane_sum_adds_in_its_order() -> None:
    values = np.zeros(37, np.float32)
    values[[0, 16, 32]] = 1, 2.0**24, 1  # 1 + 2**24 loses the 1, and so does the next one
    values[8] = 3
    assert lane_sum(values) == np.float32(np.float32(np.float32(1 + 2**24) + 1) + 3)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 70), seed=st.integers(0, 99))
def test_lane_sum_is_a_sum(n: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((3, n)).astype(np.float32)
    exact = values.astype(np.float64).sum(axis=-1)
    assert (np.abs(lane_sum(values) - exact) <= (n + 4) * U * np.abs(values).sum(axis=-1)).all()


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 70), seed=st.integers(0, 99))
def test_layer_norm(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, gain, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, n), n, n))
    exact = x.astype(np.float64) - x.mean(axis=-1, dtype=np.float64, keepdims=True)
    exact = exact / np.sqrt((exact**2).mean(axis=-1, keepdims=True) + 1e-5) * gain + bias
    # Cancellation in x - mean, a sum of n squares and six more roundings, each relative to what it rounds.
    largest = np.abs(exact - bias).max() + np.abs(bias).max()
    bound = 4 * (n + 16) * U * (largest + np.abs(gain).max() * np.abs(x).max() / x.std(axis=-1).min())
    assert np.abs(layer_norm(x, gain, bias, 1e-5) - exact).max() <= bound


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_attention(data: st.DataObject) -> None:
    heads, of_head, causal = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9)), data.draw(st.booleans())
    tokens = data.draw(st.integers(1, 20))
    others = tokens if causal else data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shapes = [(2, n, heads * of_head) for n in (tokens, others, others)]
    q, k, v = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    hidden = np.where(rng.random((2, others)) < 0.3, -1e4, 0).astype(np.float32) if data.draw(st.booleans()) else None
    split = [t.astype(np.float64).reshape(2, -1, heads, of_head).transpose(0, 2, 1, 3) for t in (q, k, v)]
    scores = split[0] @ split[1].swapaxes(-1, -2) * 0.5
    if hidden is not None:
        scores += hidden[:, None, None, :]
    if causal:
        scores = np.where(np.tri(tokens, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    exact = (weights / weights.sum(axis=-1, keepdims=True)) @ split[2]
    exact = exact.transpose(0, 2, 1, 3).reshape(q.shape)
    found = attention(q, k, v, heads=heads, scale=0.5, causal=causal, hidden=hidden)
    # The error of a score (a sum of of_head products, up to 1e4 added) goes over into its weight; then a sum of others.
    of_scores = U * (of_head + 3) * (np.abs(split[0]).max() * np.abs(split[1]).max() * of_head)
    of_scores += 2 * U * 1e4 if hidden is not None else 0
    assert np.abs(found - exact).max() <= (4 * of_scores + 4 * U * (others + 8)) * np.abs(v).max()
    assert found.dtype == np.float32


def test_what_is_hidden_or_comes_later_has_no_influence() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 6, 8)).astype(np.float32) for _ in range(3))
    hidden = np.float32([[0, -1e4, 0, 0, -1e4, 0]])
    other_k, other_v = k.copy(), v.copy()
    other_k[0, [1, 4]], other_v[0, [1, 4]] = 1, 99
    plain = attention(q, k, v, heads=2, scale=0.5, causal=False, hidden=hidden)
    np.testing.assert_array_equal(
        plain, attention(q, other_k, other_v, heads=2, scale=0.5, causal=False, hidden=hidden)
    )
    causal = attention(q, k, v, heads=2, scale=0.5, causal=True)
    other_v[0, 3:] = 7
    other_v[0, :3] = v[0, :3]
    again = attention(q, np.concatenate([k[:, :3], other_v[:, 3:]], axis=1), other_v, heads=2, scale=0.5, causal=True)
    np.testing.assert_array_equal(causal[:, :3], again[:, :3])
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(causal, again)
