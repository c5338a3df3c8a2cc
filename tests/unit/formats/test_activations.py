"""GELU of the golden evaluation against the exact one in float64 and PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.formats.activations import TAILS, clip, gelu

U = 2.0**-24


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_within_its_bound(approximate: Any) -> None:
    x = np.concatenate([np.linspace(-12, 12, 400_001), *(s * np.geomspace(1e-38, 3e38, 20_001) for s in (1, -1))])
    x = x.astype(np.float32)
    exact = torch.nn.functional.gelu(torch.from_numpy(x).double(), approximate=approximate).numpy()
    error = np.abs(gelu(x, approximate) - exact)
    assert (error <= TAILS[approximate].error + U * np.abs(x)).all()
    assert error.max() > 0
    in_torch = torch.nn.functional.gelu(torch.from_numpy(x), approximate=approximate).numpy()
    small = np.abs(x) < 8
    assert np.abs(gelu(x, approximate) - in_torch)[small].max() < 2e-6  # PyTorch is within 1.2e-6


def test_the_two_forms_differ() -> None:
    x = np.linspace(-6, 6, 10_001).astype(np.float32)
    assert 4e-4 < np.abs(gelu(x, "none") - gelu(x, "tanh")).max() < 5e-4


def test_gelu_of_what_is_no_ordinary_number() -> None:
    x = np.float32([0, -0.0, np.inf, -np.inf, 1e-45, 100])
    y = gelu(x)
    assert y[:3].tolist() == [0, 0, np.inf]
    assert -2.5e-7 < y[3] < 0
    assert y[5] == 100
    assert gelu(np.float32([np.nan])).dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1), st.floats(2**-10, 100, width=32))
def test_clip(values: list[float], most: float) -> None:
    x = np.float32(values)
    np.testing.assert_array_equal(clip(x, most), np.clip(x, 0, np.float32(most)))
