"""Gradients worked from their equations."""

from __future__ import annotations

import pytest
import torch

from soniq_dse.formats import Grid
from soniq_dse.quantizers import TensorGrid
from soniq_dse.quantizers.fused import uniform_noise
from soniq_dse.quantizers.lsq import LearnedStep
from soniq_dse.quantizers.noise import UniformNoise, add_noise
from soniq_dse.quantizers.ste import StraightThrough

UNSIGNED_2 = TensorGrid.of(Grid(1, 0, 0, 3))
KEY = torch.tensor(77)
ZEROFREE_2 = TensorGrid.of(Grid(2, 3, 0, 3))


def test_learned_step_by_hand() -> None:
    """Unsigned 2 bits, step 0.5. x = 0.6 -> code 1: dy/dstep = (0.5 - 0.6) / 0.5 = -0.2; x = 9 -> 3; x = -1 -> 0."""
    for x, want_step, want_x in [(0.6, -0.2, 1.0), (9.0, 3.0, 0.0), (-1.0, 0.0, 0.0)]:
        values = torch.tensor([x], requires_grad=True)
        step = torch.tensor(0.5, requires_grad=True)
        LearnedStep.apply(values, step, UNSIGNED_2).sum().backward()
        assert values.grad is not None
        assert step.grad is not None
        assert float(step.grad) == pytest.approx(want_step, abs=1e-6)
        assert float(values.grad) == want_x


def test_straight_through_is_clipped_at_the_top_code() -> None:
    """Top code 3 at step 0.5 is 1.5: 1.49 still learns, 1.51 rounds to the same code and does not."""
    values = torch.tensor([1.49, 1.51], requires_grad=True)
    out = StraightThrough.apply(values, torch.tensor(0.5), UNSIGNED_2)
    assert out.tolist() == [1.5, 1.5]
    out.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 0.0]


def test_noise_stays_within_half_a_level_distance_and_spares_what_saturates() -> None:
    values = torch.linspace(-5, 5, 1001)
    out = UniformNoise.apply(values, torch.tensor(0.5), ZEROFREE_2, KEY)
    inside = values.abs() < 2.0  # top level 1.5, and half the distance of two levels beyond it
    torch.testing.assert_close((out - values)[inside], 0.5 * uniform_noise(1001, KEY)[inside])
    assert torch.equal(out[values >= 2], torch.full_like(out[values >= 2], 2.0))
    assert torch.equal(out[values <= -2], torch.full_like(out[values <= -2], -2.0))


def test_zeros_behind_a_relu_stay_zero() -> None:
    out = UniformNoise.apply(torch.zeros(10), torch.tensor(0.5), UNSIGNED_2, KEY)
    assert not out.any()


def test_noise_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="key: expected"):
        UniformNoise.apply(torch.zeros(1), torch.tensor(0.5), UNSIGNED_2)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_gradients_agree_with_finite_differences(signed: bool, channels: int) -> None:
    """In float64, away from the edges, where the function is smooth."""
    generator = torch.Generator().manual_seed(7)
    values = (torch.rand(4, 3, generator=generator, dtype=torch.float64) * 5 - 2.5).requires_grad_()
    half = torch.tensor([0.1, 0.2, 0.3][:channels], dtype=torch.float64, requires_grad=True)
    edge = torch.tensor([1.0, 1.1, 1.2][:channels], dtype=torch.float64, requires_grad=True)
    assert ((values > edge).any() and (values < -edge).any() and (values.abs() < edge).any()).item()
    assert torch.autograd.gradcheck(lambda *a: add_noise(*a, KEY, signed=signed), (values, half, edge), eps=1e-6)
