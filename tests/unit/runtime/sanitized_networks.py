"""Runs random small networks on drivers built with a sanitizer: a program of its own, to be preloaded with its library.

Usage: ``LD_PRELOAD=.../libasan.so python sanitized_networks.py address|thread NETWORKS``. For ``address``, every
buffer of a plan stands alone between poisoned bytes, so that an access past its guard ends the program.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from network_factory import NetworkFactory

from soniq_dse.kernels.library import GUARD_BYTES, round_up
from soniq_dse.runtime import decoder, executor, layer_steps
from soniq_dse.runtime.buffers import Life
from soniq_dse.runtime.check import check
from soniq_dse.runtime.pack import PackedNetwork

RED_ZONE_BYTES = 256
PALETTES = ("w8a8", "w1a1", "w4a4", "w1a1+w4a4", "w2a2+w8a8")
_zones: list[tuple[int, int]] = []


def place_apart(lives: Mapping[str, Life]) -> tuple[dict[str, int], int]:
    """``buffers.place`` without sharing: each buffer with its guard, then a red zone."""
    offsets: dict[str, int] = {}
    total = 0
    _zones.clear()
    for name, life in lives.items():
        offsets[name] = total
        end = total + life.size_bytes + GUARD_BYTES
        total = round_up(end + RED_ZONE_BYTES, 64)
        _zones.append((end, total - end))
    return offsets, total


class PoisonedExecutor(executor.Executor):
    """An executor whose memory between buffers must not be touched."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        for start, size in _zones:
            of_asan("poison", self._memory.ctypes.data + start, size)

    def __del__(self) -> None:
        if hasattr(self, "_memory"):  # else it was refused before
            of_asan("unpoison", self._memory.ctypes.data, self._memory.size)


def of_asan(what: str, address: int, size: int) -> None:
    """Poison or unpoison memory."""
    function = getattr(ctypes.CDLL(None), f"__asan_{what}_memory_region")
    function(ctypes.c_void_p(address), ctypes.c_size_t(size))


def build_with(sanitizer: str) -> None:
    """Let everything that loads drivers load sanitized ones."""
    plain = executor.driver_flags
    sanitizers = "thread" if sanitizer == "thread" else "address,undefined"
    extra = ("-O1", "-g1", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all")
    executor.driver_flags = layer_steps.driver_flags = decoder.driver_flags = lambda features: (
        *plain(features),
        *extra,
    )
    if sanitizer == "address":
        from soniq_dse.runtime import pack

        executor.place = place_apart
        pack.Executor = decoder.Executor = PoisonedExecutor


def random_network(rng: np.random.Generator) -> NetworkFactory:
    """Convolutions of every kind, a shortcut, pools and a linear layer, on an image of some size."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))

    seed = int(rng.integers(2**31))
    net = NetworkFactory((int(rng.integers(1, 6)), *pair(8, 12)), str(rng.choice(PALETTES)), seed)
    groups, width = int(rng.choice([1, 2, 4])), int(rng.integers(1, 18))
    trunk = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), groups * width, 3, padding=(1, 1)))
    overlapping = (3, 2, 1) if rng.integers(2) else (2,)
    codes = net.quantize(net.pool(trunk, "max_pool2d", *overlapping), signed=bool(rng.integers(2)))
    window = {"padding": pair(1, 2), "stride": pair(1, 2), "dilation": pair(1, 2)}
    inner = net.relu(
        net.conv(codes, groups * int(rng.integers(1, 40)), int(rng.integers(1, 4)), groups=groups, **window)
    )
    channels = net.shape(inner)[0]
    deep = net.conv(net.quantize(inner, signed=False), channels, 3, padding=(1, 1), groups=channels)
    joined = net.clip(net.add(deep, inner)) if rng.integers(2) else net.relu(net.add(deep, inner))
    if min(net.shape(joined)[1:]) > 1:
        joined = net.pool(joined, str(rng.choice(["max_pool2d", "avg_pool2d"])), 2)
    net.linear(net.quantize(net.flatten(joined), signed=False), int(rng.integers(1, 80)))
    return net


def random_transformer(rng: np.random.Generator, *, weight_only: bool, by_token: bool) -> NetworkFactory:
    """Attention to oneself and to others, some of them hidden, of sizes that fill no vector; ``by_token``: it gives a
    row for each token that sees earlier ones alone."""
    length, others, of_head, heads = (int(rng.integers(1, high)) for high in (40, 40, 40, 4))
    seed = int(rng.integers(2**31))
    net = NetworkFactory((others + length,), str(rng.choice(PALETTES)), seed, n_tokens=int(rng.integers(1, 9)))
    source, target = net.slice("x", 0, others), net.slice("x", others, others + length)
    context, x = (net.add_constant(net.embedding(part, heads * of_head)) for part in (source, target))
    codes = net.quantize(net.layer_norm(x), signed=True)
    query, key, value = (net.linear(codes, heads * of_head) for _ in range(3))
    x = net.add(x, net.attention(query, key, value, heads, causal=by_token or bool(rng.integers(2))))
    mixed = net.attention(net.layer_norm(x), context, context, heads, numbers=source)
    x = net.gelu(
        net.linear(net.quantize(mixed, signed=True), int(rng.integers(1, 80))), str(rng.choice(["none", "tanh"]))
    )
    x = net.layer_norm(x)
    if not by_token:
        x = net.add_constant(net.prepend(x, int(rng.integers(1, 4))))
        x = net.clip(net.token(x, int(rng.integers(length)))) if rng.integers(2) else net.mean_tokens(x)
    if weight_only:
        net.weight_only(x, int(rng.integers(1, 300)), int(rng.choice([2, 4, 8])))
    else:
        net.linear(net.quantize(x, signed=True), int(rng.integers(1, 20)))
    return net


def assert_decodes(packed: PackedNetwork, x: np.ndarray, rng: np.random.Generator, threads: int) -> None:
    """The rows of pieces of random lengths are those of a whole run."""
    whole, one = packed.run(x), decoder.Decoder(packed, batch=len(x), threads=threads)
    one.begin(x[:, : one.source_tokens])
    while one.position < one.most:
        end = one.position + int(rng.integers(1, one.most - one.position + 1))
        logits = one.read(x[:, one.source_tokens + one.position : one.source_tokens + end])
        assert (logits == whole[:, end - 1]).all()


def main(sanitizer: str, count: int) -> None:
    build_with(sanitizer)
    rng = np.random.default_rng(0)
    for index in range(count):
        scalar = index % 8 in (3, 6)
        is_text, by_token = index % 2 == 1, index % 4 == 1
        net = random_transformer(rng, weight_only=not scalar, by_token=by_token) if is_text else random_network(rng)
        packed = PackedNetwork(net.network(), net.arrays, () if scalar else None)
        x = net.inputs(int(rng.integers(1, 4)), index)
        for threads in (1, 2, 5):
            assert check(packed, x, threads=threads).exact, (index, threads)
            packed.run(x, threads=threads)
            if by_token:
                assert_decodes(packed, x, rng, threads)
    print(f"{count} networks")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
