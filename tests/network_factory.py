"""Random integer networks, built node by node, for whoever tests what runs or stores one."""

from __future__ import annotations

from typing import Any

import numpy as np

from soniq_dse.records.base import ArrayRef
from soniq_dse.records.network import (
    AddConstantNode,
    AddNode,
    AttentionNode,
    ClipNode,
    Conv2dNode,
    EmbeddingNode,
    FlattenNode,
    GeluNode,
    InputNode,
    IntegerNetwork,
    LayerNormNode,
    LinearNode,
    MeanTokensNode,
    NetworkNode,
    PoolNode,
    PrependNode,
    QuantizeNode,
    ReluNode,
    SliceNode,
    TensorQuantizer,
    TokenNode,
    TokensNode,
    WeightOnlyNode,
)
from soniq_dse.records.palette import Palette
from soniq_dse.store import array_sha256


class NetworkFactory:
    """Methods add a node and return its name; scales are such that codes spread over their range."""

    def __init__(self, shape: tuple[int, ...], palette: str, seed: int = 0, n_tokens: int | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.palette = Palette.parse(palette)
        self.arrays: dict[str, np.ndarray] = {}
        self.nodes: list[NetworkNode] = [InputNode(name="x", shape=shape, n_tokens=n_tokens)]
        self.n_tokens = n_tokens

    def inputs(self, samples: int, seed: int = 9) -> np.ndarray:
        """Token numbers or normal numbers."""
        rng, shape = np.random.default_rng(seed), (samples, *self.shape("x"))
        return rng.integers(0, self.n_tokens, shape) if self.n_tokens else rng.standard_normal(shape).astype(np.float32)

    def network(self) -> IntegerNetwork:
        return IntegerNetwork(name="random", nodes=tuple(self.nodes))

    def shape(self, name: str) -> tuple[int, ...]:
        return next(node.shape for node in self.nodes if node.name == name)

    def quantize(self, source: str, *, signed: bool, palette: str | None = None, levels: Any = None) -> str:
        shape, chosen = self.shape(source), self.palette if palette is None else Palette.parse(palette)
        if levels is None:
            levels = self.rng.integers(0, len(chosen.levels), shape[1] if len(shape) == 2 else shape[0])
        steps = []
        for level in chosen.levels:
            spread = 2.0**level.activation_bits / (1 if signed and level.activation_bits < 8 else 2)
            steps.append(float(np.float32(2.5 / spread)))
        quantizer = TensorQuantizer(
            palette=chosen, level_of_channel=tuple(int(v) for v in levels), steps=tuple(steps), signed=signed
        )
        return self._add(QuantizeNode(name=self._name("q"), inputs=(source,), shape=shape, quantizer=quantizer))

    def conv(self, source: str, channels: int, kernel: int = 3, **window: Any) -> str:
        in_channels, height, width = self.shape(source)
        groups = window.get("groups", 1)
        stride, padding = window.get("stride", (1, 1)), window.get("padding", (0, 0))
        dilation = window.get("dilation", (1, 1))
        out = [
            (extent + 2 * padding[i] - dilation[i] * (kernel - 1) - 1) // stride[i] + 1
            for i, extent in enumerate((height, width))
        ]
        refs = self._weights(source, (channels, in_channels // groups, kernel, kernel), groups)
        return self._add(
            Conv2dNode(name=self._name("conv"), inputs=(source,), shape=(channels, *out), **refs, **window)
        )

    def linear(self, source: str, features: int) -> str:
        *tokens, channels = self.shape(source)
        refs = self._weights(source, (features, channels), 1)
        return self._add(LinearNode(name=self._name("fc"), inputs=(source,), shape=(*tokens, features), **refs))

    def weight_only(self, source: str, features: int, bits: int) -> str:
        *tokens, channels = self.shape(source)
        weight = self._integers(bits, (features, channels)).astype(np.int8)
        scale = self.rng.uniform(0.5, 1.5, features).astype(np.float32) / np.float32(2.0**bits)
        bias = self.rng.standard_normal(features).astype(np.float32)
        node = WeightOnlyNode(
            name=self._name("float"), inputs=(source,), shape=(*tokens, features), bits=bits,
            weight=self._keep(weight), scale=self._keep(scale), bias=self._keep(bias),
        )  # fmt: skip
        return self._add(node)

    def slice(self, source: str, start: int, stop: int) -> str:
        node = SliceNode(name=self._name("slice"), inputs=(source,), shape=(stop - start,), start=start, stop=stop)
        return self._add(node)

    def embedding(self, source: str, channels: int) -> str:
        assert self.n_tokens is not None
        table = self.rng.integers(-127, 128, (self.n_tokens, channels)).astype(np.int8)
        scale = self.rng.uniform(0.005, 0.02, self.n_tokens).astype(np.float32)
        node = EmbeddingNode(
            name=self._name("embedding"), inputs=(source,), shape=(*self.shape(source), channels),
            table=self._keep(table), scale=self._keep(scale),
        )  # fmt: skip
        return self._add(node)

    def add_constant(self, source: str) -> str:
        constant = self._keep(self.rng.standard_normal(self.shape(source)).astype(np.float32))
        return self._add(
            AddConstantNode(name=self._name("constant"), inputs=(source,), shape=self.shape(source), constant=constant)
        )

    def layer_norm(self, source: str) -> str:
        channels = self.shape(source)[-1]
        gain, bias = (self._keep(self.rng.standard_normal(channels).astype(np.float32)) for _ in range(2))
        eps = float(np.float32(1e-5))
        shape = self.shape(source)
        return self._add(
            LayerNormNode(name=self._name("norm"), inputs=(source,), shape=shape, gain=gain, bias=bias, eps=eps)
        )

    def attention(
        self, query: str, key: str, value: str, heads: int, *, causal: bool = False, numbers: str | None = None
    ) -> str:
        shape = self.shape(query)
        node = AttentionNode(
            name=self._name("attention"), inputs=(query, key, value, *([numbers] if numbers else [])), shape=shape,
            heads=heads, causal=causal, scale=float(np.float32((shape[1] / heads) ** -0.5)), hidden=-1e4,
        )  # fmt: skip
        return self._add(node)

    def tokens(self, source: str) -> str:
        channels, height, width = self.shape(source)
        return self._add(TokensNode(name=self._name("tokens"), inputs=(source,), shape=(height * width, channels)))

    def mean_tokens(self, source: str) -> str:
        return self._add(MeanTokensNode(name=self._name("mean"), inputs=(source,), shape=self.shape(source)[1:]))

    def prepend(self, source: str, more: int = 1) -> str:
        tokens, channels = self.shape(source)
        rows = self._keep(self.rng.standard_normal((more, channels)).astype(np.float32))
        shape = (more + tokens, channels)
        return self._add(PrependNode(name=self._name("prepend"), inputs=(source,), shape=shape, rows=rows))

    def token(self, source: str, index: int = 0) -> str:
        shape = self.shape(source)[1:]
        return self._add(TokenNode(name=self._name("token"), inputs=(source,), shape=shape, index=index))

    def gelu(self, source: str, approximate: Any = "none") -> str:
        shape = self.shape(source)
        return self._add(GeluNode(name=self._name("gelu"), inputs=(source,), shape=shape, approximate=approximate))

    def clip(self, source: str, most: float = 6.0) -> str:
        return self._add(ClipNode(name=self._name("clip"), inputs=(source,), shape=self.shape(source), most=most))

    def relu(self, source: str) -> str:
        return self._add(ReluNode(name=self._name("relu"), inputs=(source,), shape=self.shape(source)))

    def add(self, first: str, second: str) -> str:
        return self._add(AddNode(name=self._name("add"), inputs=(first, second), shape=self.shape(first)))

    def pool(self, source: str, op: str, kernel: int, stride: int | None = None, padding: int = 0) -> str:
        channels, *size = self.shape(source)
        step = stride or kernel
        out = [(extent + 2 * padding - kernel) // step + 1 for extent in size]
        node = PoolNode(
            op=op, name=self._name("pool"), inputs=(source,), shape=(channels, *out), kernel=(kernel, kernel),
            stride=(step, step), padding=(padding, padding),
        )  # fmt: skip
        return self._add(node)

    def flatten(self, source: str) -> str:
        size = int(np.prod(self.shape(source)))
        return self._add(FlattenNode(name=self._name("flat"), inputs=(source,), shape=(size,)))

    def _weights(self, source: str, shape: tuple[int, ...], groups: int) -> dict[str, ArrayRef]:
        quantizer = self._quantizer(source)
        weight = np.empty(shape, np.int8)
        scale = np.zeros((len(quantizer.palette.levels), shape[0]), np.float32)
        out_group = shape[0] // groups
        for group in range(groups):
            for channel in range(shape[1]):
                level = quantizer.palette.levels[quantizer.level_of_channel[group * shape[1] + channel]]
                rows = slice(group * out_group, (group + 1) * out_group)
                weight[rows, channel] = self._integers(level.weight_bits, weight[rows, channel].shape)
        depth = float(np.prod(shape[1:]))
        for index, level in enumerate(quantizer.palette.levels):
            size = quantizer.steps[index] / (2.0 ** (level.weight_bits - 1)) / depth**0.5
            scale[index] = size * self.rng.uniform(0.5, 1.5, shape[0]) * self.rng.choice([-1, 1], shape[0])
        bias = self.rng.standard_normal(shape[0]).astype(np.float32) * np.float32(0.3)
        return {"weight": self._keep(weight), "scale": self._keep(scale), "bias": self._keep(bias)}

    def _integers(self, bits: int, shape: tuple[int, ...]) -> np.ndarray:
        if bits == 8:
            return self.rng.integers(-127, 128, shape)
        return 2 * self.rng.integers(0, 2**bits, shape) - (2**bits - 1)

    def _quantizer(self, name: str) -> TensorQuantizer:
        node = next(node for node in self.nodes if node.name == name)
        return node.quantizer if isinstance(node, QuantizeNode) else self._quantizer(node.inputs[0])

    def _keep(self, array: np.ndarray) -> ArrayRef:
        sha256 = array_sha256(array)
        self.arrays[sha256] = array
        return ArrayRef(sha256=sha256, shape=array.shape, dtype=str(array.dtype))

    def _name(self, kind: str) -> str:
        return f"{kind}{len(self.nodes)}"

    def _add(self, node: NetworkNode) -> str:
        self.nodes.append(node)
        return node.name
