"""LayerNorm of the golden evaluation, and the one order in which it and softmax add: 16 lanes, as vectors do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
LANES = 16


def lane_sum(values: Floats) -> Floats:
    """fp32 ``[..., n]`` -> ``[...]``.

    Lane l adds the elements l, l + 16, l + 32 ... to +0 in their order; then lanes l and l + 8 are added, of these sums
    l and l + 4, then l and l + 2, then the last two.
    """
    n = values.shape[-1]
    lanes: Any = np.zeros((*values.shape[:-1], LANES), np.float32)
    for at in range(0, n, LANES):
        part = values[..., at : at + LANES]
        lanes[..., : part.shape[-1]] += part
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half:]
    return np.asarray(lanes[..., 0])


def layer_norm(x: Floats, gain: Floats, bias: Floats, eps: float) -> Floats:
    """fp32 ``[..., channels]``, every operation rounded to fp32 on its own.

    ``mean = sum(x) * f32(1 / channels)``, ``d = x - mean``, ``variance = sum(d * d) * f32(1 / channels)``,
    ``y = d * (1 / sqrt(variance + eps)) * gain + bias`` from left to right; sums are ``lane_sum``.
    """
    share = np.float32(1 / x.shape[-1])
    centred = x - (lane_sum(x) * share)[..., None]
    variance = lane_sum(centred * centred) * share
    inverse = np.float32(1) / np.sqrt(variance + np.float32(eps))
    return np.asarray(centred * inverse[..., None] * gain + bias)
