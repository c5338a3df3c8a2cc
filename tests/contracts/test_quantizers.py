"""What every fake quantizer must keep; the registry decides which there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse import registry
from soniq_dse.quantizers import Base, TensorGrid

FORMATS = [(name, bits) for name in registry.names("format") for bits in registry.load("format", name).widths]
UNITS = registry.names("quantizer")


def unit(name: str) -> type[Base]:
    return registry.load("quantizer", name)


def tensor_grid(family: str, bits: int) -> TensorGrid:
    return TensorGrid.of(registry.load("format", family).grid(bits))


def sample(seed: int, family: str, bits: int, step: float, shape: tuple[int, ...] = (6, 40)) -> torch.Tensor:
    reach = 2.5 * registry.load("format", family).grid(bits).magnitude * step
    return torch.from_numpy(np.random.default_rng(seed).uniform(-reach, reach, shape).astype(np.float32))


KEY = torch.tensor(0x1234_5678_9ABC_DEF0)


def test_the_units_of_both_phases_are_there() -> None:
    assert {"noise", "ste", "lsq"} <= set(UNITS)


@pytest.mark.parametrize("name", [name for name in UNITS if unit(name).exact])
@pytest.mark.parametrize(("family", "bits"), FORMATS)
@given(seed=st.integers(0, 2**32 - 1), step=st.floats(2.0**-16, 2.0**16, width=32))
@settings(max_examples=5, deadline=None)
def test_forward_equals_the_format_bit_for_bit(name: str, family: str, bits: int, seed: int, step: float) -> None:
    form = registry.load("format", family)
    values = sample(seed, family, bits, step)
    got = unit(name).apply(values, torch.tensor(step), tensor_grid(family, bits))
    want = form.dequantize(form.quantize(values.numpy(), step, bits), step, bits)
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize(("family", "bits"), FORMATS)
def test_gradients_are_finite_and_clipped_beyond_the_codes_where_they_say_so(name: str, family: str, bits: int) -> None:
    quantizer, grid = unit(name), tensor_grid(family, bits)
    values = sample(1, family, bits, 0.25).requires_grad_()
    step = torch.tensor(0.25, requires_grad=True)
    out = quantizer.apply(values, step, grid, KEY)
    weights = torch.linspace(-1, 2, values.numel()).view_as(values)
    (out * weights).sum().backward()
    assert out.shape == values.shape
    assert torch.isfinite(out).all()
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()
    assert step.grad is None or (step.grad.shape == () and bool(torch.isfinite(step.grad)))
    slack = 0.0 if quantizer.exact else 0.25 * grid.multiplier / 2
    with torch.no_grad():
        bottom = -grid.top if grid.signed else 0.0
        beyond = (values > 0.25 * grid.top + slack) | (values < 0.25 * bottom - slack)
        within = (values < 0.25 * grid.top) & (values > 0.25 * bottom)
    assert beyond.any()
    assert within.any()
    if quantizer.clipped:
        assert not values.grad[beyond].any()
    else:
        torch.testing.assert_close(values.grad[beyond], weights[beyond], rtol=0, atol=0)
    torch.testing.assert_close(values.grad[within], weights[within], rtol=0, atol=0)


@pytest.mark.parametrize("name", UNITS)
def test_channels_may_differ_in_step_and_grid(name: str) -> None:
    """Three channels at once give what three calls give."""
    quantizer = unit(name)
    forms = [("zerofree", 1, 0.5), ("zerofree", 4, 0.1), ("int8", 8, 0.01)]
    values = torch.from_numpy(np.random.default_rng(3).normal(0, 1, (5, 3, 7)).astype(np.float32))
    column = lambda numbers: torch.tensor(numbers).view(1, 3, 1)  # noqa: E731
    grids = [tensor_grid(family, bits) for family, bits, _ in forms]
    together = TensorGrid.stacked([registry.load("format", family).grid(bits) for family, bits, _ in forms])
    together = together.map(lambda part: part.view(1, 3, 1))
    got = quantizer.apply(values, column([step for *_, step in forms]), together, KEY)
    for channel, (_, _, step) in enumerate(forms):
        # The noise depends on the place of a value: the other channels stay where they are.
        want = quantizer.apply(values, torch.tensor(step), grids[channel], KEY)
        torch.testing.assert_close(got[:, channel], want[:, channel], rtol=1e-6, atol=1e-7)
