"""What the planner must know of a network's graph: consumers, channel orders, and what a layer's epilogue can absorb.

Channel order. Deployed tensors hold their channels sorted by level, so that each level is one contiguous segment.
Tensors joined by relu, add and pools share one order (that of their first quantizer), and whoever makes them permutes
its output channels offline: nothing is gathered at run time. A quantizer whose levels do not ascend there gathers.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.formats.deployment import channel_grids
from soniq_dse.kernels.layer import InputSegment
from soniq_dse.kernels.library import GUARD_BYTES
from soniq_dse.records.network import (
    ClipNode,
    Conv2dNode,
    FlattenNode,
    IntegerNetwork,
    NetworkNode,
    PoolNode,
    QuantizeNode,
    TensorQuantizer,
)

Order = NDArray[np.int64]
"""Position in the deployed tensor -> channel of the trained model."""


_KEEPS_ORDER = frozenset({"relu", "clip", "gelu", "add", "add_constant", "tokens", "prepend", "token", "mean_tokens"})
_ORDERED = frozenset({"embedding", "layer_norm", "attention", "keep", "weight_only"})


@dataclass
class Epilogue:
    """What a layer does after its bias: relu, residual add, relu (each if set); ``output`` is what it makes."""

    output: str
    relu_first: bool = False
    residual: str | None = None
    relu_last: bool = False
    absorbed: set[str] = field(default_factory=set)


class Graph:
    """Questions about an ``IntegerNetwork`` that planning asks. Tokens are the pixels of an image one pixel high."""

    def __init__(self, network: IntegerNetwork) -> None:
        self.nodes: dict[str, NetworkNode] = {node.name: node for node in network.nodes}
        self.position = {name: index for index, name in enumerate(self.nodes)}
        self.input, self.output = network.nodes[0].name, network.nodes[-1].name
        self.consumers: dict[str, list[str]] = defaultdict(list)
        for node in network.nodes:
            for name in dict.fromkeys(node.inputs):
                self.consumers[name].append(node.name)
        self._orders: dict[str, Order] = {}
        self._component = self._join()

    def shape(self, name: str) -> tuple[int, int, int]:
        """(channels, height, width) of a tensor; vectors are images of 1 x 1, tokens those of 1 x tokens."""
        shape = self.nodes[name].shape
        if self.is_tokens(name):
            return shape[1], 1, shape[0]
        return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (prod(shape), 1, 1)

    def is_tokens(self, name: str) -> bool:
        """Whether a tensor is ``[tokens, channels]``: channels last in the trained model too."""
        return len(self.nodes[name].shape) == 2

    def holds_codes(self, name: str) -> bool:
        """Whether the tensor is uint8 codes: a quantize node, or a max pool of one."""
        return self.quantizer(name) is not None

    def quantizer(self, name: str) -> TensorQuantizer | None:
        """The quantizer behind a tensor of codes; None for fp32."""
        node = self.nodes[name]
        while isinstance(node, PoolNode) and node.op == "max_pool2d":
            node = self.nodes[node.inputs[0]]
        return node.quantizer if isinstance(node, QuantizeNode) else None

    def order(self, name: str) -> Order:
        """The channel order of a tensor, fp32 or codes."""
        node = self.nodes[name]
        if isinstance(node, QuantizeNode):
            source = self.order(node.inputs[0])
            return np.asarray(node.quantizer.channel_order) if self.gathers(name) else source
        if self.holds_codes(name):
            return self.order(node.inputs[0])
        root = self._find(name)
        if root not in self._orders:
            self._orders[root] = self._order_of_component(root)
        return self._orders[root]

    def gathers(self, quantize: str) -> bool:
        """Whether a quantize node must reorder channels: its levels do not ascend in its input's order."""
        node = self.nodes[quantize]
        assert isinstance(node, QuantizeNode)
        levels = np.asarray(node.quantizer.level_of_channel)[self.order(node.inputs[0])]
        return bool((np.diff(levels) < 0).any())

    def requantisation(self, quantize: str) -> dict[str, NDArray[np.float32]]:
        """``inverse``, ``shift``, ``lo`` and ``hi`` of a quantize node, per channel in deployed order.

        No code lies above that of the bound of a clip before it: codes rise with what they stand for, so that the clip
        itself may be left out.
        """
        grids, order = channel_grids(self._quantizer_of(quantize)), self.order(quantize)
        hi, source = grids.hi, self._before_pools(self.nodes[quantize].inputs[0])
        if isinstance(source, ClipNode):
            hi = np.clip(np.rint(np.float32(source.most) * grids.inverse + grids.shift), grids.lo, grids.hi)
        wanted = {"inverse": grids.inverse, "shift": grids.shift, "lo": grids.lo, "hi": hi}
        return {name: np.ascontiguousarray(values[order], np.float32) for name, values in wanted.items()}

    def pad_codes(self, codes: str) -> NDArray[np.uint8]:
        """The pixel with which convolutions pad a tensor of codes, in deployed order, and guard bytes behind it."""
        pixel = channel_grids(self._quantizer_of(codes)).zero_code[self.order(codes)]
        return np.concatenate([pixel, np.zeros(GUARD_BYTES, np.uint8)])

    def segments(self, codes: str) -> tuple[tuple[int, InputSegment], ...]:
        """(index in the palette, segment) for each level that is present in a tensor of codes."""
        quantizer = self._quantizer_of(codes)
        level = np.asarray(quantizer.level_of_channel)[self.order(codes)]
        found = []
        for index in np.unique(level):
            inside = np.flatnonzero(level == index)
            of_palette = quantizer.palette.levels[int(index)]
            found.append((int(index), InputSegment(of_palette, int(inside[0]), len(inside))))
        return tuple(found)

    def epilogue(self, layer: str) -> Epilogue:
        """The chain of relu, clip and add nodes that the layer can absorb: each the only reader of what it reads.

        A clip is a relu where its bound is left to codes (``requantisation``).
        """
        found = Epilogue(output=layer)
        while found.output != self.output and len(self.consumers[found.output]) == 1:
            node = self.nodes[self.consumers[found.output][0]]
            if node.op == "relu" or (node.op == "clip" and self._becomes_codes(node.name)):
                found.relu_first |= found.residual is None
                found.relu_last |= found.residual is not None
            elif node.op == "add" and found.residual is None and self._other(node, found.output, layer):
                found.residual = self._other(node, found.output, layer)
            else:
                break
            found.output = node.name
            found.absorbed.add(node.name)
        return found

    def _before_pools(self, name: str) -> NetworkNode:
        """The node that made a tensor, max pools seen through."""
        node = self.nodes[name]
        while node.op == "max_pool2d":
            node = self.nodes[node.inputs[0]]
        return node

    def _becomes_codes(self, name: str) -> bool:
        """Whether a tensor is read by quantizers alone, straight or behind max pools."""
        readers = [self.nodes[reader] for reader in self.consumers[name]]
        return name != self.output and all(
            isinstance(reader, QuantizeNode) or (reader.op == "max_pool2d" and self._becomes_codes(reader.name))
            for reader in readers
        )

    def _quantizer_of(self, codes: str) -> TensorQuantizer:
        quantizer = self.quantizer(codes)
        if quantizer is None:
            raise UserError(f"node {codes}: expected codes of a quantize node, got fp32")
        return quantizer

    def _other(self, add: NetworkNode, mine: str, layer: str) -> str | None:
        """The other operand of an add, if it is in place before the layer runs."""
        others = [name for name in add.inputs if name != mine]
        ready = len(others) == 1 and self.position[others[0]] < self.position[layer] and others[0] != self.input
        return others[0] if ready else None

    def _join(self) -> dict[str, str]:
        """Union-find over tensors that must share their channel order."""
        self._component = {name: name for name in self.nodes}
        for node in self.nodes.values():
            joined = node.op in _KEEPS_ORDER or (isinstance(node, PoolNode) and not self.holds_codes(node.name))
            joined |= isinstance(node, FlattenNode) and self.shape(node.inputs[0])[1:] == (1, 1)
            if joined:
                for name in node.inputs:
                    self._component[self._find(name)] = self._find(node.name)
        return self._component

    def _find(self, name: str) -> str:
        while self._component[name] != name:
            name = self._component[name]
        return name

    def _order_of_component(self, root: str) -> Order:
        members = [name for name in self.nodes if self._find(name) == root]
        channels = self.shape(root)[0]
        if any(self._is_kept(name) for name in members):
            return np.arange(channels)
        for name in members:
            node = self.nodes[name]
            if isinstance(node, Conv2dNode) and node.groups > 1:
                return np.arange(channels)  # the outputs of a group must stay side by side
            if isinstance(node, FlattenNode) and self._find(node.inputs[0]) != root:
                return self._flattened(node.inputs[0])
        for name in members:
            for reader in self.consumers[name]:
                quantize = self.nodes[reader]
                if isinstance(quantize, QuantizeNode):
                    return np.asarray(quantize.quantizer.channel_order)
        return np.arange(channels)

    def _is_kept(self, name: str) -> bool:
        """Whether a tensor's channels stay as trained: what sums over them does so in their order, heads are blocks."""
        readers = (self.nodes[reader].op for reader in self.consumers[name])
        return self.nodes[name].op in _ORDERED or any(op in _ORDERED for op in readers)

    def _flattened(self, name: str) -> Order:
        """Channels last in the deployed tensor, channels first in the trained one."""
        _, height, width = self.shape(name)
        pixels = height * width
        return (np.arange(pixels)[:, None] + self.order(name)[None, :] * pixels).reshape(-1)
