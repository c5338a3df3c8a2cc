"""The steps of Transformers: look-up tables, places, norms, attention (``tokens.h``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.kernels.library import GUARD_BYTES, round_up
from soniq_dse.records.network import (
    AddConstantNode,
    AttentionNode,
    EmbeddingNode,
    LayerNormNode,
    SliceNode,
)
from soniq_dse.runtime.graph import Graph
from soniq_dse.runtime.plan import INPUT, SCRATCH, Plan
from soniq_dse.runtime.structs import AddConstantStruct, AttentionStruct, EmbeddingStruct, Kind, LayerNormStruct

LANES = 16
"""Of the vectors of ``tokens.cpp``."""
ROWS = 4
"""Queries that it does at once."""


class TokenPlanner:
    """``emit`` has a method for each kind of node; it adds the node's steps to the plan."""

    def __init__(self, graph: Graph, arrays: Mapping[str, NDArray[Any]], plan: Plan) -> None:
        self._graph, self._arrays, self._plan = graph, arrays, plan
        self.emit: dict[type, Callable[[Any], None]] = {
            SliceNode: lambda _: None,  # whoever reads it, reads the input
            EmbeddingNode: self._embedding,
            AddConstantNode: self._add_constant,
            LayerNormNode: self._layer_norm,
            AttentionNode: self._attention,
        }

    def _elements(self, name: str) -> int:
        return int(np.prod(self._graph.nodes[name].shape)) * self._plan.batch

    def _numbers(self, name: str) -> tuple[int, int]:
        """(bytes from the input's first token number to that of a tensor of them, numbers per sample of the input)."""
        node = self._graph.nodes[name]
        start = 0
        while isinstance(node, SliceNode):
            start, node = start + node.start, self._graph.nodes[node.inputs[0]]
        return 4 * start, node.shape[0]

    def _embedding(self, node: EmbeddingNode) -> None:
        writes = self._plan.new_floats(node.name, self._elements(node.name))
        first, ld = self._numbers(node.inputs[0])
        tokens, channels = node.shape
        self._plan.add(
            Kind.EMBEDDING,
            node.name,
            reads=(INPUT,),
            writes=(writes,),
            arguments=lambda address: EmbeddingStruct(
                numbers=address[INPUT] + first,
                batch=self._plan.batch,
                tokens=tokens,
                ld_numbers=ld,
                channels=channels,
                table=self._arrays[node.table.sha256],
                scale=self._arrays[node.scale.sha256],
                out=address[writes],
            ),
        )

    def _add_constant(self, node: AddConstantNode) -> None:
        reads = self._plan.floats[node.inputs[0]]
        writes = self._plan.new_floats(node.name, self._elements(node.name))
        constant = self._arrays[node.constant.sha256]
        shaped = constant.reshape(constant.shape[0], -1) if constant.ndim == 3 else constant
        order = self._graph.order(node.name)
        deployed = shaped.T[:, order] if constant.ndim == 3 else shaped[..., order]
        self._plan.add(
            Kind.ADD_CONSTANT,
            node.name,
            reads=(reads,),
            writes=(writes,),
            arguments=lambda address: AddConstantStruct(
                in_=address[reads],
                constant=np.ascontiguousarray(deployed),
                out=address[writes],
                batch=self._plan.batch,
                size=constant.size,
            ),
        )

    def _layer_norm(self, node: LayerNormNode) -> None:
        reads = self._plan.floats[node.inputs[0]]
        writes, channels = self._plan.new_floats(node.name, self._elements(node.name)), node.shape[-1]
        self._plan.add(
            Kind.LAYER_NORM,
            node.name,
            reads=(reads,),
            writes=(writes,),
            arguments=lambda address: LayerNormStruct(
                in_=address[reads],
                out=address[writes],
                rows=self._elements(node.name) // channels,
                channels=channels,
                gain=self._arrays[node.gain.sha256],
                bias=self._arrays[node.bias.sha256],
                share=float(np.float32(1 / channels)),
                eps=node.eps,
            ),
        )

    def _attention(self, node: AttentionNode) -> None:
        reads = tuple(self._plan.floats[name] for name in node.inputs[:3])
        writes = self._plan.new_floats(node.name, self._elements(node.name))
        tokens, channels = node.shape
        others = self._graph.nodes[node.inputs[1]].shape[0]
        first, ld_numbers = self._numbers(node.inputs[3]) if len(node.inputs) > 3 else (0, 0)
        floats = round_up(others, LANES) * (channels // node.heads + 1 + ROWS)
        floats = round_up(4 * floats + GUARD_BYTES, GUARD_BYTES) // 4
        self._plan.buffer(SCRATCH, 4 * floats * self._plan.threads)
        self._plan.add(
            Kind.ATTENTION,
            node.name,
            reads=(*reads, INPUT) if len(node.inputs) > 3 else reads,
            writes=(writes,),
            arguments=lambda address: AttentionStruct(
                **{name: address[buffer] for name, buffer in zip(("query", "key", "value"), reads, strict=True)},
                numbers=address[INPUT] + first if len(node.inputs) > 3 else None,
                batch=self._plan.batch,
                tokens=tokens,
                others=others,
                channels=channels,
                heads=node.heads,
                ld_numbers=ld_numbers,
                scale=node.scale,
                hidden=node.hidden,
                hidden_token=node.hidden_token,
                causal=int(node.causal),
                out=address[writes],
                scratch=address[SCRATCH],
                scratch_floats=floats,
            ),
        )
