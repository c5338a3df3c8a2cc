"""Latency of each node of a packed network as it runs: Linear layers, codes, norms, attention, sums, kept keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from soniq_dse.cost.layers import LayerCoster
from soniq_dse.cost.network import layer_coster
from soniq_dse.cost.operators import attention_cycles
from soniq_dse.cost.priced import microseconds, priced
from soniq_dse.cost.vector_loops import (
    CAUSAL_SCORES,
    CLIP,
    COLD_CYCLES,
    COPY,
    EMIT,
    GELU,
    LAYER_NORM,
    LOOK_UP,
    PART_CYCLES,
    PLACES,
    POOL,
    RECTIFY,
    TURN_CYCLES,
    Loop,
)
from soniq_dse.records.choice import Choices
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.network import AttentionNode, IntegerNetwork, LinearNode, NetworkNode, QuantizeNode
from soniq_dse.records.workload import GemmLayer

_LOOPS: Mapping[str, Loop] = {
    "embedding": LOOK_UP, "add_constant": PLACES, "add": PLACES, "relu": COPY, "gelu": GELU, "clip": CLIP,
    "prepend": COPY, "layer_norm": LAYER_NORM,
}  # fmt: skip
"""By operator: what it does to each element of its output."""
_IN_EPILOGUE = frozenset({"relu", "add", "clip"})
"""What the epilogue of a Linear layer does on the way to codes."""
_LINE_FLOATS = 16
NOTHING: Mapping[str, int] = {}


def step_us(
    hw: HardwareModel,
    network: IntegerNetwork,
    *,
    batch: int = 1,
    threads: int = 1,
    kept: Mapping[str, int] = NOTHING,
    choices: Choices | None = None,
) -> dict[str, float]:
    """Predicted microseconds by node of ``network``; convolutions, pools and what is free are left out.

    Args:
        kept: attention -> the tokens whose keys and values it finds in a cache, beside those of this run where it is
            causal; ``NODE.keep`` is what adds to that cache.
        choices: the kernels that the runtime uses.

    Raises:
        UserError: a level that the machine does not compute.
    """
    pricing = _Pricing(hw, network, layer_coster(hw, threads, choices=choices), batch, kept)
    cycles = {node.name: pricing.cycles(node) for node in network.nodes}
    return {name: microseconds(hw, value) for name, value in cycles.items() if value is not None}


@dataclass(frozen=True)
class _Pricing:
    hw: HardwareModel
    network: IntegerNetwork
    coster: LayerCoster
    batch: int
    kept: Mapping[str, int]

    def cycles(self, node: NetworkNode) -> float | None:
        """Of a node by itself; None of what is not priced here."""
        if isinstance(node, LinearNode):
            return self._linear(node)
        shared = self._shared(node)
        return None if shared is None else PART_CYCLES + COLD_CYCLES + shared / self.coster.threads

    def _linear(self, node: LinearNode) -> float | None:
        codes = self._nodes[node.inputs[0]]
        if not isinstance(codes, QuantizeNode):
            return None
        rows, segments = self.batch * prod(node.shape[:-1]), codes.quantizer.segments
        layer = GemmLayer(
            name=node.name, m=rows, n=node.shape[-1], k=codes.shape[-1], segments=segments, threads=self.coster.threads
        )
        written = [reader for reader in self.network.nodes if self._writer(reader) == node.name]
        emitted = sum(self._codes(reader) for reader in written if isinstance(reader, QuantizeNode))
        found, _ = priced(
            self.hw, self.coster, layer, segments, signed=codes.quantizer.signed, home=self._home,
            requantise=emitted / self.coster.threads, cold_cycles=COLD_CYCLES,
        )  # fmt: skip
        return found.cycles

    def _shared(self, node: NetworkNode) -> float | None:
        """Cycles that threads share."""
        loops = self.coster.loops
        if isinstance(node, AttentionNode):
            return self._attention(node)
        if isinstance(node, QuantizeNode):
            return self._codes(node)
        if node.op in _LOOPS:
            return loops.floats(self.batch * prod(node.shape), _LOOPS[node.op])
        if node.op == "mean_tokens":
            return loops.floats(self.batch * prod(self._nodes[node.inputs[0]].shape), POOL)
        if node.op == "keep":  # type: ignore[comparison-overlap]  # a node of the runtime's own
            return self._keep(node)
        return None

    def _codes(self, node: QuantizeNode) -> float:
        loop = EMIT if node.quantizer.signed else RECTIFY
        return self.coster.loops.floats(self.batch * prod(node.shape), loop)

    def _attention(self, node: AttentionNode) -> float:
        tokens, channels = node.shape
        is_kept = node.name in self.kept
        others = self._seen(node) if is_kept else float(self._nodes[node.inputs[1]].shape[0])
        products = attention_cycles(
            self.coster.loops,
            rows=self.batch * tokens,
            others=others,
            channels=channels,
            heads=node.heads,
            causal=node.causal and not is_kept,
            turned=0.0 if is_kept else self.batch * others * channels,
        )
        return products + self._cached_bytes(node) / self._cache_bytes_per_cycle

    def _keep(self, node: NetworkNode) -> float:
        """Keys go into rows of their channel, of each a line or more; the lines of values are few."""
        tokens, channels = node.shape
        lines = self.batch * channels * -(-tokens // _LINE_FLOATS)
        moved = 2 * 4 * _LINE_FLOATS * lines / self._cache_bytes_per_cycle
        return TURN_CYCLES * self.batch * tokens * channels + moved

    def _seen(self, node: AttentionNode) -> float:
        """By a token: those in the cache, and of this run's the half that causal attention sees."""
        tokens = node.shape[0]
        now = (tokens + 1) / 2 + (CAUSAL_SCORES if tokens > 1 else 0.0)
        return self.kept[node.name] + (now if node.causal else 0.0)

    def _cached_bytes(self, node: NetworkNode) -> float:
        """Of keys and values that come from a cache."""
        if not isinstance(node, AttentionNode) or node.name not in self.kept:
            return 0.0
        return 8 * self.batch * self._seen(node) * node.shape[1]

    def _writer(self, node: NetworkNode) -> str:
        """The layer whose epilogue makes ``node``, if that is a Linear one."""
        while node.inputs and self._nodes[node.inputs[0]].op in _IN_EPILOGUE:
            node = self._nodes[node.inputs[0]]
        return node.inputs[0] if node.inputs else ""

    @property
    def _nodes(self) -> dict[str, NetworkNode]:
        return {node.name: node for node in self.network.nodes}

    @property
    def _home(self) -> int:
        """The level that holds all weights between two runs."""
        return self.coster.hierarchy.level_of(sum(self._weight_bytes(node) for node in self.network.nodes))

    @property
    def _cache_bytes_per_cycle(self) -> float:
        """Of the level that holds all kept keys and values."""
        total = sum(self._cached_bytes(node) for node in self.network.nodes)
        return self.coster.hierarchy.bytes_per_cycle[self.coster.hierarchy.level_of(total)]

    def _weight_bytes(self, node: NetworkNode) -> float:
        codes = self._nodes[node.inputs[0]] if isinstance(node, LinearNode) else None
        if not isinstance(codes, QuantizeNode):
            return 0.0
        return node.shape[-1] * sum(one.channels * one.weight_bits for one in codes.quantizer.segments) / 8
