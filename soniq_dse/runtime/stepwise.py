"""A network that gives a row of logits for each token, cut into what runs once per sequence and what runs per token.

Every operation but attention treats each token by itself, and causal attention sees earlier tokens alone. So the rows
of some tokens follow from these tokens and the keys and values of those before, which are kept: bit for bit the rows
that a run of the whole sequence gives. Attention to other tokens (of an encoder) reads keys and values kept once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from soniq_dse.errors import UserError
from soniq_dse.records.base import Record
from soniq_dse.records.network import (
    AddConstantNode,
    AttentionNode,
    EmbeddingNode,
    InputNode,
    IntegerNetwork,
    NetworkNode,
    SliceNode,
)

_BY_TOKEN = frozenset(
    {"quantize", "linear", "weight_only", "relu", "clip", "gelu", "add", "add_constant", "layer_norm"}
)


class KeepNode(Record):
    """Keeps key and value, ``[tokens, channels]`` each, in ``cache``: of ``others`` rows."""

    op: Literal["keep"] = "keep"
    name: str
    inputs: tuple[str, str]
    shape: tuple[int, ...]
    heads: int
    cache: str
    others: int
    grows: bool
    """The rows go behind those of earlier runs."""


class KeptAttentionNode(AttentionNode):
    """Attention to the keys and values in ``cache``; ``hidden_from``: the place of the first of the others' token
    numbers in the input of the whole network (``ld_numbers`` a sample), where some are hidden."""

    cache: str
    others: int
    hidden_from: int | None = None
    ld_numbers: int = 0


class PlacedConstantNode(AddConstantNode):
    """Adds the rows of ``constant`` from the place of the first token on; behind its last are zeros, up to ``room``."""

    room: int


@dataclass(frozen=True)
class Stepwise:
    """The parts of ``network``: the tokens from ``start`` to ``stop`` of its input, for each of which it gives a row of
    logits, pass through ``target``; ``context`` are the tensors of other tokens that these attend to."""

    network: IntegerNetwork
    start: int
    stop: int
    target: frozenset[str]
    context: tuple[AttentionNode, ...]

    @property
    def most(self) -> int:
        """Tokens of a sequence at most."""
        return self.stop - self.start

    def encode(self) -> IntegerNetwork | None:
        """What is done once per sequence, to the whole input; None where nothing is."""
        if not self.context:
            return None
        wanted = _ancestors(self.network.nodes, (name for node in self.context for name in node.inputs[1:3]))
        nodes: list[NetworkNode | KeepNode] = [node for node in self.network.nodes if node.name in wanted]
        shape = {node.name: node.shape for node in self.network.nodes}
        nodes += [_keep(node, shape[node.inputs[1]], shape[node.inputs[1]][0], grows=False) for node in self.context]
        return self._of(nodes)

    def some(self, tokens: int, room: int) -> IntegerNetwork:
        """The rows of ``tokens`` tokens that follow one another, given what is kept of those before: ``room`` at
        most."""
        first = self.network.nodes[0]
        nodes: list[NetworkNode | KeepNode] = [first.model_copy(update={"shape": (tokens,)})]
        shape = {node.name: node.shape for node in self.network.nodes}
        for node in self.network.nodes:
            if node.name not in self.target:
                continue
            now, changed = (tokens, *node.shape[1:]), {"shape": (tokens, *node.shape[1:])}
            if isinstance(node, AttentionNode):
                if node.causal:
                    nodes.append(_keep(node, now, room, grows=True))
                nodes.append(self._kept(node, now, room if node.causal else shape[node.inputs[1]][0]))
            elif isinstance(node, AddConstantNode):
                nodes.append(PlacedConstantNode(**dict(node) | changed, room=room))
            elif isinstance(node, EmbeddingNode):
                nodes.append(node.model_copy(update=changed | {"inputs": (first.name,)}))
            else:
                nodes.append(node.model_copy(update=changed))
        return self._of(nodes)

    def silent(self, tokens: int, room: int) -> IntegerNetwork | None:
        """``some`` for what it keeps alone, without logits; None where nothing is kept."""
        some = self.some(tokens, room)
        keeps = [node.name for node in some.nodes if node.op == "keep"]  # type: ignore[comparison-overlap]
        if not keeps:
            return None
        wanted = _ancestors(some.nodes, keeps)
        return some.model_copy(update={"nodes": tuple(node for node in some.nodes if node.name in wanted)})

    def _of(self, nodes: Iterable[NetworkNode | KeepNode]) -> IntegerNetwork:
        """A network of nodes of which some are the runtime's own, never to be stored."""
        made: Any = tuple(nodes)
        return IntegerNetwork.model_construct(name=self.network.name, nodes=made)

    def _kept(self, node: AttentionNode, shape: tuple[int, ...], others: int) -> KeptAttentionNode:
        fields = dict(node) | {"inputs": node.inputs[:1], "shape": shape}
        start = None if len(node.inputs) < 4 else numbers_of(self.network, node.inputs[3])[0]
        ld_numbers = self.network.nodes[0].shape[0]
        return KeptAttentionNode(**fields, cache=node.name, others=others, hidden_from=start, ld_numbers=ld_numbers)


