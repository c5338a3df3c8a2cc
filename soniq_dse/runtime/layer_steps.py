"""The steps of one linear layer or convolution: packing its input, the layer with its epilogue, pools of codes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.kernels.catalog import kernel, kernels_for, missing_features
from soniq_dse.kernels.layer import LayerWeights, Part, merge_groups, part_shapes, plan_parts
from soniq_dse.kernels.layer_structs import LayerStruct
from soniq_dse.kernels.library import Kernel, build_kernels, load_kernel, round_up
from soniq_dse.kernels.strips import Geometry, Strips, bordered
from soniq_dse.kernels.walk import NO_POOL, Image, Pool, Tiling, layer_struct, tile_layer
from soniq_dse.records.choice import Choices, PartShape
from soniq_dse.records.cost import KernelSpec
from soniq_dse.records.network import (
    Conv2dNode,
    FlattenNode,
    LinearNode,
    MeanTokensNode,
    PoolNode,
    QuantizeNode,
    TokenNode,
    TokensNode,
)
from soniq_dse.runtime.executor import depthwise_kernel, driver_flags
from soniq_dse.runtime.graph import Epilogue, Graph
from soniq_dse.runtime.plan import SCRATCH, Addresses, LayerReport, Plan
from soniq_dse.runtime.structs import Kind, PoolStruct

Arrays = Mapping[str, NDArray[Any]]
"""``ArrayRef.sha256`` -> array."""
NO_CHOICES = Choices()
"""Leaves every part to the ranking of the catalog."""


class LayerPlanner:
    """Emits the steps of layers; ``absorbed`` holds the nodes that later need no step of their own."""

    def __init__(
        self, graph: Graph, arrays: Arrays, plan: Plan, features: Collection[str], choices: Choices = NO_CHOICES
    ) -> None:
        self.absorbed: set[str] = set()
        self._graph, self._arrays, self._plan = graph, arrays, plan
        self._features, self._choices = features, choices
        self._packed: set[str] = set()

    def windows(self) -> tuple[tuple[PartShape, Geometry], ...]:
        """The shapes of all parts that a kernel is chosen for in order, with the geometry of their layers."""
        nodes = [node for node in self._graph.nodes.values() if isinstance(node, Conv2dNode | LinearNode)]
        laid_out = [(self._weights(node), self._geometry(node)) for node in nodes]
        chosen = [(weights, window) for weights, window in laid_out if not weights.is_depthwise]
        return tuple((shape, window) for weights, window in chosen for shape in part_shapes(weights, window))

    def build_kernels(self) -> None:
        """Build the kernels of all layers side by side; ``emit`` loads them one by one."""
        build_kernels(self._choose(shape)[0] for shape in dict(self.windows()))

    def emit(self, node: Conv2dNode | LinearNode) -> None:
        """Add the steps of ``node`` and of what its epilogue absorbs."""
        geometry, weights = self._geometry(node), self._weights(node)
        epilogue = self._graph.epilogue(node.name)
        pool = self._pool_of_sums(epilogue, weights)
        if pool is not None:
            weights, epilogue.output = _rising(weights), pool.name
            epilogue.absorbed.add(pool.name)
        depthwise = depthwise_kernel(driver_flags(self._features)) if weights.is_depthwise else None
        parts = plan_parts(weights, geometry, self._load, depthwise)
        on_sums = NO_POOL if pool is None else Pool(pool.kernel, pool.stride)
        tiling = tile_layer(parts, geometry, weights.weight.shape[0], self._plan.threads, on_sums)
        self._plan.buffer(SCRATCH, tiling.shares * tiling.scratch_bytes)
        images = [self._pack(node, part.strips, geometry) for part in parts]
        self.absorbed |= epilogue.absorbed
        residual = None if epilogue.residual is None else self._plan.floats[epilogue.residual]
        dying = residual if self._dies_in(node.name, epilogue) else None
        floats, codes, pools = self._outputs(epilogue.output, dying)
        needed = (residual, *(image for _, image in images))
        self._plan.add(
            Kind.LAYER,
            node.name,
            reads=tuple(name for name in needed if name is not None),
            writes=tuple(name for name in (floats, *codes.values()) if name is not None),
            arguments=self._arguments(node, weights, parts, tiling, images, epilogue, residual, floats, codes),
        )
        for pool, reads, writes in pools:
            arguments = pool_arguments(self._graph, pool, self._plan.batch, reads, writes)
            self._plan.add(Kind.MAX_POOL_CODES, pool.name, reads=(reads,), writes=(writes,), arguments=arguments)
        self._report(node, geometry, parts, () if depthwise else part_shapes(weights, geometry))

    def _geometry(self, node: Conv2dNode | LinearNode) -> Geometry:
        _, height, width = self._graph.shape(node.inputs[0])
        if isinstance(node, LinearNode):
            return Geometry(self._plan.batch, height, width)
        kernel_h, kernel_w = self._arrays[node.weight.sha256].shape[2:]
        return Geometry(self._plan.batch, height, width, (kernel_h, kernel_w), node.stride, node.padding, node.dilation)

    def _weights(self, node: Conv2dNode | LinearNode) -> LayerWeights:
        codes, out_order = node.inputs[0], self._graph.order(node.name)
        weight = self._arrays[node.weight.sha256]
        segments = self._graph.segments(codes)
        scale = self._arrays[node.scale.sha256][[index for index, _ in segments]]
        quantizer = self._graph.quantizer(codes)
        assert quantizer is not None  # segments() has refused fp32
        return merge_groups(
            LayerWeights(
                weight=(weight[:, :, None, None] if weight.ndim == 2 else weight)[out_order],
                in_order=self._graph.order(codes),
                segments=tuple(segment for _, segment in segments),
                signed=quantizer.signed,
                groups=node.groups if isinstance(node, Conv2dNode) else 1,
                scale=np.ascontiguousarray(scale[:, out_order], np.float32),
                bias=np.ascontiguousarray(self._arrays[node.bias.sha256][out_order], np.float32),
            )
        )

    def _load(self, shape: PartShape) -> tuple[Kernel, bool | None]:
        spec, folded = self._choose(shape)
        return load_kernel(spec), folded

    def _choose(self, shape: PartShape) -> tuple[KernelSpec, bool | None]:
        """The kernel and layout that were chosen for a part; where none was, the first of the catalog's ranking."""
        if shape.level.is_weight_only:
            raise UserError(f"level {shape.level.name}: expected activations of 1-8 bits, got float ones")
        made = self._choices.of(shape)
        if made is not None:
            spec = kernel(made.taken.symbol)
            if not missing_features(spec, self._features):
                return spec, made.taken.folded
        return first_fitting(shape, self._features), None

    def _pack(self, node: Conv2dNode | LinearNode, own: Strips, geometry: Geometry) -> tuple[Strips, str]:
        """The strips of a part with their border, shared by the layers that read them, and their buffer."""
        codes = node.inputs[0]
        readers = [self._graph.nodes[name] for name in self._graph.consumers[codes]]
        strips = bordered(own, [self._geometry(reader) for reader in readers if isinstance(reader, Conv2dNode)])
        image, reads = f"{codes}:{strips.name}", self._plan.codes[codes]
        if strips.bare:
            return strips, reads
        if image in self._packed:
            return strips, image
        self._packed.add(image)
        self._plan.buffer(image, strips.size_bytes(geometry))
        pad_codes, channels = self._graph.pad_codes(codes), self._graph.shape(codes)[0]
        self._plan.add(
            Kind.PACK,
            node.name,
            reads=(reads,),
            writes=(image,),
            arguments=lambda address: strips.struct(
                geometry, codes=address[reads], ld_codes=channels, pad_codes=pad_codes, out=address[image]
            ),
        )
        return strips, image

    def _pool_of_sums(self, epilogue: Epilogue, weights: LayerWeights) -> PoolNode | None:
        """The max pool that alone reads what a layer makes, if it can be done on raw sums (``cpu/layer.h``)."""
        readers = [self._graph.nodes[name] for name in self._graph.consumers[epilogue.output]]
        if len(readers) != 1 or not isinstance(readers[0], PoolNode) or epilogue.output == self._graph.output:
            return None
        pool, height = readers[0], self._graph.shape(epilogue.output)[1]
        overlaps = tuple(k - s for k, s in zip(pool.kernel, pool.stride, strict=True))
        in_bands = pool.padding == overlaps and height % pool.stride[0] == 0 and pool.kernel != (1, 1)
        in_bands = in_bands and all(overlap < step for overlap, step in zip(overlaps, pool.stride, strict=True))
        plain = epilogue.relu_first and epilogue.residual is None
        one_part = len(weights.segments) == weights.groups == 1
        return pool if pool.op == "max_pool2d" and in_bands and plain and one_part else None

    def _dies_in(self, layer: str, epilogue: Epilogue) -> bool:
        """Whether a layer is the last to read its residual, so that what it writes may take that one's place."""
        if epilogue.residual is None or isinstance(self._graph.nodes[epilogue.residual], FlattenNode | TokensNode):
            return False  # another tensor may lie in the same place
        readers = [name for name in self._graph.consumers[epilogue.residual] if name not in epilogue.absorbed]
        copies = [name for name in readers if isinstance(self._graph.nodes[name], FlattenNode | TokensNode)]
        earlier = all(self._graph.position[name] < self._graph.position[layer] for name in readers)
        return earlier and not copies and epilogue.residual != self._graph.output

    def _outputs(
        self, tensor: str, dying: str | None
    ) -> tuple[str | None, dict[str, str], list[tuple[PoolNode, str, str]]]:
        """What a layer writes: its fp32 buffer if anything reads fp32, in the place of the ``dying`` residual if
        there is one; per quantize node a buffer of codes; the pools that follow on codes (node, buffer read, buffer
        written)."""
        codes: dict[str, str] = {}
        pools: list[tuple[PoolNode, str, str]] = []
        elements = self._plan.batch * prod(self._graph.shape(tensor))
        reads_floats = tensor == self._graph.output
        for reader in self._graph.consumers[tensor]:
            node = self._graph.nodes[reader]
            if isinstance(node, QuantizeNode) and not self._graph.gathers(reader):
                codes[reader] = self._plan.new_codes(reader, elements)
                self.absorbed.add(reader)
            elif isinstance(node, PoolNode) and (quantizers := self._quantizers_only(node)):
                pooled = self._plan.batch * prod(self._graph.shape(reader))
                for quantize in quantizers:
                    codes[quantize] = self._plan.buffer(f"{quantize}:unpooled", elements)
                    pools.append((node, codes[quantize], self._plan.new_codes(quantize, pooled)))
                self.absorbed |= {reader, *quantizers}
            else:
                reads_floats = True
        if reads_floats and dying is not None:
            self._plan.floats[tensor] = dying
        elif reads_floats:
            self._plan.new_floats(tensor, elements)
        return self._plan.floats.get(tensor), codes, pools

    def _quantizers_only(self, pool: PoolNode) -> list[str]:
        """The readers of a max pool of fp32, if all are quantizers that need no gather; else none."""
        readers = self._graph.consumers[pool.name]
        quantizers = [name for name in readers if isinstance(self._graph.nodes[name], QuantizeNode)]
        plain = all(not self._graph.gathers(name) for name in quantizers) and pool.name != self._graph.output
        return quantizers if pool.op == "max_pool2d" and plain and len(quantizers) == len(readers) else []

    def _arguments(
        self,
        node: Conv2dNode | LinearNode,
        weights: LayerWeights,
        parts: tuple[Part, ...],
        tiling: Tiling,
        images: list[tuple[Strips, str]],
        epilogue: Epilogue,
        residual: str | None,
        floats: str | None,
        codes: dict[str, str],
    ) -> Callable[[Addresses], LayerStruct]:
        geometry, pad_codes = self._geometry(node), self._graph.pad_codes(node.inputs[0])
        vectors = {name: self._graph.requantisation(name) for name in codes}
        return lambda address: layer_struct(
            weights,
            geometry,
            parts,
            tiling,
            images=[Image(strips, address[image]) for strips, image in images],
            pad_codes=pad_codes,
            scratch=address[SCRATCH],
            codes_out=[{"codes": address[buffer], **vectors[name]} for name, buffer in codes.items()],
            residual=None if residual is None else address[residual],
            relu_first=int(epilogue.relu_first),
            relu_last=int(epilogue.relu_last),
            out=None if floats is None else address[floats],
        )

    def _report(
        self, node: Conv2dNode | LinearNode, geometry: Geometry, parts: tuple[Part, ...], shapes: tuple[PartShape, ...]
    ) -> None:
        macs = geometry.rows * prod(self._arrays[node.weight.sha256].shape)
        padded = sum(geometry.rows * part.cols * part.padded_k for part in parts)
        kernels = tuple(dict.fromkeys(part.kernel.spec.symbol for part in parts))
        folded = any(part.folded for part in parts)
        self._plan.layers.append(LayerReport(node.name, kernels, macs, padded, folded, shapes))


