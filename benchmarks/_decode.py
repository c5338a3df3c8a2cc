"""One step of a decoder with random weights over a cache of 256 tokens: ours at a mix of levels, and onnxruntime's.

Per block of width 768: LayerNorm, q, k, v, attention of 12 heads to all tokens so far, its output, LayerNorm, two
layers of the feed-forward part with ReLU between. A vocabulary of 256 (bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._networks import levels_of
from benchmarks._ours import Mix
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.network import (
    AddConstantNode,
    AddNode,
    AttentionNode,
    EmbeddingNode,
    InputNode,
    IntegerNetwork,
    LayerNormNode,
    LinearNode,
    NetworkNode,
    QuantizeNode,
    ReluNode,
    TensorQuantizer,
)
from soniq_dse.records.palette import Level, Palette
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.store import array_sha256

PINNED: Mix = ((Level.parse("w8a8"), 1.0),)
CACHED = 256
"""Tokens before the step."""


@dataclass(frozen=True)
class Size:
    """Of a decoder."""

    blocks: int = 6
    width: int = 768
    inner: int = 3072
    heads: int = 12
    n_tokens: int = 256
    length: int = CACHED + 1


class _Builder:
    def __init__(self, size: Size, mix: Mix) -> None:
        self.size, self.mix = size, mix
        self.rng = np.random.default_rng(0)
        self.arrays: dict[str, NDArray[Any]] = {}
        self.nodes: dict[str, NetworkNode] = {}

    def network(self) -> PackedNetwork:
        size = self.size
        self._add(InputNode(name="x", shape=(size.length,), n_tokens=size.n_tokens))
        table = self.rng.integers(-127, 128, (size.n_tokens, size.width)).astype(np.int8)
        scale = self.rng.uniform(0.005, 0.02, size.n_tokens).astype(np.float32)
        shape = (size.length, size.width)
        x = self._add(
            EmbeddingNode(name="embed", inputs=("x",), shape=shape, table=self._kept(table), scale=self._kept(scale))
        )
        places = self._kept(self._normal(*shape))
        x = self._add(AddConstantNode(name="places", inputs=(x,), shape=shape, constant=places))
        for index in range(size.blocks):
            x = self._block(f"b{index}", x)
        codes = self._codes("head", self._norm("norm", x), PINNED, signed=True)
        self._linear("head", codes, size.n_tokens)
        return PackedNetwork(IntegerNetwork(name="decoder", nodes=tuple(self.nodes.values())), self.arrays)

    def _block(self, name: str, x: str) -> str:
        size, shape = self.size, (self.size.length, self.size.width)
        codes = self._codes(f"{name}.qkv", self._norm(f"{name}.norm1", x), signed=True)
        query, key, value = (self._linear(f"{name}.{part}", codes, size.width) for part in "qkv")
        mixed = self._add(
            AttentionNode(
                name=f"{name}.attention", inputs=(query, key, value), shape=shape, heads=size.heads, causal=True,
                scale=float(np.float32((size.width / size.heads) ** -0.5)),
            )
        )  # fmt: skip
        out = self._linear(f"{name}.out", self._codes(f"{name}.mixed", mixed, signed=True), size.width)
        x = self._add(AddNode(name=f"{name}.add1", inputs=(x, out), shape=shape))
        codes = self._codes(f"{name}.up", self._norm(f"{name}.norm2", x), signed=True)
        inner = self._linear(f"{name}.up", codes, size.inner)
        inner = self._add(ReluNode(name=f"{name}.relu", inputs=(inner,), shape=(size.length, size.inner)))
        out = self._linear(f"{name}.down", self._codes(f"{name}.inner", inner, signed=False), size.width)
        return self._add(AddNode(name=f"{name}.add2", inputs=(x, out), shape=shape))

    def _codes(self, name: str, source: str, mix: Mix | None = None, *, signed: bool) -> str:
        mix = mix or self.mix
        palette, shape = Palette(levels=tuple(level for level, _ in mix)), self.nodes[source].shape
        levels = levels_of(shape[1], [share for _, share in mix])
        steps = tuple(float(np.float32(2.5 / 2**level.activation_bits)) for level in palette.levels)
        quantizer = TensorQuantizer(palette=palette, level_of_channel=levels, steps=steps, signed=signed)
        return self._add(QuantizeNode(name=f"{name}.codes", inputs=(source,), shape=shape, quantizer=quantizer))

    def _linear(self, name: str, codes: str, features: int) -> str:
        node = self.nodes[codes]
        assert isinstance(node, QuantizeNode)
        palette, level = node.quantizer.palette, np.asarray(node.quantizer.level_of_channel)
        bits = np.array([one.weight_bits for one in palette.levels])
        most = np.where(bits == 8, 127, 2**bits - 1)[level]
        drawn = self.rng.integers(-most, most + 1, (features, len(level)))
        weight = np.where(most == 127, drawn, np.clip(drawn // 2 * 2 + 1, -most, most)).astype(np.int8)
        size = np.asarray(node.quantizer.steps) / 2.0 ** (bits - 1) / len(level) ** 0.5
        scale = (size[:, None] * self.rng.uniform(0.5, 1.5, (len(bits), features))).astype(np.float32)
        refs = {"weight": self._kept(weight), "scale": self._kept(scale), "bias": self._kept(self._normal(features))}
        return self._add(LinearNode(name=name, inputs=(codes,), shape=(self.size.length, features), **refs))

    def _norm(self, name: str, source: str) -> str:
        gain, bias = self._kept(1 + self._normal(self.size.width)), self._kept(self._normal(self.size.width))
        shape, eps = self.nodes[source].shape, float(np.float32(1e-5))
        return self._add(LayerNormNode(name=name, inputs=(source,), shape=shape, gain=gain, bias=bias, eps=eps))

    def _normal(self, *shape: int) -> NDArray[np.float32]:
        return (0.1 * self.rng.standard_normal(shape)).astype(np.float32)

    def _kept(self, array: NDArray[Any]) -> ArrayRef:
        ref = ArrayRef(sha256=array_sha256(array), shape=array.shape, dtype=str(array.dtype))
        self.arrays[ref.sha256] = array
        return ref

    def _add(self, node: NetworkNode) -> str:
        self.nodes[node.name] = node
        return node.name


def random_decoder(size: Size, mix: Mix) -> PackedNetwork:
    """A decoder at ``mix``, its head at W8A8, with random integers."""
    return _Builder(size, mix).network()