def stepwise(network: IntegerNetwork) -> Stepwise:
    """The parts of a valid ``network``.

    Raises:
        UserError: it does not read token numbers or does not give a row for each, or rows of later tokens matter.
    """
    first, last = network.nodes[0], network.nodes[-1]
    if not isinstance(first, InputNode) or first.n_tokens is None or len(last.shape) != 2:
        raise UserError(f"network {network.name}: expected one that reads token numbers and gives a row for each")
    target, ranges = _target(network)
    if ranges != {(first.shape[0] - last.shape[0], first.shape[0])}:
        found = ", ".join(f"{start} to {stop}" for start, stop in sorted(ranges)) or "none"
        raise UserError(
            f"network {network.name}: expected rows for the last {last.shape[0]} of {first.shape[0]} tokens, got rows "
            f"that follow from tokens {found}"
        )
    attention = [node for node in network.nodes if node.name in target and isinstance(node, AttentionNode)]
    context = tuple(node for node in attention if not node.causal)
    start = first.shape[0] - last.shape[0]
    _expect_causal(network, context, start)
    return Stepwise(network, start, first.shape[0], frozenset(target), context)


def numbers_of(network: IntegerNetwork, name: str) -> tuple[int, int]:
    """Which numbers of the input a tensor of token numbers holds: from the first, to the second excluded."""
    nodes, start = {node.name: node for node in network.nodes}, 0
    node, length = nodes[name], nodes[name].shape[0]
    while isinstance(node, SliceNode):
        start, node = start + node.start, nodes[node.inputs[0]]
    return start, start + length


def _target(network: IntegerNetwork) -> tuple[set[str], set[tuple[int, int]]]:
    """(nodes of which each row belongs to one token, and the last follows from; ranges of the tokens at their root)."""
    nodes, open_names = {node.name: node for node in network.nodes}, [network.nodes[-1].name]
    found: set[str] = set()
    ranges: set[tuple[int, int]] = set()
    while open_names:
        node = nodes[open_names.pop()]
        if node.name in found:
            continue
        found.add(node.name)
        if isinstance(node, EmbeddingNode):
            ranges.add(numbers_of(network, node.inputs[0]))
        elif isinstance(node, AttentionNode):
            open_names += node.inputs[: 3 if node.causal else 1]
        elif node.op in _BY_TOKEN:
            open_names += node.inputs
        else:
            raise UserError(f"node {node.name}: expected operators that treat each token by itself, got {node.op}")
    return found, ranges


def _expect_causal(network: IntegerNetwork, context: Iterable[AttentionNode], start: int) -> None:
    """Refuse attention to the target's tokens that is not causal."""
    nodes = {node.name: node for node in network.nodes}
    for reader in context:
        followed = _ancestors(network.nodes, reader.inputs[1:])
        readers = (reader, *(nodes[name] for name in followed if nodes[name].op != "slice"))
        read = {name for node in readers for name in node.inputs if nodes[name].op in ("slice", "input")}
        if any(numbers_of(network, name)[1] > start for name in read):
            others = f"or to what follows from the first {start} tokens, " if start else ""
            raise UserError(
                f"node {reader.name}: expected attention to earlier tokens alone (causal), {others}got to later ones"
            )


def _ancestors(nodes: Iterable[NetworkNode], names: Iterable[str]) -> set[str]:
    """``names`` and all that they follow from, the input too."""
    wanted = set(names)
    for node in reversed(tuple(nodes)):
        if node.name in wanted or node.op == "input":
            wanted |= {node.name, *node.inputs}
    return wanted


def _keep(node: AttentionNode, shape: tuple[int, ...], others: int, *, grows: bool) -> KeepNode:
    name, inputs = f"{node.name}.keep", (node.inputs[1], node.inputs[2])
    return KeepNode(
        name=name, inputs=inputs, shape=shape, heads=node.heads, cache=node.name, others=others, grows=grows
    )
