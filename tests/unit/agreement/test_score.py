"""Scores of predictions by hand-made numbers, worked in the comments."""

from __future__ import annotations

import pytest

from soniq_dse.agreement import Pair, coverage_p_value, regret, score


def test_errors_are_relative_to_what_was_measured() -> None:
    # 110/100 and 180/200: 10 % too slow, 10 % too fast; 300/200: 50 % too slow.
    found = score([Pair(110, 100), Pair(180, 200), Pair(300, 200)])
    assert found.n == 3
    assert found.mape_percent == pytest.approx(70 / 3)
    assert found.median_percent == pytest.approx(10)
    assert found.worst_percent == pytest.approx(50)
    assert found.bias_percent == pytest.approx(10)  # the middle of -10, 10, 50


def test_tau_counts_pairs_in_order() -> None:
    # Orders 1 2 3 4 and 1 3 2 4: five pairs agree, one does not: (5 - 1) / 6.
    assert score([Pair(1, 1), Pair(2, 3), Pair(3, 2), Pair(4, 4)]).tau == pytest.approx(4 / 6)


def test_the_order_is_of_the_rates_where_they_are_given() -> None:
    pairs = [Pair(1, 1), Pair(2, 2)]
    assert score(pairs).tau == 1
    assert score(pairs, [Pair(2, 1), Pair(1, 2)]).tau == -1


def test_nothing_gives_no_number() -> None:
    assert score([]).mape_percent is None
    assert score([Pair(1, 1)]).tau is None


def test_regret_is_what_the_predicted_best_costs_over_the_best() -> None:
    wrong, right, lone = [Pair(1, 12), Pair(2, 10)], [Pair(1, 3), Pair(2, 4)], [Pair(1, 9)]
    assert regret([wrong, right, lone]) == pytest.approx([20, 0])


def test_coverage_is_tested_against_its_nominal() -> None:
    assert coverage_p_value(90, 100) > 0.9
    assert coverage_p_value(60, 100) < 1e-9
    assert coverage_p_value(200, 200) < 1e-6  # intervals that always hold are too wide
