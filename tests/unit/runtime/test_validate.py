"""Networks whose nodes do not fit together are refused in words, before a file is unpacked or C++ runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from network_factory import NetworkFactory

from soniq_dse.errors import UserError
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.network import IntegerNetwork
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.runtime.validate import validate, validate_arrays


@pytest.fixture
def factory() -> NetworkFactory:
    """x, q1, conv2, relu3, add4, pool5, flat6, q7, fc8"""
    net = NetworkFactory((4, 6, 6), "w1a1+w4a4")
    inner = net.relu(net.conv(net.quantize("x", signed=True), 8, 3, padding=(1, 1)))
    pooled = net.pool(net.add(inner, inner), "avg_pool2d", 2)
    net.linear(net.quantize(net.flatten(pooled), signed=False), 3)
    return net


def changed(network: IntegerNetwork, name: str, **fields: Any) -> IntegerNetwork:
    """The network with fields of a node replaced, whatever its record says to that."""
    nodes = tuple(node.model_copy(update=fields) if node.name == name else node for node in network.nodes)
    return network.model_copy(update={"nodes": nodes})


def resized(ref: ArrayRef, *shape: int) -> ArrayRef:
    return ref.model_copy(update={"shape": shape})


def test_a_sound_network_passes(factory: NetworkFactory) -> None:
    validate(factory.network())
    validate_arrays(factory.network(), factory.arrays)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("conv2", {"shape": (8, 7, 6)}, r"conv2 \(conv2d\): expected the shape \[8, 6, 6\], got \[8, 7, 6\]"),
        ("conv2", {"padding": (5, 5)}, r"expected the shape \[8, 14, 14\]"),
        ("conv2", {"groups": 3}, "in 3 groups"),
        ("q1", {"shape": (4, 6, 7)}, r"expected the shape \[4, 6, 6\]"),
        ("q1", {"shape": (4, -6, -6)}, r"expected \[channels\], \[channels, height, width\] or \[tokens, channels\]"),
        ("q1", {"shape": (4, 2**20, 2**20)}, "numbers at most"),
        ("relu3", {"shape": (8, 36)}, r"expected the shape \[8, 6, 6\]"),
        ("relu3", {"shape": (8, 6, 6, 1)}, r"expected \[channels\], "),
        ("relu3", {"inputs": ("q1",)}, "expected fp32 to read, got codes"),
        ("conv2", {"inputs": ("x",)}, "expected codes to read, got fp32"),
        ("add4", {"inputs": ("relu3",)}, "expected 2 inputs, got 1"),
        ("add4", {"inputs": ("relu3", "x")}, r"expected two tensors of \[8, 6, 6\], got \[4, 6, 6\]"),
        ("pool5", {"kernel": (9, 9)}, r"expected the shape \[8, -1, -1\]"),
        ("flat6", {"shape": (71,)}, r"expected the shape \[72\]"),
        ("fc8", {"inputs": ("q1",)}, r"expected a weight for \[4, 6, 6\]"),
    ],
)
def test_what_does_not_fit_is_named(factory: NetworkFactory, name: str, fields: dict[str, Any], message: str) -> None:
    network = changed(factory.network(), name, **fields)
    with pytest.raises(UserError, match=message):
        PackedNetwork(network, factory.arrays, ()).executor(1)


def test_records_of_arrays_must_fit(factory: NetworkFactory) -> None:
    network = factory.network()
    conv = next(node for node in network.nodes if node.name == "conv2")
    with pytest.raises(UserError, match=r"expected a scale of \[2, 8\], got \[1, 8\]"):
        validate(changed(network, "conv2", scale=resized(conv.scale, 1, 8)))
    with pytest.raises(UserError, match=r"expected a bias of \[8\], got \[9\]"):
        validate(changed(network, "conv2", bias=resized(conv.bias, 9)))
    with pytest.raises(UserError, match=r"expected a weight for \[4, 6, 6\] in 1 groups, got \[8, 5, 3, 3\]"):
        validate(changed(network, "conv2", weight=resized(conv.weight, 8, 5, 3, 3)))


def test_buffers_beyond_the_memory_of_the_machine_are_refused_before_they_are_touched() -> None:
    from soniq_dse.runtime.executor import zeros

    with pytest.raises(UserError, match="memory: expected room for 4503599627370496 bytes"):
        zeros(2**52)


@pytest.mark.parametrize("name", ["a" * 201, "conv\n2", "\x1b[31m"])
def test_names_that_would_spoil_an_error(name: str) -> None:
    net = NetworkFactory((2, 4, 4), "w1a1")
    net.nodes[0] = net.nodes[0].model_copy(update={"name": name})
    net.relu(name)
    with pytest.raises(UserError, match="expected a printable name") as error:
        validate(net.network())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["weight", "scale", "bias"])
def test_arrays_must_be_what_their_records_say(factory: NetworkFactory, field: str) -> None:
    network = factory.network()
    ref = getattr(next(node for node in network.nodes if node.name == "conv2"), field)
    for wrong in (factory.arrays[ref.sha256][:-1], factory.arrays[ref.sha256].astype(np.float64)):
        with pytest.raises(UserError, match=f"node conv2 .conv2d.: expected a {field} of"):
            validate_arrays(network, {**factory.arrays, ref.sha256: wrong})


def test_a_file_is_refused_before_it_is_unpacked(factory: NetworkFactory, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "net.safetensors"
    PackedNetwork(factory.network(), factory.arrays).save(path)
    network = changed(factory.network(), "conv2", shape=(8, 60, 60))
    manifest = network.model_dump_json()
    sha256 = hashlib.sha256(manifest.encode()).hexdigest()
    metadata = {"format": "soniq-dse-packed-network-2", "network": manifest, "sha256": sha256}
    save_file(load_file(path), path, metadata)
    with pytest.raises(UserError, match=r"net.safetensors: node conv2 .conv2d.: expected the shape"):
        PackedNetwork.load(path)


@pytest.fixture
def transformer() -> NetworkFactory:
    """x, slice1, slice2, embedding3, embedding4, constant5, norm6, q7, fc8, attention9, q10, fc11"""
    net = NetworkFactory((9,), "w2a2+w4a4", n_tokens=7)
    source, target = net.slice("x", 0, 4), net.slice("x", 4, 9)
    others, places = net.embedding(source, 16), net.add_constant(net.embedding(target, 16))
    query = net.linear(net.quantize(net.layer_norm(places), signed=True), 16)
    net.linear(net.quantize(net.attention(query, others, others, 2, numbers=source), signed=True), 3)
    return net


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("x", {"n_tokens": 8}, r"embedding3 \(embedding\): expected a table of 8 rows or more, got \[7, 16\]"),
        ("x", {"shape": (3, 3)}, r"expected token numbers \[tokens\], got \[3, 3\]"),
        ("x", {"n_tokens": None}, "expected token numbers to read, got fp32"),
        ("slice1", {"stop": 10}, "expected a part of 9 token numbers, got 0 to 10"),
        ("slice1", {"start": 4}, "got 4 to 4"),
        ("embedding4", {"inputs": ("embedding3",)}, "expected token numbers to read, got fp32"),
        ("constant5", {"inputs": ("embedding3",)}, r"expected a constant of \[4, 16\], got \[5, 16\]"),
        ("attention9", {"heads": 3}, r"in 3 heads, got \[\[5, 16\], \[4, 16\], \[4, 16\]\]"),
        ("attention9", {"causal": True}, "as many others as tokens"),
        ("attention9", {"inputs": ("fc8", "embedding3")}, "expected 3 inputs, got 2"),
        ("attention9", {"inputs": ("fc8", "embedding3", "constant5")}, "twice"),
        ("attention9", {"inputs": ("fc8", "embedding3", "embedding3", "slice2")}, "expected token numbers of 4 others"),
        ("attention9", {"inputs": ("fc8", "embedding3", "embedding3", "fc8")}, "expected token numbers to read"),
        ("attention9", {"inputs": ("q7", "embedding3", "embedding3")}, "expected fp32 to read, got codes"),
        ("fc8", {"shape": (5, 15)}, r"expected the shape \[5, 16\], got \[5, 15\]"),
    ],
)
def test_what_does_not_fit_in_a_transformer_is_named(
    transformer: NetworkFactory, name: str, fields: dict[str, Any], message: str
) -> None:
    validate(transformer.network())
    with pytest.raises(UserError, match=message):
        PackedNetwork(changed(transformer.network(), name, **fields), transformer.arrays, ()).executor(1)


@pytest.fixture
def vision() -> NetworkFactory:
    """x, q1, conv2, clip3, tokens4, prepend5, gelu6, token7, q8, fc9"""
    net = NetworkFactory((3, 4, 4), "w2a2")
    patches = net.clip(net.conv(net.quantize("x", signed=True), 8, 2, stride=(2, 2)))
    x = net.token(net.gelu(net.prepend(net.tokens(patches))), 4)
    net.linear(net.quantize(x, signed=True), 3)
    return net


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("clip3", {"shape": (8, 2, 1)}, r"clip3 \(clip\): expected the shape \[8, 2, 2\]"),
        ("gelu6", {"shape": (8,)}, r"gelu6 \(gelu\): expected the shape \[5, 8\]"),
        ("gelu6", {"inputs": ("q1",)}, "expected fp32 to read, got codes"),
        ("prepend5", {"shape": (4, 8)}, r"prepend5 \(prepend\): expected the shape \[5, 8\], got \[4, 8\]"),
        ("prepend5", {"inputs": ("conv2",)}, r"expected rows \[more, channels\] for tokens of \[8, 2, 2\]"),
        ("token7", {"index": 5}, r"token7 \(token\): expected tokens to read, more than 5, got \[5, 8\]"),
        ("token7", {"inputs": ("conv2",)}, r"expected tokens to read, more than 4, got \[8, 2, 2\]"),
        ("token7", {"shape": (5,)}, r"expected the shape \[8\]"),
    ],
)
def test_what_does_not_fit_about_a_class_token_is_named(
    vision: NetworkFactory, name: str, fields: dict[str, Any], message: str
) -> None:
    validate(vision.network())
    with pytest.raises(UserError, match=message):
        PackedNetwork(changed(vision.network(), name, **fields), vision.arrays, ()).executor(1)


def test_rows_of_a_class_token_must_fit(vision: NetworkFactory) -> None:
    network = vision.network()
    rows = next(node for node in network.nodes if node.name == "prepend5").rows
    for shape in ((1, 7), (8,), (0, 8)):
        with pytest.raises(UserError, match=r"prepend5 .prepend.: expected rows \[more, channels\]"):
            validate(changed(network, "prepend5", rows=resized(rows, *shape)))


def test_buffers_that_would_take_all_available_memory_are_refused() -> None:
    from soniq_dse.runtime.executor import _available_bytes, zeros

    with pytest.raises(UserError, match="memory: expected room for"):
        zeros(_available_bytes())
    assert not zeros(64).any()