def _rising(weights: LayerWeights) -> LayerWeights:
    """The same layer of one segment with the signs of its scales in its weights."""
    sign = np.where(weights.scale[0] < 0, -1, 1).astype(np.int8)
    return replace(weights, weight=weights.weight * sign[:, None, None, None], scale=np.abs(weights.scale))


def first_fitting(shape: PartShape, features: Collection[str]) -> KernelSpec:
    """The first kernel of the catalog's ranking whose bound on k the part keeps in every layout."""
    ranked = kernels_for(shape.level, signed=shape.signed, features=features, rows=shape.rows, cols=shape.cols)
    fitting = [spec for spec in ranked if shape.taps * round_up(shape.channels, spec.k_group) <= spec.k_max]
    return next(iter(fitting), ranked[0])


def pool_arguments(
    graph: Graph, node: PoolNode | TokenNode | MeanTokensNode, batch: int, reads: str, writes: str
) -> Callable[[Addresses], PoolStruct]:
    """The arguments of a pool step once its buffers have addresses; a mean of tokens is a pool of all pixels, one token
    that of a pixel."""
    channels, height, width = graph.shape(node.inputs[0])
    _, out_height, out_width = graph.shape(node.name)
    kernel = stride = (height, width)
    padding, first = (0, 0), 0
    if isinstance(node, TokenNode):
        kernel, first = (1, 1), 4 * channels * node.index
    if isinstance(node, PoolNode):
        kernel, stride, padding = node.kernel, node.stride, node.padding
    return lambda address: PoolStruct(
        in_=address[reads] + first,
        out=address[writes],
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        out_height=out_height,
        out_width=out_width,
        kernel_height=kernel[0],
        kernel_width=kernel[1],
        stride_height=stride[0],
        stride_width=stride[1],
        pad_height=padding[0],
        pad_width=padding[1],
        scale=float(np.float32(1 / (kernel[0] * kernel[1]))),
    )
