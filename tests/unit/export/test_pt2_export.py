"""torch.export programs: weights at their bits, one file for any number of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from network_factory import NetworkFactory

from soniq_dse.export import Design
from soniq_dse.export.pt2 import Pt2
from soniq_dse.formats.network import evaluate


@pytest.mark.parametrize(("bits", "stored"), [(1, 1), (3, 4), (5, 8), (8, 8)])
def test_weights_are_stored_in_bits_that_divide_a_byte(bits: int, stored: int, tmp_path: Path) -> None:
    net = NetworkFactory((64,), f"w{bits}a{bits}")
    net.linear(net.quantize("x", signed=True), 6)
    path = tmp_path / "net.pt2"
    assert Pt2().write(Design(net.network(), net.arrays), path) == ()
    weights = [t for t in torch.export.load(path).state_dict.values() if t.dtype == torch.uint8]
    assert sum(weight.numel() for weight in weights) == 64 * 6 * stored // 8
    for samples in (1, 3):
        x = np.random.default_rng(samples).standard_normal((samples, 64)).astype(np.float32)
        np.testing.assert_array_equal(Pt2().outputs(path, x), evaluate(net.network(), net.arrays, x))


def test_a_transformer_takes_token_numbers(tmp_path: Path) -> None:
    net = NetworkFactory((6,), "w4a4", n_tokens=5)
    x = net.layer_norm(net.add_constant(net.embedding("x", 8)))
    mixed = net.attention(x, x, x, 2, causal=True, numbers="x")
    net.linear(net.quantize(net.mean_tokens(mixed), signed=True, palette="w8a8"), 3)
    (note,) = Pt2().write(Design(net.network(), net.arrays), tmp_path / "net.pt2")
    assert note.startswith("attention, layer_norm, mean_tokens: computed in another order")
    numbers = net.inputs(7)
    got, expected = Pt2().outputs(tmp_path / "net.pt2", numbers), evaluate(net.network(), net.arrays, numbers)
    assert (got == expected).all(axis=-1).mean() > 0.5  # a row is exact unless one of its codes lies at a rounding


def test_layers_whose_sums_fp32_rounds_are_named(tmp_path: Path) -> None:
    net = NetworkFactory((3000,), "w7a7")
    layer = net.linear(net.quantize("x", signed=True), 2)
    assert Pt2().write(Design(net.network(), net.arrays), tmp_path / "net.pt2")[0].endswith(f"rounds them, in: {layer}")
