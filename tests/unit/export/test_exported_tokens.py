"""Transformers as ONNX and .pt2: operators within the rounding of their sums, networks up to codes at a rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from network_factory import NetworkFactory

from soniq_dse.errors import UserError
from soniq_dse.export import Base, Design
from soniq_dse.export.lowering import expect_plain
from soniq_dse.export.onnx import Onnx
from soniq_dse.export.pt2 import Pt2
from soniq_dse.formats.network import evaluate

UNIT = 2.0**-24


@pytest.fixture(params=[Onnx, pytest.param(Pt2, marks=pytest.mark.slow)])
def exporter(request: pytest.FixtureRequest) -> Base:
    found: Base = request.param()
    return found


def written(exporter: Base, net: NetworkFactory, folder: Path) -> tuple[Path, tuple[str, ...]]:
    path = folder / "net"
    return path, exporter.write(Design(net.network(), net.arrays), path)


def differences(exporter: Base, net: NetworkFactory, folder: Path, samples: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(outputs of the file in its own program, golden outputs)."""
    x, (path, _) = net.inputs(samples), written(exporter, net, folder)
    return exporter.outputs(path, x), evaluate(net.network(), net.arrays, x)


def look_up(net: NetworkFactory) -> None:
    net.add_constant(net.embedding(net.slice("x", 2, 7), 12))


def mean(net: NetworkFactory) -> None:
    net.mean_tokens(net.embedding("x", 12))


def norm(net: NetworkFactory) -> None:
    net.layer_norm(net.embedding("x", 12))


def class_token(net: NetworkFactory) -> None:
    net.token(net.prepend(net.embedding("x", 12), 2), 1)


def gelu(net: NetworkFactory, approximate: str) -> None:
    net.gelu(net.prepend(net.embedding("x", 12), 2), approximate)


def attention(net: NetworkFactory, *, causal: bool) -> None:
    x, numbers = net.embedding("x", 12), None if causal else "x"
    net.attention(x, x, x, 3, causal=causal, numbers=numbers)


@pytest.mark.parametrize(
    ("build", "roundings"),
    [
        (look_up, 0),
        (mean, 9 + 1),
        (class_token, 0),
        # Both sides are within some 4e-7 of GELU.
        (lambda net: gelu(net, "none"), 16),
        (lambda net: gelu(net, "tanh"), 16),
        # Two sums of 12, a square root, a division; values of the row, gain and bias are a few units at most.
        (norm, 10 * (12 + 5)),
        # Scores sum 4 products of numbers below 3, 36 at most, and enter the exponential; then 9 weights below 1.
        (lambda net: attention(net, causal=True), 10 * (36 * (4 + 2) + 9 + 3)),
        (lambda net: attention(net, causal=False), 10 * (36 * (4 + 2) + 9 + 3)),
    ],
)
def test_operators_within_their_roundings(
    exporter: Base, build: Callable[[NetworkFactory], None], roundings: int, tmp_path: Path
) -> None:
    net = NetworkFactory((9,), "w8a8", n_tokens=5)
    build(net)
    got, expected = differences(exporter, net, tmp_path)
    assert np.abs(got - expected).max() <= roundings * UNIT * max(1.0, np.abs(expected).max())
    assert np.abs(expected).max() > 0.1


def test_linear_layers_of_tokens_are_exact(exporter: Base, tmp_path: Path) -> None:
    net = NetworkFactory((5, 24), "w1a1+w4a4")
    net.add(net.linear(net.quantize(net.relu(net.linear(net.quantize("x", signed=True), 24)), signed=False), 24), "x")
    got, expected = differences(exporter, net, tmp_path)
    np.testing.assert_array_equal(got, expected)


def test_pixels_as_tokens_are_exact(exporter: Base, tmp_path: Path) -> None:
    net = NetworkFactory((3, 4, 4), "w2a2")
    tokens = net.tokens(net.conv(net.quantize("x", signed=True), 8, 2, stride=(2, 2)))
    net.linear(net.quantize(tokens, signed=True), 4)
    got, expected = differences(exporter, net, tmp_path)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weight_only_layers_within_their_roundings(exporter: Base, bits: int, tmp_path: Path) -> None:
    net = NetworkFactory((5, 24), "w8a8")
    net.weight_only("x", 7, bits)
    x, (path, notes) = net.inputs(3), written(exporter, net, tmp_path)
    node = net.network().nodes[-1]
    weight, scale, bias = (net.arrays[ref.sha256] for ref in (node.weight, node.scale, node.bias))
    largest = np.abs(x) @ np.abs(weight.T.astype(np.float32)) * np.abs(scale) + np.abs(bias)
    error = np.abs(exporter.outputs(path, x) - evaluate(net.network(), net.arrays, x))
    assert (error <= 2 * (24 + 2) * UNIT * largest).all()  # both sum 24 products in an order of their own
    assert any(note.startswith("weight_only: ") for note in notes)


def test_an_operator_that_a_format_lacks_is_refused_by_name() -> None:
    net = NetworkFactory((5,), "w4a4", n_tokens=3)
    net.mean_tokens(net.embedding("x", 8))
    with pytest.raises(UserError, match=r"^node embedding\w*: expected .* that X has \(input\), got embedding; "):
        expect_plain(net.network(), ("input",), "X")


def test_a_whole_decoder_says_the_same(exporter: Base, tmp_path: Path) -> None:
    net = NetworkFactory((16,), "w2a2+w4a4", n_tokens=11)
    x = net.add_constant(net.embedding("x", 24))
    codes = net.quantize(net.layer_norm(x), signed=True)
    mixed = net.attention(*(net.linear(codes, 24) for _ in range(3)), 2, causal=True)
    x = net.add(x, net.linear(net.quantize(mixed, signed=True), 24))
    net.linear(net.quantize(net.layer_norm(x), signed=True), 11)
    got, expected = differences(exporter, net, tmp_path, samples=20)
    # A row is exact unless one of its codes lies within a rounding of a threshold: hardly any does.
    assert (got == expected).all(axis=-1).mean() > 0.9
    _, notes = written(exporter, net, tmp_path)
    assert any(note.startswith("attention, layer_norm: computed in another order") for note in notes)
