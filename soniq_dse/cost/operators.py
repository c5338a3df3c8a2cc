"""Cycles of what stands between the matmul layers: pools, adds, requantisation, whatever stays in floating point."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from soniq_dse.cost.vector_loops import (
    ATTEND,
    CAUSAL_SCORES,
    CLIP,
    COPY,
    EMIT,
    GELU,
    INTERLEAVE_CYCLES,
    LAYER_NORM,
    LOOK_UP,
    NORM,
    OTHER,
    PART_CYCLES,
    PLACES,
    POOL,
    POOL_CYCLES,
    RECTIFY,
    REORDER_CYCLES,
    RESIDUAL,
    SCORES_CYCLES,
    SOFTEN,
    TURN_CYCLES,
    VECTOR_SCORES,
    VectorLoops,
)
from soniq_dse.records.workload import Node, Workload

_FREE = frozenset({"input", "flatten", "part", "slice", "tokens"})
_MATMUL = frozenset({"conv2d", "linear"})
_ABSORBED = frozenset({"batch_norm", "relu"})
_IN_EPILOGUE = _ABSORBED | {"add", "clip"}
_FOLLOWS_LAYER = _MATMUL | _ABSORBED | {"add"}


def attention_cycles(
    loops: VectorLoops, *, rows: float, others: float, channels: int, heads: int, causal: bool, turned: float
) -> float:
    """Scores of all heads of ``rows`` queries, their exponentials, and the values of the ``others`` that they weigh;
    causal: half of it. ``turned``: elements of keys that are transposed first."""
    counted = (others + 1) / 2 + CAUSAL_SCORES if causal else others
    scored = counted if causal else -(-others // VECTOR_SCORES) * VECTOR_SCORES
    scores = rows * heads
    products = loops.floats(rows * (counted + scored) * channels, ATTEND)
    softened = scores * SCORES_CYCLES + loops.floats(scores * scored, SOFTEN)
    return PART_CYCLES + products + softened + TURN_CYCLES * turned


@dataclass(frozen=True)
class Operators:
    """Costs of a workload's operators at ``scale`` times its traced batch; ``quantised``: its tensors become codes;
    ``one_part``: layers whose input has one level."""

    workload: Workload
    loops: VectorLoops
    scale: float
    quantised: bool
    one_part: frozenset[str] = frozenset()

    def cycles(self, node: Node) -> float:
        """Cycles of a node that is no matmul layer; 0 where a layer's epilogue does it, or nothing is computed."""
        if node.op in _FREE or node.op in _MATMUL or (node.op in _ABSORBED and self._follows_layer(node)):
            return 0.0
        if node.op == "clip" and self.quantised and self._follows_layer(node) and self._read_by_layers_only(node):
            return 0.0
        elements = self._elements(node)
        if node.op in ("max_pool2d", "avg_pool2d"):
            taps = prod(node.attributes.get("kernel", (1, 1)))
            window, pixels = elements * taps, elements / max(1, node.shape[1] if len(node.shape) > 1 else 1)
            on_codes = self.quantised and node.op == "max_pool2d" and self._read_by_layers_only(node)
            vectors = (self.loops.bytes if on_codes else self.loops.floats)(window, POOL)
            if self.quantised and node.op == "max_pool2d" and self._pools_sums(node):
                return PART_CYCLES + self.loops.floats(window, POOL)
            return PART_CYCLES + float(pixels * taps) * POOL_CYCLES + vectors
        if node.op == "attention":
            return self._attention(node)
        if node.op == "mean_tokens":
            return self.loops.floats(prod(self.workload.node(node.inputs[0]).shape) * self.scale, POOL)
        loop = {
            "add": PLACES if node.attributes.get("parameters") else RESIDUAL,
            "layer_norm": LAYER_NORM,
            "gelu": GELU,
            "clip": CLIP,
            "prepend": COPY,
            "token": COPY,
            "embedding": LOOK_UP,
            "relu": COPY,
            "batch_norm": NORM,
        }.get(node.op, OTHER)
        return self.loops.floats(elements, loop)

    def _attention(self, node: Node) -> float:
        n, tokens, channels = node.shape
        return attention_cycles(
            self.loops,
            rows=n * tokens * self.scale,
            others=self.workload.node(node.inputs[1]).shape[1],
            channels=channels,
            heads=node.attributes["heads"],
            causal=node.attributes["causal"],
            turned=prod(self.workload.node(node.inputs[1]).shape) * self.scale,
        )

    def requantise(self, tensor: str, *, reordered: bool, uniform: bool = True) -> float:
        """Cycles to turn a tensor into codes; before the max pools that made it, since they work on codes.

        ``reordered``: its channels are put into another order on the way; ``uniform``: they share one level.
        """
        node = self.workload.node(tensor)
        while node.op == "max_pool2d" or node.op in _FREE - {"input"}:
            node = self.workload.node(node.inputs[0])
        found = self.workload.class_of(tensor)
        loop = RECTIFY if found is not None and found.nonnegative and uniform else EMIT
        alone = 0.0
        if node.op == "input":
            alone = PART_CYCLES + INTERLEAVE_CYCLES * self._elements(node) / max(1, found.channels if found else 1)
        moved = REORDER_CYCLES * self._elements(node) if reordered else 0.0
        return alone + moved + self.loops.floats(self._elements(node), loop)

    def written_bytes(self, node: Node) -> float:
        """Bytes that a layer writes: fp32 where something other than layers reads it, or nothing; codes for layers."""
        while True:
            readers = [other for other in self.workload.nodes if node.name in other.inputs]
            if len(readers) != 1 or readers[0].op not in _IN_EPILOGUE or not self._follows_layer(readers[0]):
                break
            node = readers[0]
        kept = not self.quantised or not readers or not self._read_by_layers_only(node)
        coded = self.quantised and any(reader.op in _MATMUL or reader.op == "max_pool2d" for reader in readers)
        return (4 * kept + coded) * self._elements(node)

    def _elements(self, node: Node) -> float:
        return prod(node.shape) * self.scale

    def _follows_layer(self, node: Node) -> bool:
        """Whether the epilogue of the layer before can do it: only such operators, or a residual add, lie between."""
        while node.inputs and node.op not in _MATMUL:
            node = self.workload.node(node.inputs[0])
            if node.op not in _FOLLOWS_LAYER:
                return False
        return node.op in _MATMUL

    def _pools_sums(self, node: Node) -> bool:
        """Whether the layer before takes the maxima itself, over its raw sums."""
        before = self.workload.node(node.inputs[0])
        rectified = before.op == "relu"
        while (
            before.op in _ABSORBED and len([other for other in self.workload.nodes if before.name in other.inputs]) == 1
        ):
            before = self.workload.node(before.inputs[0])
        return rectified and before.name in self.one_part

    def _read_by_layers_only(self, node: Node) -> bool:
        readers = [other for other in self.workload.nodes if node.name in other.inputs]
        return bool(readers) and all(
            reader.op in _MATMUL or (reader.op in ("max_pool2d", "flatten") and self._read_by_layers_only(reader))
            for reader in readers
        )
