"""Attention of the golden evaluation: fp32, every operation rounded on its own, every sum in one order.

For query i and other j of a head with d channels each:

score     ``s = 0; s = s + q[i, c] * k[j, c]`` for each channel c in order; ``s = s * scale``; ``s = s + hidden`` where
          some others may be hidden (0 for those that are not)
weight    ``e = exp(s - max over j)`` by ``exponentials``; causal: only others j <= i count, the rest has weight 0
output    ``o = 0; o = o + e[j] * v[j, c]`` for each j in order; ``o = o * (1 / lane_sum(e))``

What weighs 0 may be left out: adding 0 changes nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from soniq_dse.formats.normalisation import lane_sum

Floats = npt.NDArray[np.float32]
LEAST_EXPONENT = np.float32(-87)
"""What lies below has the exponential 0; all that is left is normal in fp32."""
LOG2_E = np.float32(1.44269504)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
COEFFICIENTS = tuple(
    np.float32(c)
    for c in (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    )
)
"""Of exp(r) = 1 + r + r**2 * p(r) on |r| <= ln(2) / 2, highest power first. Source: Cephes, expf."""


def exponentials(x: Floats) -> Floats:
    """exp of fp32 numbers that are not positive, within one unit in the last place (0.98 over every seventh of them).

    ``n = rint(x * LOG2_E); r = x - n * LN2_HIGH; r = r - n * LN2_LOW``; p by Horner's rule;
    ``(p * (r * r) + r + 1) * 2**n``.
    """
    bounded = np.maximum(x, LEAST_EXPONENT)
    n = np.rint(bounded * LOG2_E)
    r = bounded - n * LN2_HIGH
    r -= n * LN2_LOW
    p = np.full_like(r, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        p = p * r + coefficient
    y = p * (r * r) + r + np.float32(1)
    power = ((n.astype(np.int32) + 127) << 23).view(np.float32)
    return np.asarray(np.where(x < LEAST_EXPONENT, np.float32(0), y * power))


def attention(
    query: Floats, key: Floats, value: Floats, *, heads: int, scale: float, causal: bool, hidden: Floats | None = None
) -> Floats:
    """``query [n, tokens, channels]``, ``key`` and ``value [n, others, channels]``, ``hidden [n, others]`` (what is
    added to scores) -> ``[n, tokens, channels]``."""
    result = np.empty_like(query)
    for index in range(len(query)):  # a sample at a time: its scores stay in cache
        q, k, v = (_by_head(tensor[index], heads) for tensor in (query, key, value))
        of_sample = None if hidden is None else hidden[index]
        mixed = _of_heads(q, k, v, np.float32(scale), causal, of_sample)
        result[index] = mixed.transpose(1, 0, 2).reshape(query.shape[1:])
    return result


def _by_head(tensor: Floats, heads: int) -> Floats:
    """``[tokens, channels]`` -> ``[heads, tokens, channels / heads]``."""
    return np.asarray(tensor.reshape(len(tensor), heads, -1).transpose(1, 0, 2))


def _of_heads(q: Floats, k: Floats, v: Floats, scale: np.float32, causal: bool, hidden: Floats | None) -> Floats:
    others = np.ascontiguousarray(k.transpose(0, 2, 1))
    scores = np.zeros((*q.shape[:2], k.shape[1]), np.float32)
    for channel in range(q.shape[2]):
        scores += q[:, :, channel, None] * others[:, channel, None, :]
    scores *= scale
    if hidden is not None:
        scores += hidden
    counts = np.tri(q.shape[1], k.shape[1], dtype=bool) if causal else np.ones((q.shape[1], k.shape[1]), bool)
    highest = np.where(counts, scores, -np.inf).max(axis=-1, keepdims=True).astype(np.float32)
    weights = np.where(counts, exponentials(np.minimum(scores - highest, np.float32(0))), np.float32(0))
    mixed = np.zeros_like(q)
    for other in range(k.shape[1]):
        mixed += weights[:, :, other, None] * v[:, other, None, :]
    return np.asarray(mixed * (np.float32(1) / lane_sum(weights))[..., None])
