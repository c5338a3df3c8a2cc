"""The shapes of what Transformers have besides: each follows from the ones before it (``validate.py``)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from soniq_dse.errors import UserError
from soniq_dse.records.network import (
    AddConstantNode,
    AttentionNode,
    EmbeddingNode,
    InputNode,
    IntegerNetwork,
    LayerNormNode,
    NetworkNode,
    PrependNode,
    SliceNode,
    TokenNode,
    WeightOnlyNode,
)

Shape = tuple[int, ...]


def error_at(node: NetworkNode, expected: str, got: str) -> UserError:
    """What is wrong with a node."""
    return UserError(f"node {node.name} ({node.op}): expected {expected}, got {got}")


def validate_numbers(network: IntegerNetwork) -> None:
    """Refuse an input of token numbers that some table has no row for: they are not checked again.

    Raises:
        UserError: names the node, what was expected and what was got.
    """
    first = network.nodes[0]
    n_tokens = first.n_tokens if isinstance(first, InputNode) else None
    if n_tokens is None:
        return
    if len(first.shape) != 1:
        raise error_at(first, "token numbers [tokens]", f"{list(first.shape)}")
    for node in network.nodes:
        if isinstance(node, EmbeddingNode) and node.table.shape[:1] < (n_tokens,):
            raise error_at(node, f"a table of {n_tokens} rows or more", f"{list(node.table.shape)}")


def _slice(node: SliceNode, source: Shape) -> Shape:
    if not node.start < node.stop <= source[0]:
        raise error_at(node, f"a part of {source[0]} token numbers", f"{node.start} to {node.stop}")
    return (node.stop - node.start,)


def _embedding(node: EmbeddingNode, source: Shape) -> Shape:
    table, scale = node.table.shape, node.scale.shape
    if len(table) != 2 or min(table) < 1 or scale != table[:1] or len(source) != 1:
        raise error_at(node, "a table [n_tokens, channels] and a scale [n_tokens]", f"{list(table)} and {list(scale)}")
    return source[0], table[1]


def _add_constant(node: AddConstantNode, source: Shape) -> Shape:
    if node.constant.shape != source:
        raise error_at(node, f"a constant of {list(source)}", f"{list(node.constant.shape)}")
    return source


def _layer_norm(node: LayerNormNode, source: Shape) -> Shape:
    for name, ref in node.refs.items():
        if len(source) > 2 or ref.shape != source[-1:]:
            raise error_at(node, f"a {name} for the channels of {list(source)}", f"{list(ref.shape)}")
    return source


def _attention(node: AttentionNode, query: Shape, key: Shape, value: Shape, numbers: Shape | None = None) -> Shape:
    shapes = [list(shape) for shape in (query, key, value)]
    if not len(query) == len(key) == 2 or key != value or query[1] != key[1] or query[1] % node.heads:
        raise error_at(node, f"[tokens, channels] and twice [others, channels] in {node.heads} heads", f"{shapes}")
    if node.causal and query != key:
        raise error_at(node, "as many others as tokens where attention is causal", f"{shapes}")
    if numbers is not None and numbers != key[:1]:
        raise error_at(node, f"token numbers of {key[0]} others", f"{list(numbers)}")
    return query


def _weight_only(node: WeightOnlyNode, source: Shape) -> Shape:
    weight = node.weight.shape
    if len(source) > 2 or len(weight) != 2 or min(weight) < 1 or weight[1] != source[-1]:
        raise error_at(node, f"a weight for {list(source)}", f"{list(weight)}")
    for name, ref in (("scale", node.scale), ("bias", node.bias)):
        if ref.shape != weight[:1]:
            raise error_at(node, f"a {name} of {list(weight[:1])}", f"{list(ref.shape)}")
    return *source[:-1], weight[0]


def _tokens(node: NetworkNode, source: Shape) -> Shape:
    if len(source) != 3:
        raise error_at(node, "an image to read", f"{list(source)}")
    return prod(source[1:]), source[0]


def _prepend(node: PrependNode, source: Shape) -> Shape:
    rows = node.rows.shape
    if len(source) != 2 or len(rows) != 2 or rows[0] < 1 or rows[1] != source[1]:
        raise error_at(node, f"rows [more, channels] for tokens of {list(source)}", f"{list(rows)}")
    return rows[0] + source[0], source[1]


def _token(node: TokenNode, source: Shape) -> Shape:
    if len(source) != 2 or node.index >= source[0]:
        raise error_at(node, f"tokens to read, more than {node.index}", f"{list(source)}")
    return source[1:]


def _mean_tokens(node: NetworkNode, source: Shape) -> Shape:
    if len(source) != 2:
        raise error_at(node, "tokens to read", f"{list(source)}")
    return source[1:]


OTHER_SHAPES: dict[str, Callable[..., Shape]] = {
    "slice": _slice,
    "embedding": _embedding,
    "add_constant": _add_constant,
    "layer_norm": _layer_norm,
    "attention": _attention,
    "weight_only": _weight_only,
    "tokens": _tokens,
    "prepend": _prepend,
    "token": _token,
    "mean_tokens": _mean_tokens,
}
"""Op -> the shape of what it gives.

Raises:
    UserError: what it reads does not fit.
"""
