"""GELU of the golden evaluation: fp32, every operation rounded on its own, no function that libraries differ in.

GELU is ``x * Phi(x)``, Phi the normal distribution, or in PyTorch's form ``approximate="tanh"`` a sigmoid in its place.
In both ``Phi(-x) = 1 - Phi(x)``, so that with ``a = |x|`` it is ``max(x, 0) - a * (1 - Phi(a))``. The eighth root of
``1 - Phi`` is smooth enough for a polynomial of degree 8 on ``[0, end]``; behind ``end`` what is subtracted is below
2.3e-7, and stays as it is there. 0 gives 0.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Approximate = Literal["none", "tanh"]
"""As ``torch.nn.GELU`` names its two forms."""


class Tail(NamedTuple):
    """The eighth root of ``1 - Phi(a)`` on ``[0, end]``, highest power first; found by weighted least squares
    (Lawson's iteration) on ``a * (1 - Phi(a))``.

    Results are within ``error + 2**-24 * |x|`` of GELU.
    """

    end: np.float32
    coefficients: tuple[np.float32, ...]
    error: float


def _tail(end: float, coefficients: tuple[float, ...], error: float) -> Tail:
    return Tail(np.float32(end), tuple(map(np.float32, coefficients)), error)


TAILS: dict[Approximate, Tail] = {
    "none": _tail(
        5.5,
        (
            -2.95881875e-7,
            7.47955255e-6,
            -6.02576329e-5,
            3.42950152e-5,
            1.50436244e-3,
            -6.71955757e-4,
            -3.19280773e-2,
            -9.14574116e-2,
            9.17003989e-1,
        ),
        1.2e-7,
    ),
    "tanh": _tail(
        5.0,
        (
            -3.27614362e-6,
            4.20677934e-5,
            -1.78892442e-4,
            9.97485404e-5,
            1.63099216e-3,
            -7.65037199e-4,
            -3.18183079e-2,
            -9.14860666e-2,
            9.17006314e-1,
        ),
        3.5e-7,
    ),
}


def gelu(x: Floats, approximate: Approximate = "none") -> Floats:
    """fp32 -> fp32: ``a = min(|x|, end)``, p by Horner's rule, squared three times; ``max(x, 0) - a * p``."""
    tail = TAILS[approximate]
    a = np.abs(x)
    a = np.where(a < tail.end, a, tail.end)
    p = np.full_like(a, tail.coefficients[0])
    for coefficient in tail.coefficients[1:]:
        p *= a
        p += coefficient
    for _ in range(3):
        p *= p
    return np.asarray(np.where(x > 0, x, np.float32(0)) - a * p)


def clip(x: Floats, most: float) -> Floats:
    """``min(max(x, 0), most)``."""
    positive = np.where(x > 0, x, np.float32(0))
    return np.asarray(np.where(positive < most, positive, np.float32(most)))
