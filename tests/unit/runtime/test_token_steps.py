"""Transformers in the runtime equal the golden arithmetic bit for bit: any sizes, masks, levels, batches, threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_factory import NetworkFactory

import soniq_dse.runtime
from soniq_dse.errors import UserError
from soniq_dse.hardware.host import detect_host
from soniq_dse.runtime.check import check
from soniq_dse.runtime.pack import PackedNetwork

FEATURES = {"host": None, "scalar": ()}
NARROW = {**FEATURES, "avx2": ("avx2", "fma")}


def block(net: NetworkFactory, x: str, width: int, heads: int, *, causal: bool) -> str:
    """Pre-norm self-attention and two linear layers."""
    codes = net.quantize(net.layer_norm(x), signed=True)
    query, key, value = (net.linear(codes, width) for _ in range(3))
    mixed = net.attention(query, key, value, heads, causal=causal)
    x = net.add(x, net.linear(net.quantize(mixed, signed=True), width))
    inner = net.relu(net.linear(net.quantize(net.layer_norm(x), signed=True), 2 * width))
    return net.add(x, net.linear(net.quantize(inner, signed=False), width))


def decoder(width: int, heads: int, length: int) -> NetworkFactory:
    net = NetworkFactory((length,), "w2a2+w4a4", n_tokens=11)
    x = block(net, net.add_constant(net.embedding("x", width)), width, heads, causal=True)
    net.linear(net.quantize(net.layer_norm(x), signed=True, palette="w8a8"), 11)
    return net


def assert_exact(net: NetworkFactory, features: str = "host", samples: int = 3, threads: int = 1) -> PackedNetwork:
    packed = PackedNetwork(net.network(), net.arrays, NARROW[features])
    parity = check(packed, net.inputs(samples), batch=2, threads=threads)
    assert parity.exact, parity
    assert parity.unequal_codes
    return packed


@pytest.mark.parametrize(("features", "threads"), [("host", 1), ("host", 3), ("scalar", 1)])
def test_decoder(features: str, threads: int) -> None:
    assert_exact(decoder(24, 3, 13), features, threads=threads)


def test_encoder_and_decoder_with_hidden_places() -> None:
    net = NetworkFactory((12,), "w1a1+w4a4", n_tokens=5)
    source, target = net.slice("x", 0, 7), net.slice("x", 7, 12)
    others = net.quantize(net.layer_norm(net.add_constant(net.embedding(source, 16))), signed=True)
    x = net.embedding(target, 16)
    key, value = net.linear(others, 16), net.linear(others, 16)
    query = net.linear(net.quantize(net.layer_norm(x), signed=True), 16)
    x = net.add(x, net.linear(net.quantize(net.attention(query, key, value, 4, numbers=source), signed=True), 16))
    net.linear(net.quantize(x, signed=True), 5)
    assert_exact(net)


def test_pixels_as_tokens_and_their_mean() -> None:
    net = NetworkFactory((3, 8, 8), "w2a2+w4a4")
    patches = net.conv(net.quantize("x", signed=True, palette="w8a8"), 24, 2, stride=(2, 2))
    x = block(net, net.add_constant(net.tokens(patches)), 24, 2, causal=False)
    net.linear(net.quantize(net.mean_tokens(net.layer_norm(x)), signed=True), 4)
    assert_exact(net)


def test_tokens_in_floating_point_as_input() -> None:
    net = NetworkFactory((5, 6), "w2a2+w4a4")
    net.add(net.linear(net.quantize("x", signed=True), 6), "x")
    assert_exact(net)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_attention(data: st.DataObject) -> None:
    """Tokens, others and channels that fill no vector, or several."""
    heads, of_head = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
    tokens, width, causal = data.draw(st.integers(1, 37)), heads * of_head, data.draw(st.booleans())
    others = tokens if causal else data.draw(st.integers(1, 37))
    net = NetworkFactory((tokens + others,), "w4a4", n_tokens=3, seed=data.draw(st.integers(0, 99)))
    first, second = net.slice("x", 0, tokens), net.slice("x", tokens, tokens + others)
    query, key, value = net.embedding(first, width), net.embedding(second, width), net.embedding(second, width)
    numbers = second if data.draw(st.booleans()) else None
    net.linear(net.quantize(net.attention(query, key, value, heads, causal=causal, numbers=numbers), signed=True), 2)
    assert_exact(net, data.draw(st.sampled_from(list(FEATURES))))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(channels=st.integers(1, 70), tokens=st.integers(1, 5), features=st.sampled_from(list(FEATURES)))
def test_any_layer_norm(channels: int, tokens: int, features: str) -> None:
    net = NetworkFactory((tokens, channels), "w4a4")
    net.linear(net.quantize(net.layer_norm("x"), signed=True), 3)
    assert_exact(net, features)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_gelu_and_clip(data: st.DataObject) -> None:
    """Behind a layer and by itself; sizes that fill no vector, or several, and are shared by threads."""
    net = NetworkFactory((data.draw(st.integers(1, 9)), data.draw(st.integers(1, 70))), "w2a2+w4a4")
    forms = st.sampled_from(["none", "tanh"])
    inner = net.gelu(net.linear(net.quantize("x", signed=True), data.draw(st.integers(1, 70))), data.draw(forms))
    x = net.gelu(net.linear(net.quantize(inner, signed=True), 5), data.draw(forms))
    net.clip(net.linear(net.quantize(net.gelu(net.clip(x, 0.5)), signed=True), 3), 0.25)
    assert_exact(net, data.draw(st.sampled_from(list(FEATURES))), threads=data.draw(st.integers(1, 3)))


@pytest.mark.parametrize(("features", "threads"), [("host", 1), ("host", 3), ("scalar", 1)])
@pytest.mark.parametrize(("more", "index"), [(1, 0), (2, 1), (1, 4)])
def test_a_class_token_before_the_others(more: int, index: int, features: str, threads: int) -> None:
    net = NetworkFactory((3, 4, 4), "w2a2+w4a4")
    patches = net.conv(net.quantize("x", signed=True, palette="w8a8"), 24, 2, stride=(2, 2))
    x = block(net, net.add_constant(net.prepend(net.tokens(patches), more)), 24, 2, causal=False)
    net.linear(net.quantize(net.token(net.layer_norm(x), index), signed=True), 4)
    assert_exact(net, features, threads=threads)


def test_a_class_token_in_the_order_of_its_levels() -> None:
    """Nothing sums over the channels, so that they lie by level."""
    net = NetworkFactory((4, 16), "w2a2+w4a4")
    x = net.prepend(net.linear(net.quantize("x", signed=True), 16), 2)
    net.linear(net.quantize(net.token(x, 1), signed=True), 3)
    assert_exact(net)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("tokens", "features"), [(1, 70), (5, 9), (37, 300)])
def test_weight_only_layers(bits: int, tokens: int, features: int, tmp_path: Path) -> None:
    net = NetworkFactory((tokens, 21), "w4a4")
    x = net.linear(net.quantize("x", signed=True), 45)
    net.weight_only(net.layer_norm(x), features, bits)
    if {"avx2", "fma"} <= set(detect_host().features):
        assert_exact(net, "avx2")
    for threads in (1, 3):
        packed = assert_exact(net, threads=threads)
    packed.save(tmp_path / "net.soniq")
    x = net.inputs(2)
    np.testing.assert_array_equal(PackedNetwork.load(tmp_path / "net.soniq").run(x), packed.run(x))


def test_a_processor_without_a_kernel_is_told() -> None:
    net = NetworkFactory((5, 8), "w4a4")
    net.weight_only("x", 3, 4)
    with pytest.raises(UserError, match="expected a processor with a kernel for w4"):
        PackedNetwork(net.network(), net.arrays, ()).run(net.inputs(1))


def test_a_packed_transformer_comes_back(tmp_path: Path) -> None:
    net = decoder(16, 2, 6)
    packed = PackedNetwork(net.network(), net.arrays)
    packed.save(tmp_path / "net.soniq")
    loaded = PackedNetwork.load(tmp_path / "net.soniq")
    x = net.inputs(4)
    np.testing.assert_array_equal(loaded.run(x), packed.run(x))
    assert loaded.size_bytes == packed.size_bytes
    np.testing.assert_array_equal(soniq_dse.runtime.load(tmp_path / "net.soniq")(x.astype(np.int16)), packed.run(x))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((1, 6), 11), "expected token numbers 0..10, got 11..11"),
        (np.full((1, 6), -1), "expected token numbers 0..10, got -1..-1"),
        (np.full((1, 6), 2**32), "expected token numbers 0..10"),
        (np.zeros((1, 6), np.float32), "expected integers"),
    ],
)
def test_what_is_no_token_number_is_refused(x: np.ndarray, message: str) -> None:
    net = decoder(8, 1, 6)
    with pytest.raises(UserError, match=message):
        PackedNetwork(net.network(), net.arrays, ()).run(x)
