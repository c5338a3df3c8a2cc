"""The steps of Transformers: look-up tables, places, class tokens, norms, attention (``tokens.h``)."""

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
    PrependNode,
    SliceNode,
)
from soniq_dse.runtime.graph import Graph
from soniq_dse.runtime.plan import INPUT, POSITION, SCRATCH, SOURCE, Addresses, Plan
from soniq_dse.runtime.stepwise import KeepNode, KeptAttentionNode, PlacedConstantNode
from soniq_dse.runtime.structs import (
    AddConstantStruct,
    AttentionStruct,
    EmbeddingStruct,
    KeepStruct,
    Kind,
    LayerNormStruct,
    PrependStruct,
)

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
            PlacedConstantNode: self._add_constant,
            PrependNode: self._prepend,
            LayerNormNode: self._layer_norm,
            AttentionNode: self._attention,
            KeepNode: self._keep,
            KeptAttentionNode: self._kept_attention,
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
        writes, size = self._plan.new_floats(node.name, self._elements(node.name)), int(np.prod(node.shape))
        constant = self._arrays[node.constant.sha256]
        shaped = constant.reshape(constant.shape[0], -1) if constant.ndim == 3 else constant
        order = self._graph.order(node.name)
        deployed = shaped.T[:, order] if constant.ndim == 3 else shaped[..., order]
        position = None
        if isinstance(node, PlacedConstantNode):
            deployed = np.pad(deployed, ((0, node.room - len(deployed)), (0, 0)))
            position = self._plan.from_outside(POSITION, 8)
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
                size=size,
                position=None if position is None else address[position],
                channels=node.shape[-1],
            ),
        )

    def _prepend(self, node: PrependNode) -> None:
        reads = self._plan.floats[node.inputs[0]]
        writes, rows = self._plan.new_floats(node.name, self._elements(node.name)), self._arrays[node.rows.sha256]
        deployed = np.ascontiguousarray(rows[:, self._graph.order(node.name)])
        self._plan.add(
            Kind.PREPEND,
            node.name,
            reads=(reads,),
            writes=(writes,),
            arguments=lambda address: PrependStruct(
                in_=address[reads],
                rows=deployed,
                out=address[writes],
                batch=self._plan.batch,
                size=int(np.prod(node.shape)) - deployed.size,
                size_rows=deployed.size,
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
        others = self._graph.nodes[node.inputs[1]].shape[0]
        first, ld_numbers = self._numbers(node.inputs[3]) if len(node.inputs) > 3 else (0, 0)
        numbers = (INPUT,) if len(node.inputs) > 3 else ()
        self._attend(
            node,
            others,
            (*reads, *numbers),
            lambda address: {
                **{name: address[buffer] for name, buffer in zip(("query", "key", "value"), reads, strict=True)},
                "numbers": address[INPUT] + first if numbers else None,
                "ld_numbers": ld_numbers,
            },
        )

    def _kept_attention(self, node: KeptAttentionNode) -> None:
        query, (keys, values) = self._plan.floats[node.inputs[0]], self._caches(node)
        source = () if node.hidden_from is None else (self._plan.from_outside(SOURCE, 0),)
        position = (self._plan.from_outside(POSITION, 8),) if node.causal else ()
        self._attend(
            node,
            node.others,
            (query, keys, values, *source, *position),
            lambda address: {
                "query": address[query],
                "kept_keys": address[keys],
                "value": address[values],
                "numbers": address[SOURCE] + 4 * (node.hidden_from or 0) if source else None,
                "ld_numbers": node.ld_numbers,
                "position": address[POSITION] if position else None,
            },
        )

    def _attend(
        self, node: AttentionNode, others: int, reads: tuple[str, ...], pointers: Callable[[Addresses], dict[str, Any]]
    ) -> None:
        """The step of ``node`` to ``others`` tokens, at ``pointers``."""
        writes, (tokens, channels) = self._plan.new_floats(node.name, self._elements(node.name)), node.shape
        floats = round_up(others, LANES) * (channels // node.heads + 1 + ROWS)
        floats = round_up(4 * floats + GUARD_BYTES, GUARD_BYTES) // 4
        self._plan.buffer(SCRATCH, 4 * floats * self._plan.threads)
        self._plan.add(
            Kind.ATTENTION,
            node.name,
            reads=reads,
            writes=(writes,),
            arguments=lambda address: AttentionStruct(
                **pointers(address),
                batch=self._plan.batch,
                tokens=tokens,
                others=others,
                channels=channels,
                heads=node.heads,
                scale=node.scale,
                hidden=node.hidden,
                hidden_token=node.hidden_token,
                causal=int(node.causal),
                out=address[writes],
                scratch=address[SCRATCH],
                scratch_floats=floats,
            ),
        )

    def _keep(self, node: KeepNode) -> None:
        key, value = (self._plan.floats[name] for name in node.inputs)
        keys, values = self._caches(node)
        position = (self._plan.from_outside(POSITION, 8),) if node.grows else ()
        tokens, channels = node.shape
        self._plan.add(
            Kind.KEEP,
            node.name,
            reads=(key, value, *position),
            writes=(keys, values),
            arguments=lambda address: KeepStruct(
                key=address[key],
                value=address[value],
                batch=self._plan.batch,
                tokens=tokens,
                channels=channels,
                heads=node.heads,
                others=node.others,
                position=address[POSITION] if position else None,
                keys=address[keys],
                values=address[values],
            ),
        )

    def _caches(self, node: KeepNode | KeptAttentionNode) -> tuple[str, str]:
        """The buffers from outside of kept keys, whole vectors of them, and values."""
        row = 4 * self._plan.batch * node.shape[-1]
        keys = self._plan.from_outside(f"{node.cache}:keys", row * round_up(node.others, LANES))
        return keys, self._plan.from_outside(f"{node.cache}:values", row * node.others + GUARD_BYTES)
