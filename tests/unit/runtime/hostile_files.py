"""Loads and runs packed files that were changed at random: a program too, for a build with the address sanitizer.

Usage: ``LD_PRELOAD=.../libasan.so python hostile_files.py MUTATIONS [SEED]``. A changed manifest or tensor gets the
hashes that belong to it, so that the checks behind the hashes are what is tried.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

sys.path.insert(0, str(Path(__file__).parents[2]))

from network_factory import NetworkFactory

from soniq_dse.errors import UserError
from soniq_dse.runtime.decoder import Decoder
from soniq_dse.runtime.pack import FORMAT_NAME, VERSION, PackedNetwork
from soniq_dse.runtime.stepwise import stepwise
from soniq_dse.store import array_sha256

NUMBERS = (0, 1, 2, 3, 7, 255, -1, 2**16, 2**31 - 1, 2**31, 2**32 + 1, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-45)
LARGEST_INPUT = 1 << 24
"""Numbers; a small file may promise to take gigabytes of them."""
OTHERS = (None, True, "", "x", "../x", "\x00", [], {}, [[]], "a" * 10_000)

Rng = np.random.Generator
Tensors = dict[str, np.ndarray]


def convolutions() -> NetworkFactory:
    """Small, with every kind of node that works on images."""
    net = NetworkFactory((4, 6, 6), "w1a1+w4a4")
    trunk = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), 8, 3, padding=(1, 1)))
    inner = net.conv(net.quantize(trunk, signed=False), 8, 3, groups=2, padding=(1, 1))
    joined = net.clip(net.add(inner, trunk), 3.0)
    deep = net.conv(net.quantize(net.pool(joined, "max_pool2d", 2), signed=False), 8, 3, groups=8)
    net.linear(net.quantize(net.flatten(net.pool(deep, "avg_pool2d", 1)), signed=True), 3)
    return net


def transformer() -> NetworkFactory:
    """Small, with every kind of node that works on tokens."""
    net = NetworkFactory((8,), "w1a1+w4a4", n_tokens=6)
    source, target = net.slice("x", 0, 3), net.slice("x", 3, 8)
    context, x = net.embedding(source, 8), net.add_constant(net.embedding(target, 8))
    codes = net.quantize(net.layer_norm(x), signed=True)
    query, key, value = (net.linear(codes, 8) for _ in range(3))
    x = net.add(x, net.attention(query, key, value, 2, causal=True))
    x = net.gelu(net.attention(x, context, context, 4, numbers=source))
    x = net.prepend(net.add_constant(net.prepend(x)), 2)
    x = net.add(net.mean_tokens(x), net.clip(net.token(x, 4)))
    net.weight_only(net.linear(net.quantize(x, signed=True), 3), 4, 4)
    return net


def translator() -> NetworkFactory:
    """Small, an encoder and a decoder block: also run token by token."""
    net = NetworkFactory((8,), "w2a2+w8a8", n_tokens=6)
    source, target = net.slice("x", 0, 3), net.slice("x", 3, 8)
    context = net.layer_norm(net.add_constant(net.embedding(source, 8)))
    x = net.add_constant(net.embedding(target, 8))
    query, key, value = (net.linear(net.quantize(net.layer_norm(x), signed=True), 8) for _ in range(3))
    x = net.add(x, net.attention(query, key, value, 2, causal=True))
    key, value = (net.linear(net.quantize(context, signed=True), 8) for _ in range(2))
    x = net.add(x, net.attention(net.layer_norm(x), key, value, 4, numbers=source))
    net.linear(net.quantize(net.relu(x), signed=False), 6)
    return net


def mutations(count: int, seed: int = 0) -> Iterator[bytes]:
    """``count`` changed files."""
    whole = [PackedNetwork(net.network(), net.arrays) for net in (convolutions(), transformer(), translator())]
    kinds: tuple[Callable[[Rng, Tensors, Any], bytes], ...] = (_bytes, _leaf, _leaf, _leaf, _nodes, _size, _tensor)
    for index in range(count):
        rng, packed = np.random.default_rng((seed, index)), whole[index // len(kinds) % len(whole)]
        tensors = {name: tensor.copy() for name, tensor in packed.tensors.items()}
        yield kinds[index % len(kinds)](rng, tensors, json.loads(packed.network.model_dump_json()))


def outcome(path: Path, content: bytes) -> str:
    """What became of a file: "refused" (in one line), or "ran".

    Anything but a clear refusal or outputs of the shape that the file promises is an exception.
    """
    path.write_bytes(content)
    refusal = _refusal_or_run(path)
    if refusal is None:
        return "ran"
    assert "\n" not in refusal, refusal
    assert len(refusal) < 1000, refusal
    return "refused"


def _refusal_or_run(path: Path) -> str | None:
    try:
        packed = PackedNetwork.load(path)
        if prod(packed.in_shape) > LARGEST_INPUT:
            return f"not tried with an input of {packed.in_shape}"
        rng, shape = np.random.default_rng(0), (1, *packed.in_shape)
        x = rng.integers(0, packed.n_tokens, shape) if packed.n_tokens else rng.standard_normal(shape)
        with np.errstate(all="ignore"):
            y = packed.run(packed.as_input(x))
            _decode(packed, x, y)
    except UserError as error:
        return str(error)
    assert y.shape == (1, *packed.out_shape)
    return None


def _decode(packed: PackedNetwork, x: np.ndarray, whole: np.ndarray) -> None:
    """Token by token, where the network can: a prompt of half of the tokens, then one by one. Only safety is looked at:
    a scale that overflows makes NaN, which spreads further in a run of several rows than in one."""
    try:
        stepwise(packed.network)
    except UserError:
        return
    decoder = Decoder(packed)
    start = decoder.source_tokens
    decoder.begin(x[:, :start])
    for at in range(decoder.most // 2, decoder.most):
        logits = decoder.read(x[:, start + decoder.position : start + at + 1])
        assert logits.shape == whole[:, at].shape


def _file(tensors: Tensors, manifest: Any) -> bytes:
    text = json.dumps(manifest)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    metadata = {"format": f"{FORMAT_NAME}{VERSION}", "network": text, "sha256": sha256}
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata)


def _bytes(rng: Rng, tensors: Tensors, manifest: Any) -> bytes:
    """The file cut, lengthened, or with other bytes, most often in its header."""
    data = bytearray(_file(tensors, manifest))
    at = int(rng.integers(len(data) if rng.random() < 0.3 else 400))
    how = rng.integers(4)
    if how == 0:
        return bytes(data[:at])
    if how == 1:
        return bytes(data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:])
    if how == 2:
        data[:8] = int(rng.choice([0, 1, 2**31, 2**62, len(data)])).to_bytes(8, "little")
    for _ in range(int(rng.integers(1, 4))):
        data[min(at, len(data) - 1)] ^= int(rng.integers(1, 256))
        at += int(rng.integers(8))
    return bytes(data)


def _leaf(rng: Rng, tensors: Tensors, manifest: Any) -> bytes:
    """One value of the manifest another one, absent, or twice."""
    places = list(_places(manifest))
    parent, key = places[int(rng.integers(len(places)))]
    how = rng.integers(8)
    if how == 0:
        del parent[key]
    elif how == 1 and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif how == 2:
        other, at = places[int(rng.integers(len(places)))]
        parent[key] = json.loads(json.dumps(other[at]))
    elif how == 3:
        parent[key] = OTHERS[int(rng.integers(len(OTHERS)))]
    else:
        parent[key] = NUMBERS[int(rng.integers(len(NUMBERS)))]
    return _file(tensors, manifest)


def _nodes(rng: Rng, tensors: Tensors, manifest: Any) -> bytes:
    """Nodes in another order, left out, twice, or with inputs of others: cycles, dangling and shared tensors."""
    nodes = manifest["nodes"]
    first, second = (int(at) for at in rng.integers(len(nodes), size=2))
    how = rng.integers(4)
    if how == 0:
        nodes[first], nodes[second] = nodes[second], nodes[first]
    elif how == 1:
        del nodes[first]
    elif how == 2:
        nodes.insert(second, {**nodes[first], "name": "twin"})
    else:
        nodes[first]["inputs"] = [nodes[second]["name"]] * int(rng.integers(1, 4))
    return _file(tensors, manifest)


def _size(rng: Rng, tensors: Tensors, manifest: Any) -> bytes:
    """One number in all shapes another one."""
    old = int(rng.choice([3, 4, 6, 8]))
    new = int(rng.choice([1, 2, 5, 64, 10**5, 2**31]))
    for node in manifest["nodes"]:
        node["shape"] = [new if extent == old else extent for extent in node["shape"]]
    return _file(tensors, manifest)


def _tensor(rng: Rng, tensors: Tensors, manifest: Any) -> bytes:
    """A tensor with other elements, type or shape; the hashes of scales and biases follow."""
    name = str(rng.choice(sorted(tensors)))
    tensor = tensors[name]
    how = rng.integers(4)
    if how == 0:
        tensors[name] = tensor.reshape(-1)[: int(rng.integers(tensor.size))]
    elif how == 1:
        tensors[name] = tensor.astype(rng.choice(["float16", "int64", "uint8", "float32"]))
    elif how == 2:
        tensors[name] = tensor.reshape(-1, 1)
    else:
        integers = tensor.dtype != np.float32
        values = np.iinfo(tensor.dtype).max if integers else rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-45, 0.0])
        tensor.reshape(-1)[int(rng.integers(tensor.size))] = values
    node_name, _, field = name.partition("/")
    node = next(node for node in manifest["nodes"] if node["name"] == node_name)
    if "weight" not in field:
        found = tensors[name]
        node[field] = {"sha256": array_sha256(found), "shape": list(found.shape), "dtype": found.dtype.name}
    return _file(tensors, manifest)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def main(count: int, seed: int = 0) -> None:
    import tempfile

    from sanitized_networks import build_with

    build_with("address")
    with tempfile.TemporaryDirectory() as folder:
        found = Counter(outcome(Path(folder) / "net.soniq", content) for content in mutations(count, seed))
    print(f"{count} files: {found['refused']} refused, {found['ran']} ran")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
