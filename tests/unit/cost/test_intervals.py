"""Split-conformal intervals: ranks by hand, coverage on drawn residuals, regimes that are too small."""

from __future__ import annotations

import math

import numpy as np
import pytest

from soniq_dse.cost.intervals import FEWEST, Intervals, conformal, regime_of


def test_ranks_by_hand() -> None:
    # 39 residuals, tails of 5 %: ranks 40 * 0.05 = 2 from either end, so the 2nd and the 38th of 39.
    residuals = [math.log(1 + (i - 20) / 100) for i in range(1, 40)]
    found = conformal(residuals)
    assert found is not None
    assert found.low == pytest.approx(1 + (2 - 20) / 100)
    assert found.high == pytest.approx(1 + (38 - 20) / 100)


def test_too_few_residuals_give_none() -> None:
    assert conformal([0.0] * 18) is None
    assert conformal([0.0] * 19) == (1.0, 1.0)


def test_the_prediction_itself_is_inside() -> None:
    found = conformal([0.5] * 50)
    assert found is not None
    assert (found.low, found.high) == (1.0, pytest.approx(math.exp(0.5)))


@pytest.mark.parametrize("seed", range(3))
def test_nine_in_ten_new_residuals_lie_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside = 0
    for _ in range(400):
        drawn = rng.standard_t(3, 101) * 0.1
        found = conformal(list(drawn[:100]))
        assert found is not None
        inside += found.low <= math.exp(drawn[100]) <= found.high
    # At least 90 % in expectation; 4 standard deviations of 400 draws are 6 %.
    assert 0.84 <= inside / 400 <= 0.98


def test_a_small_regime_is_pooled_with_the_others() -> None:
    wide, narrow = list(np.linspace(-0.5, 0.5, FEWEST)), [0.01] * (FEWEST - 1)
    found = Intervals({"wide": wide, "narrow": narrow})
    assert found.n == 2 * FEWEST - 1
    assert found.factors("narrow") == found.factors("never seen") == conformal(wide + narrow)
    assert found.factors("wide") == conformal(wide)


def test_regimes_follow_the_bound() -> None:
    assert [regime_of(bound) for bound in ("port", "l3", "overhead")] == ["core", "memory", "overhead"]
