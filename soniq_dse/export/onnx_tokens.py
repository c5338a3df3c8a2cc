"""The nodes of Transformers as ONNX: look-up tables, places, class tokens, LayerNorm, GELU, attention, means of tokens.

LayerNorm, GELU and attention are those of the program that runs the file, in an order of their own: outputs are
the golden ones up to the rounding of fp32, and what a code on the other side of a rounding makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from soniq_dse.records.network import (
    AddConstantNode,
    AttentionNode,
    EmbeddingNode,
    GeluNode,
    IntegerNetwork,
    LayerNormNode,
    MeanTokensNode,
    NetworkNode,
    PrependNode,
    SliceNode,
    TokenNode,
    TokensNode,
)

NEVER = np.float32(-1e30)
"""Added to the scores of later tokens."""


class Graph(Protocol):
    """What is written to: methods give the name of what they add."""

    def op(self, kind: str, inputs: Any, output: str, **attributes: Any) -> str:
        """A node."""

    def constant(self, name: str, value: Any) -> str:
        """A constant."""


class TokenNodes:
    """``emit`` has a method for each kind of node."""

    def __init__(self, network: IntegerNetwork, arrays: Mapping[str, NDArray[Any]], graph: Graph) -> None:
        self._arrays, self._graph = arrays, graph
        self._shape = {node.name: node.shape for node in network.nodes}
        self.emit: dict[type[NetworkNode], Callable[[Any], None]] = {
            SliceNode: self._slice,
            EmbeddingNode: self._embedding,
            AddConstantNode: self._add_constant,
            PrependNode: self._prepend,
            LayerNormNode: self._layer_norm,
            GeluNode: self._gelu,
            AttentionNode: self._attention,
            TokensNode: self._tokens,
            TokenNode: self._token,
            MeanTokensNode: self._mean,
        }

    def _slice(self, node: SliceNode) -> None:
        name, constant = node.name, self._graph.constant
        bounds = [
            constant(f"{name}/{part}", np.array([at])) for part, at in (("start", node.start), ("stop", node.stop))
        ]
        self._graph.op("Slice", (*node.inputs, *bounds, constant("const:tokens", np.array([1]))), name)

    def _embedding(self, node: EmbeddingNode) -> None:
        name, graph = node.name, self._graph
        table = graph.constant(f"{name}/table", self._arrays[node.table.sha256])
        scales = graph.constant(f"{name}/scale", self._arrays[node.scale.sha256][:, None])
        rows = graph.op("Gather", (table, node.inputs[0]), f"{name}/rows", axis=0)
        rows = graph.op("Cast", (rows,), f"{name}/fp32", to=1)
        scale = graph.op("Gather", (scales, node.inputs[0]), f"{name}/of_rows", axis=0)
        graph.op("Mul", (rows, scale), name)

    def _add_constant(self, node: AddConstantNode) -> None:
        constant = self._graph.constant(f"{node.name}/constant", self._arrays[node.constant.sha256])
        self._graph.op("Add", (node.inputs[0], constant), node.name)

    def _prepend(self, node: PrependNode) -> None:
        """The rows for each sample: as many as the input's first axis is long."""
        name, graph, constant = node.name, self._graph, self._graph.constant
        one = constant("const:tokens", np.array([1]))
        batch = graph.op("Shape", (node.inputs[0],), f"{name}/batch", end=1)
        shape = graph.op("Concat", (batch, one, one), f"{name}/shape", axis=0)
        rows = graph.op(
            "Expand", (constant(f"{name}/rows", self._arrays[node.rows.sha256][None]), shape), f"{name}/each"
        )
        graph.op("Concat", (rows, node.inputs[0]), name, axis=1)

    def _gelu(self, node: GeluNode) -> None:
        self._graph.op("Gelu", node.inputs, node.name, approximate=node.approximate)

    def _layer_norm(self, node: LayerNormNode) -> None:
        gain, bias = (
            self._graph.constant(f"{node.name}/{part}", self._arrays[ref.sha256])
            for part, ref in (("gain", node.gain), ("bias", node.bias))
        )
        self._graph.op("LayerNormalization", (node.inputs[0], gain, bias), node.name, axis=-1, epsilon=node.eps)

    def _attention(self, node: AttentionNode) -> None:
        name, graph, (tokens, channels) = node.name, self._graph, node.shape
        query = self._by_head(node, 0, (0, 2, 1, 3))
        key, value = self._by_head(node, 1, (0, 2, 3, 1)), self._by_head(node, 2, (0, 2, 1, 3))
        scores = graph.op("MatMul", (query, key), f"{name}/products")
        scores = graph.op("Mul", (scores, graph.constant(f"{name}/factor", np.float32(node.scale))), f"{name}/scores")
        if len(node.inputs) > 3:
            scores = graph.op("Add", (scores, self._hidden(node)), f"{name}/some_hidden")
        if node.causal:
            later = np.triu(np.full((tokens, tokens), NEVER), 1)
            scores = graph.op("Add", (scores, graph.constant(f"const:later:{tokens}", later)), f"{name}/earlier")
        weights = graph.op("Softmax", (scores,), f"{name}/weights", axis=-1)
        mixed = graph.op("MatMul", (weights, value), f"{name}/by_head")
        mixed = graph.op("Transpose", (mixed,), f"{name}/by_token", perm=[0, 2, 1, 3])
        graph.op("Reshape", (mixed, graph.constant(f"{name}/shape", np.array([0, tokens, channels]))), name)

    def _by_head(self, node: AttentionNode, position: int, axes: tuple[int, ...]) -> str:
        """A tensor ``[n, tokens, channels]`` as ``[n, tokens, heads, channels of one]`` with its axes moved."""
        name, (tokens, channels) = f"{node.name}/{position}", self._shape[node.inputs[position]]
        shape = self._graph.constant(f"{name}/shape", np.array([0, tokens, node.heads, channels // node.heads]))
        apart = self._graph.op("Reshape", (node.inputs[position], shape), f"{name}/apart")
        return self._graph.op("Transpose", (apart,), f"{name}/heads", perm=list(axes))

    def _hidden(self, node: AttentionNode) -> str:
        """What is added to scores where the others' token numbers hide them: ``[n, 1, 1, others]``."""
        name, graph = node.name, self._graph
        number = graph.constant(f"{name}/hidden_token", np.array(node.hidden_token))
        is_hidden = graph.op("Equal", (node.inputs[3], number), f"{name}/is_hidden")
        terms = (graph.constant(f"{name}/hidden", np.float32(node.hidden)), graph.constant("const:0", np.float32(0)))
        found = graph.op("Where", (is_hidden, *terms), f"{name}/term")
        return graph.op("Unsqueeze", (found, graph.constant("const:heads", np.array([1, 2]))), f"{name}/terms")

    def _tokens(self, node: TokensNode) -> None:
        channels = self._shape[node.inputs[0]][0]
        shape = self._graph.constant(f"{node.name}/shape", np.array([0, channels, node.shape[0]]))
        flat = self._graph.op("Reshape", (node.inputs[0], shape), f"{node.name}/pixels")
        self._graph.op("Transpose", (flat,), node.name, perm=[0, 2, 1])

    def _token(self, node: TokenNode) -> None:
        index = self._graph.constant(f"{node.name}/index", np.array(node.index))
        self._graph.op("Gather", (node.inputs[0], index), node.name, axis=1)

    def _mean(self, node: MeanTokensNode) -> None:
        axes = self._graph.constant("const:tokens", np.array([1]))
        self._graph.op("ReduceMean", (node.inputs[0], axes), node.name, keepdims=0)
