"""Layers of fp32 activations and integer weights: per output a chain of fused multiply-adds, as their kernels do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def fused_multiply_add(a: npt.ArrayLike, b: npt.ArrayLike, c: Floats) -> Floats:
    """``a * b + c`` of fp32 numbers, rounded once.

    The product is exact in fp64. Its sum with c is rounded to odd there, the last bit being set where something is
    lost, after which rounding to fp32 is that of the exact sum. Source: Boldo and Melquiond, Emulation of a FMA and
    correctly rounded sums, IEEE Transactions on Computers, 2008.
    """
    product: Any = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    term = c.astype(np.float64)
    total = np.asarray(product + term)
    back = total - product
    lost = (product - (total - back)) + (term - back)
    bits = total.view(np.int64)
    away = np.where((lost > 0) == (total > 0), 1, -1)
    bits += np.where((lost != 0) & (bits & 1 == 0), away, 0)
    return np.asarray(total.astype(np.float32))


def weight_only(x: Floats, weight: npt.NDArray[np.int8], scale: Floats, bias: Floats) -> Floats:
    """fp32 ``[..., in_features]`` -> ``[..., out_features]``.

    ``t = 0; t = fma(x[i], f32(w[o, i]), t)`` for each i in order; ``y = t * scale[o] + bias[o]``, two roundings.
    """
    rows = x.reshape(-1, x.shape[-1])
    total = np.zeros((len(rows), len(weight)), np.float32)
    for index in range(x.shape[-1]):
        total = fused_multiply_add(rows[:, index, None], weight[None, :, index], total)
    return np.asarray(total * scale + bias).reshape(*x.shape[:-1], len(weight))
