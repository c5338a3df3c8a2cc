"""IntegerNetwork -> a plan: steps of ``executor.cpp`` over named buffers, for one batch size and set of CPU features.

Layers absorb relu, residual add and the quantizers that read them (``graph.Epilogue``): where only quantizers read a
tensor, its layer writes codes and the fp32 tensor never exists. A max pool read by quantizers alone is done on codes:
the same result, since requantisation is monotone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.kernels.strips import Geometry
from soniq_dse.records.choice import Choices, PartShape
from soniq_dse.records.network import (
    AddNode,
    ClipNode,
    Conv2dNode,
    FlattenNode,
    GeluNode,
    InputNode,
    IntegerNetwork,
    LinearNode,
    MeanTokensNode,
    PoolNode,
    QuantizeNode,
    ReluNode,
    TokenNode,
    TokensNode,
    WeightOnlyNode,
)
from soniq_dse.runtime.graph import Graph
from soniq_dse.runtime.layer_steps import NO_CHOICES, Arrays, LayerPlanner, pool_arguments
from soniq_dse.runtime.plan import INPUT, OUTPUT, Plan
from soniq_dse.runtime.stepwise import KeepNode
from soniq_dse.runtime.structs import ClipStruct, CopyStruct, ElementwiseStruct, GeluStruct, Kind, QuantizeStruct
from soniq_dse.runtime.token_steps import TokenPlanner
from soniq_dse.runtime.validate import validate, validate_arrays
from soniq_dse.runtime.weight_only import WeightOnlyPlanner

MOST_THREADS = 256


def plan_network(
    network: IntegerNetwork,
    arrays: Arrays,
    *,
    batch: int,
    features: Collection[str],
    choices: Choices = NO_CHOICES,
    threads: int = 1,
) -> Plan:
    """The plan of ``network`` for ``batch`` samples a run by ``threads`` threads, which have no influence on results.

    Args:
        arrays: ``ArrayRef.sha256`` -> array.
        features: CPU features that kernels may use.
        choices: the kernel of each part; those not named, or not for these features, by the catalog's ranking.

    Raises:
        UserError: its nodes do not fit together, or it has weight-only levels, sums that overflow, or no kernel
            for a level.
        MissingCapabilityError: there is no compiler.
    """
    validate(network)
    validate_arrays(network, arrays)
    return plan_part(network, arrays, batch=batch, features=features, choices=choices, threads=threads)


def plan_part(
    network: IntegerNetwork,
    arrays: Arrays,
    *,
    batch: int,
    features: Collection[str],
    choices: Choices = NO_CHOICES,
    threads: int = 1,
) -> Plan:
    """``plan_network`` of a part of a valid network (``stepwise.py``), which may give no output."""
    if batch < 1:
        raise UserError(f"batch: expected 1 or more, got {batch}")
    if not 1 <= threads <= MOST_THREADS:
        raise UserError(f"threads: expected 1 to {MOST_THREADS}, got {threads}")
    return _Planner(network, arrays, Plan(batch, threads), features, choices).plan()


def network_windows(network: IntegerNetwork, arrays: Arrays, *, batch: int) -> tuple[tuple[PartShape, Geometry], ...]:
    """The shapes of all parts of ``network`` at ``batch`` samples a run, which kernels are chosen for, and where each
    finds its input."""
    return LayerPlanner(Graph(network), arrays, Plan(batch), ()).windows()


class _Planner:
    def __init__(
        self,
        network: IntegerNetwork,
        arrays: Arrays,
        plan: Plan,
        features: Collection[str],
        choices: Choices,
    ) -> None:
        self._graph, self._batch, self._plan = Graph(network), plan.batch, plan
        self._layers = LayerPlanner(self._graph, arrays, self._plan, features, choices)
        self._tokens = TokenPlanner(self._graph, arrays, self._plan)
        self._weight_only = WeightOnlyPlanner(self._graph, arrays, self._plan, features)

    def plan(self) -> Plan:
        emit: dict[type, Callable[[Any], None]] = {
            QuantizeNode: self._quantize,
            Conv2dNode: self._layers.emit,
            LinearNode: self._layers.emit,
            PoolNode: self._pool,
            ReluNode: self._elementwise,
            ClipNode: self._clip,
            GeluNode: self._gelu,
            AddNode: self._elementwise,
            FlattenNode: self._same_buffer,
            TokensNode: self._same_buffer,
            WeightOnlyNode: self._weight_only.emit,
            TokenNode: self._pool,
            MeanTokensNode: self._pool,
            **self._tokens.emit,
        }
        self._layers.build_kernels()
        self._input()
        for node in list(self._graph.nodes.values())[1:]:
            if node.name not in self._layers.absorbed:
                emit[type(node)](node)
        if not isinstance(node, KeepNode):
            self._output()
        return self._plan

    def _elements(self, name: str) -> int:
        return self._batch * prod(self._graph.shape(name))

    def _input(self) -> None:
        name = self._graph.input
        self._plan.buffer(INPUT, 4 * self._elements(name))
        node = self._graph.nodes[name]
        self._plan.n_tokens = node.n_tokens if isinstance(node, InputNode) else None
        if self._plan.n_tokens is not None:
            return
        if any(not isinstance(self._graph.nodes[reader], QuantizeNode) for reader in self._graph.consumers[name]):
            channels, height, width = self._graph.shape(name)
            pixels, order = height * width, self._graph.order(name)
            source, pixel_stride = (order, channels) if self._graph.is_tokens(name) else (order * pixels, 1)
            to = self._plan.new_floats(name, self._elements(name))
            self._copy(name, INPUT, to, pixels, channels, source, (pixel_stride, channels, 1))

    def _output(self) -> None:
        name = self._graph.output
        if name not in self._plan.floats:
            raise UserError(f"network: expected an fp32 output, got {name}, a tensor of codes")
        channels, height, width = self._graph.shape(name)
        position = np.argsort(self._graph.order(name))
        pixels = height * width
        if (pixels == 1 or self._graph.is_tokens(name)) and (np.diff(position) == 1).all():
            self._plan.output = self._plan.floats[name]  # it lies as it should
            return
        self._plan.buffer(OUTPUT, 4 * self._elements(name))
        strides = (channels, channels, 1) if self._graph.is_tokens(name) else (channels, 1, pixels)
        self._copy(name, self._plan.floats[name], OUTPUT, pixels, channels, position, strides)

    def _copy(
        self,
        node: str,
        source: str,
        to: str,
        pixels: int,
        channels: int,
        at: NDArray[Any],
        strides: tuple[int, int, int],
    ) -> None:
        self._plan.add(
            Kind.COPY,
            node,
            reads=(source,),
            writes=(to,),
            arguments=lambda address: CopyStruct(
                in_=address[source],
                batch=self._batch,
                pixels=pixels,
                channels=channels,
                batch_stride=pixels * channels,
                pixel_stride=strides[0],
                source=np.ascontiguousarray(at, np.int64),
                out=address[to],
                out_pixel_stride=strides[1],
                out_channel_stride=strides[2],
            ),
        )

    def _quantize(self, node: QuantizeNode) -> None:
        tensor = node.inputs[0]
        channels, height, width = self._graph.shape(tensor)
        pixels, order = height * width, self._graph.order(node.name)
        if tensor == self._graph.input:
            first = pixels > 1 and not self._graph.is_tokens(tensor)  # channels
            reads, pixel_stride = INPUT, 1 if first else channels
            source: NDArray[np.int64] | None = order * pixels if first else order
        else:
            reads, pixel_stride = self._plan.floats[tensor], channels
            source = np.argsort(self._graph.order(tensor))[order] if self._graph.gathers(node.name) else None
        writes, vectors = (
            self._plan.new_codes(node.name, self._elements(node.name)),
            self._graph.requantisation(node.name),
        )
        self._plan.add(
            Kind.QUANTIZE,
            node.name,
            reads=(reads,),
            writes=(writes,),
            arguments=lambda address: QuantizeStruct(
                in_=address[reads],
                batch=self._batch,
                pixels=pixels,
                channels=channels,
                batch_stride=pixels * channels,
                pixel_stride=pixel_stride,
                source=None if source is None else np.ascontiguousarray(source, np.int64),
                out=address[writes],
                **vectors,
            ),
        )

    def _elementwise(self, node: ReluNode | AddNode) -> None:
        reads = tuple(self._plan.floats[name] for name in node.inputs)
        writes, size = self._plan.new_floats(node.name, self._elements(node.name)), self._elements(node.name)
        self._plan.add(
            Kind.RELU if isinstance(node, ReluNode) else Kind.ADD,
            node.name,
            reads=reads,
            writes=(writes,),
            arguments=lambda address: ElementwiseStruct(
                first=address[reads[0]],
                second=address[reads[1]] if len(reads) > 1 else None,
                out=address[writes],
                size=size,
            ),
        )

    def _clip(self, node: ClipNode) -> None:
        reads, writes, size = self._one_to_one(node)
        self._plan.add(
            Kind.CLIP,
            node.name,
            reads=(reads,),
            writes=(writes,),
            arguments=lambda address: ClipStruct(in_=address[reads], out=address[writes], size=size, most=node.most),
        )

    def _gelu(self, node: GeluNode) -> None:
        reads, writes, size = self._one_to_one(node)
        is_tanh = int(node.approximate == "tanh")
        self._plan.add(
            Kind.GELU,
            node.name,
            reads=(reads,),
            writes=(writes,),
            arguments=lambda address: GeluStruct(in_=address[reads], out=address[writes], size=size, is_tanh=is_tanh),
        )

    def _one_to_one(self, node: ClipNode | GeluNode) -> tuple[str, str, int]:
        """(buffer read, buffer written, numbers in each)."""
        size = self._elements(node.name)
        return self._plan.floats[node.inputs[0]], self._plan.new_floats(node.name, size), size

    def _same_buffer(self, node: FlattenNode | TokensNode) -> None:
        self._plan.floats[node.name] = self._plan.floats[node.inputs[0]]  # channels last: the order says what is where

    def _pool(self, node: PoolNode | TokenNode | MeanTokensNode) -> None:
        tensor, elements = node.inputs[0], self._elements(node.name)
        if self._graph.holds_codes(tensor):
            kind, reads, writes = (
                Kind.MAX_POOL_CODES,
                self._plan.codes[tensor],
                self._plan.new_codes(node.name, elements),
            )
        else:
            kind = Kind.AVERAGE_POOL if node.op in ("avg_pool2d", "mean_tokens") else Kind.MAX_POOL
            reads, writes = self._plan.floats[tensor], self._plan.new_floats(node.name, elements)
        self._plan.add(
            kind,
            node.name,
            reads=(reads,),
            writes=(writes,),
            arguments=pool_arguments(self._graph, node, self._batch, reads, writes),
        )
