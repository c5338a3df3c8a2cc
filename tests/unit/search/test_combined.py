"""What the default strategy expects a design to add, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from soniq_dse.search.combined import expected_gains

LATENCY = np.array([2.0, 4.0, 4.0, 6.0])
REFERENCE = (10.0, 8.0)


def test_a_design_adds_what_those_before_do_not_cover() -> None:
    """Costs 6, 3, 3 and 5; seen is the first: it covers costs from 6 on at 2 and more.

    The second adds (6 - 3) from 4 to 8: 12; the last (6 - 5) from 6 to 8: 2.
    """
    gains = expected_gains(np.array([[6.0, 3.0, 3.0, 5.0]]), LATENCY, {0}, REFERENCE)
    assert gains == pytest.approx([0.0, 12.0, 12.0, 2.0])


def test_nothing_seen_leaves_the_box_up_to_the_reference() -> None:
    assert expected_gains(np.array([[6.0, 3.0, 10.0, 5.0]]), LATENCY, (), REFERENCE) == pytest.approx([24, 28, 0, 10])


def test_what_a_design_shares_with_a_seen_one_adds_nothing() -> None:
    """In each draw the third is as good as the second, which is seen; the first is luckier in one of two draws."""
    draws = np.array([[6.0, 1.0, 1.0, 9.0], [0.5, 7.0, 7.0, 9.0]])
    gains = expected_gains(draws, LATENCY, {1}, REFERENCE)
    assert gains[2] == 0.0
    # First draw: 4 below the reference from 2 to 4: 8. Second: 9.5 there, and 6.5 below the seen one from 4 to 8: 45.
    assert gains[0] == pytest.approx((8 + 45) / 2)
