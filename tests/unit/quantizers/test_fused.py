"""The C++ passes and the torch passes give the same numbers, in every arrangement of values and parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from soniq_dse.formats import Grid
from soniq_dse.quantizers import TensorGrid, fused
from soniq_dse.quantizers.lsq import LearnedStep
from soniq_dse.quantizers.noise import add_noise

KEY = torch.tensor(-0x1234_5678_9ABC_DEF1)
TABLES = {
    "zero-free 2 bits": ([[2.0], [3.0], [0.0], [3.0]], True),
    "unsigned 4 bits": ([[1.0], [0.0], [0.0], [15.0]], False),
    "int8": ([[1.0], [128.0], [1.0], [255.0]], True),
}
ARRANGEMENTS = [(1, 1, 1000), (3, 5, 33), (70, 37, 1), (1, 64, 9), (2, 3, 40000), (2000, 8, 1)]


@pytest.fixture
def native() -> None:
    if fused._library() is None:
        pytest.skip("no C++ compiler")


def both(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> tuple[object, object]:
    first = call()
    monkeypatch.setattr(fused, "_native", lambda *tensors: None)
    return first, call()


def assert_equal_but_for_sums(first: object, second: object, magnitude: Tensor) -> None:
    """Elementwise results to the bit; sums of n values to n * 2**-24 of the sum of magnitudes, ``[period]``."""
    (value, *sums), (want, *want_sums) = first, second
    assert torch.equal(value, want)
    for got, expected in zip(sums, want_sums, strict=True):
        assert ((got - expected).abs() <= magnitude).all()


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("sizes", ARRANGEMENTS)
@pytest.mark.parametrize("signed", [True, False])
def test_noise_is_equal_to_the_bit(sizes: tuple[int, int, int], signed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, period, inner = sizes
    torch.manual_seed(rows)
    values, gradient = torch.randn(2, rows * period * inner)
    values[::7] = 0.0
    half, edge = torch.rand(period) + 0.05, torch.rand(period) + 0.5
    values[0] = edge[0]
    forward = both(monkeypatch, lambda: fused.noise(values, half, edge, inner, signed, KEY))
    assert torch.equal(*forward)
    monkeypatch.undo()
    backward = both(monkeypatch, lambda: fused.noise_backward(gradient, values, edge, inner, signed, KEY))
    magnitude = gradient.view(rows, period, inner).abs().sum(dim=(0, 2)) * rows * inner * 2**-24
    assert_equal_but_for_sums(*backward, magnitude)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("sizes", ARRANGEMENTS)
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("one", [True, False])
def test_rounding_is_equal_to_the_bit(
    sizes: tuple[int, int, int], name: str, one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, period, inner = sizes
    torch.manual_seed(rows)
    values, gradient = torch.randn(2, rows * period * inner)
    values[3] = 1e30
    table, signed = torch.tensor(TABLES[name][0]), TABLES[name][1]
    table = table if one else table.repeat(1, period)
    step = torch.rand(period) / table[3, 0] + 1e-3
    ties = torch.arange(len(values)) % period == 0 if inner == 1 else torch.zeros(len(values), dtype=torch.bool)
    values[ties] = 1.5 * step[0] * table[0, 0]
    forward = both(monkeypatch, lambda: fused.rounded(values, step, table, inner))
    assert torch.equal(*forward)
    monkeypatch.undo()
    backward = both(monkeypatch, lambda: fused.rounded_backward(gradient, values, step, table, inner, signed))
    terms = (gradient * forward[1]).abs() + (gradient * values.clamp(-9, 9)).abs()
    magnitude = terms.view(rows, period, inner).sum(dim=(0, 2)) / step * rows * inner * 2**-24
    assert_equal_but_for_sums(*backward, magnitude)


def test_noise_is_uniform_and_keys_and_places_are_independent() -> None:
    first, second = fused.uniform_noise(2**18, KEY), fused.uniform_noise(2**18, KEY + 1)
    for sample in (first, second, first[::2], first[::256]):
        n = len(sample)
        assert float(sample.mean()) == pytest.approx(0, abs=5 / (3 * n) ** 0.5)
        assert float(sample.square().mean()) == pytest.approx(1 / 3, abs=5 * 0.3 / n**0.5)
    for other in (second, first.roll(1), first.roll(64)):
        assert abs(float((first * other).mean())) < 5 / 3 / 2**9
    assert float(first.abs().max()) <= 1
    assert torch.histc(first, 64, -1, 1).std() < 2 * (2**18 / 64) ** 0.5


def quantized(values: Tensor, per_channel: bool, noisy: bool) -> tuple[Tensor, Tensor]:
    """(result in contiguous order, gradient of the step or half) for values ``[2, 6, 5, 7]`` of any memory order."""
    parameter = torch.linspace(0.05, 0.3, 6).view(1, 6, 1, 1) if per_channel else torch.tensor(0.2)
    parameter.requires_grad_()
    if noisy:
        out = add_noise(values, parameter, parameter.detach() * 4, KEY, signed=True)
    else:
        out = LearnedStep.apply(values, parameter, TensorGrid.of(Grid(2, 3, 0, 3)))
    (out * values.detach()).sum().backward()
    assert out.dtype == values.dtype
    return out.detach().contiguous(), parameter.grad


@pytest.mark.parametrize("per_channel", [True, False])
def test_channels_last_is_kept_and_rounds_alike(per_channel: bool) -> None:
    values = torch.randn(2, 6, 5, 7)
    last = values.to(memory_format=torch.channels_last)
    parameter = torch.tensor(0.2)
    out = LearnedStep.apply(last, parameter, TensorGrid.of(Grid(2, 3, 0, 3)))
    assert out.is_contiguous(memory_format=torch.channels_last)
    (first, gradient), (second, other) = (quantized(v, per_channel, False) for v in (values, last))
    assert torch.equal(first, second)
    torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noisy", [True, False])
def test_sixteen_bits_are_computed_in_fp32(noisy: bool) -> None:
    values = torch.randn(2, 6, 5, 7).bfloat16()
    narrow, _ = quantized(values, True, noisy)
    wide, _ = quantized(values.float(), True, noisy)
    assert torch.equal(narrow, wide.bfloat16())


@pytest.mark.parametrize("noisy", [True, False])
def test_compiles_in_one_graph(noisy: bool) -> None:
    values = torch.randn(2, 6, 5, 7, requires_grad=True)
    step = torch.tensor(0.2, requires_grad=True)
    grid = TensorGrid.of(Grid(2, 3, 0, 3))

    def function(values: Tensor, step: Tensor) -> Tensor:
        return add_noise(values, step, 4 * step, KEY, signed=True) if noisy else LearnedStep.apply(values, step, grid)

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    results = []
    for call in (function, compiled):
        out = call(values, step)
        results.append((out.detach(), *torch.autograd.grad(out.square().sum(), (values, step))))
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)


def test_parameters_of_16_bits_are_not_read_as_32() -> None:
    values, half, edge = torch.zeros(4096), torch.full((64,), 0.5), torch.ones(64)
    expected = fused.noise(values + 0.1, half, edge, 1, True, KEY)
    got = fused.noise(values + 0.1, half.bfloat16(), edge.bfloat16(), 1, True, KEY)
    assert torch.equal(got, expected)
