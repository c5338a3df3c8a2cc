"""Random integer networks, built node by node, for whoever tests what runs or stores one."""

from __future__ import annotations

from typing import Any

import numpy as np

from soniq_dse.records.base import ArrayRef
from soniq_dse.records.network import (
    AddNode,
    Conv2dNode,
    FlattenNode,
    InputNode,
    IntegerNetwork,
    LinearNode,
    NetworkNode,
    PoolNode,
    QuantizeNode,
    ReluNode,
    TensorQuantizer,
)
from soniq_dse.records.palette import Palette
from soniq_dse.store import array_sha256


class NetworkFactory:
    """Methods add a node and return its name; scales are such that codes spread over their range."""

    def __init__(self, shape: tuple[int, ...], palette: str, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.palette = Palette.parse(palette)
        self.arrays: dict[str, np.ndarray] = {}
        self.nodes: list[NetworkNode] = [InputNode(name="x", shape=shape)]

    def network(self) -> IntegerNetwork:
        return IntegerNetwork(name="random", nodes=tuple(self.nodes))

    def shape(self, name: str) -> tuple[int, ...]:
        return next(node.shape for node in self.nodes if node.name == name)

    def quantize(self, source: str, *, signed: bool, palette: str | None = None, levels: Any = None) -> str:
        shape, chosen = self.shape(source), self.palette if palette is None else Palette.parse(palette)
        if levels is None:
            levels = self.rng.integers(0, len(chosen.levels), shape[0])
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
        refs = self._weights(source, (features, self.shape(source)[0]), 1)
        return self._add(LinearNode(name=self._name("fc"), inputs=(source,), shape=(features,), **refs))

    def relu(self, source: str) -> str:
        return self._add(ReluNode(name=self._name("relu"), inputs=(source,), shape=self.shape(source)))

    def add(self, first: str, second: str) -> str:
        return self._add(AddNode(name=self._name("add"), inputs=(first, second), shape=self.shape(first)))

    def pool(self, source: str, op: str, kernel: int, stride: int | None = None) -> str:
        channels, *size = self.shape(source)
        step = stride or kernel
        out = [(extent - kernel) // step + 1 for extent in size]
        node = PoolNode(
            op=op, name=self._name("pool"), inputs=(source,), shape=(channels, *out), kernel=(kernel, kernel),
            stride=(step, step),
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
