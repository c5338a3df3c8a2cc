"""Nodes of the traced graph that together are one node of the integer network: attention with its heads, tokens."""

from __future__ import annotations

from collections.abc import Iterable

from soniq_dse.records.workload import Node, Unsupported

_RESHAPES = ("unflatten", "view", "reshape", "_unsafe_view", "flatten")
_SWAPPED = [0, 2, 1, 3]
"""The axes of ``[n, tokens, heads, channels]`` <-> ``[n, heads, tokens, channels]``."""
_PARTS_FIRST = [2, 0, 3, 1, 4]
"""Those of ``[n, tokens, parts, heads, channels]`` -> ``[parts, n, heads, tokens, channels]``."""
_ROLES = ("query", "key", "value")
_DIVIDE = ("split", "split_with_sizes", "chunk")


def fused(nodes: list[Node], unsupported: list[Unsupported]) -> tuple[list[Node], list[Unsupported]]:
    """The graph with ``attention`` and ``tokens`` nodes where it has their parts; what nothing reads then is gone.

    attention   ``scaled_dot_product_attention`` of query, key and value ``[n, tokens, channels]``, split into heads
                before and joined after it; a mask ``(numbers == token) * hidden`` is its fourth input
    part        query, key or value of one linear layer that gives them side by side
    tokens      ``[n, channels, height, width]`` -> ``[n, height * width, channels]``
    """
    found = _Fusion(nodes)
    for node in nodes:
        if node.op == "scaled_dot_product_attention":
            found.attention(node)
        elif node.op in ("transpose", "permute"):
            found.tokens(node)
    result = found.result(nodes[-1].name)
    left = {node.name: node.op for node in result}
    return result, [part for part in unsupported if left.get(part.node) == part.op]


class _Fusion:
    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._readers: dict[str, list[Node]] = {node.name: [] for node in nodes}
        for node in nodes:
            for name in node.inputs:
                self._readers[name].append(node)
        self._made: dict[str, Node] = {}
        self._renamed: dict[str, str] = {}

    def attention(self, node: Node) -> None:
        """Make ``node`` and what splits and joins its heads one node."""
        found = [self._split(name) for name in node.inputs[:3]]
        split = [part for part in found if part is not None]
        joined = self._joined(node)
        hidden = self._hidden(node)
        if len(split) < 3 or joined is None or hidden is None:
            return
        heads = {count for _, count in split}
        widths = {source.shape[2] for source, _ in split}
        if len(heads) != 1 or len(widths) != 1:
            return
        sources = [self._named(source, role) for role, (source, _) in zip(_ROLES, split, strict=True)]
        numbers, attributes = hidden
        attributes = {"heads": heads.pop(), **node.attributes, **attributes}
        made = Node(
            name=node.name, op="attention", inputs=(*sources, *numbers), shape=joined.shape, attributes=attributes
        )
        self._replace(joined, made)

    def tokens(self, node: Node) -> None:
        """Make ``node``, the transpose of an image without its second axis one node."""
        before = self._nodes[node.inputs[0]] if node.inputs else node
        image = self._nodes[before.inputs[0]] if before.op in _RESHAPES and before.inputs else None
        if image is None or len(image.shape) != 4 or before.shape[:2] != image.shape[:2] or len(before.shape) != 3:
            return
        if node.attributes.get("axes") == [0, 2, 1]:
            self._replace(node, Node(name=node.name, op="tokens", inputs=(image.name,), shape=node.shape))

    def result(self, output: str) -> list[Node]:
        """The nodes that are left: gone is what the output depended on and no longer does."""
        nodes = []
        for node in self._nodes.values():
            if node.name not in self._renamed:
                made = self._made.get(node.name, node)
                inputs = tuple(self._renamed.get(name, name) for name in made.inputs)
                nodes.append(made.model_copy(update={"inputs": inputs}))
        before = _behind(self._nodes.values(), output)
        after = _behind(nodes, self._renamed.get(output, output))
        return [node for node in nodes if node.name in after or node.name not in before]

    def _replace(self, last: Node, made: Node) -> None:
        self._made[made.name] = made
        if last.name != made.name:
            self._renamed[last.name] = made.name

    def _named(self, source: Node, role: str) -> str:
        """The name of an attention's input; a part of a layer is put into the graph under one that says what it is."""
        if source.op != "part":
            return source.name
        known = self._made.get(source.name)
        made = known or source.model_copy(update={"name": f"{source.inputs[0]}.{role}"})
        self._made[source.name] = made
        return made.name

    def _split(self, name: str) -> tuple[Node, int] | None:
        """(tensor ``[n, tokens, channels]``, heads) behind ``[n, heads, tokens, channels / heads]``."""
        moved = self._nodes[name]
        if len(moved.shape) == 3:
            return self._part(moved), 1
        if moved.op in ("select", "getitem"):
            return self._part_by_head(moved)
        before = self._nodes[moved.inputs[0]] if moved.attributes.get("axes") == _SWAPPED else None
        if before is None or before.op not in _RESHAPES or not before.inputs:
            return None
        source = self._nodes[before.inputs[0]]
        n, tokens, heads, channels = before.shape
        return (self._part(source), heads) if source.shape == (n, tokens, heads * channels) else None

    def _part(self, tensor: Node) -> Node:
        """The part of a linear layer's channels that ``tensor`` is; ``tensor`` itself where it is none."""
        divided = self._nodes[tensor.inputs[0]] if tensor.op == "getitem" else tensor
        if divided.op not in _DIVIDE or divided.attributes.get("axis") != 2:
            return tensor
        layer = self._nodes[divided.inputs[0]]
        start = divided.attributes["starts"][tensor.attributes["index"]]
        made = self._made_part(tensor.name, layer, divided, start, tensor.shape[2])
        return tensor if made is None else made

    def _part_by_head(self, chosen: Node) -> tuple[Node, int] | None:
        """(part of a linear layer's channels, heads) behind ``[parts, n, heads, tokens, channels / heads]``."""
        moved = self._nodes[chosen.inputs[0]]
        if moved.op == "unbind":
            axis, moved = moved.attributes["axis"], self._nodes[moved.inputs[0]]
        else:
            axis = chosen.attributes.get("axis")
        if axis != 0 or moved.attributes.get("axes") != _PARTS_FIRST or not moved.inputs:
            return None
        before = self._nodes[moved.inputs[0]]
        layer = self._nodes[before.inputs[0]] if before.op in _RESHAPES and before.inputs else before
        n, tokens, parts, heads, channels = before.shape
        if layer.shape != (n, tokens, parts * heads * channels):
            return None
        width = heads * channels
        made = self._made_part(chosen.name, layer, before, chosen.attributes["index"] * width, width)
        return None if made is None else (made, heads)

    def _made_part(self, name: str, layer: Node, reader: Node, start: int, width: int) -> Node | None:
        """Only of a linear layer that nothing but ``reader`` reads: deployment makes a layer of each part."""
        if layer.op != "linear" or self._only_reader(layer) is not reader:
            return None
        attributes = {"start": start, "stop": start + width}
        return Node(name=name, op="part", inputs=(layer.name,), shape=(*layer.shape[:2], width), attributes=attributes)

    def _joined(self, node: Node) -> Node | None:
        """``[n, tokens, channels]`` behind attention that gives ``[n, heads, tokens, channels / heads]``."""
        if len(node.shape) == 3:
            return node
        moved = self._only_reader(node)
        last = None if moved is None or moved.attributes.get("axes") != _SWAPPED else self._only_reader(moved)
        n, heads, tokens, channels = node.shape
        fits = last is not None and last.op in _RESHAPES and last.shape == (n, tokens, heads * channels)
        return last if fits else None

    def _only_reader(self, node: Node) -> Node | None:
        readers = self._readers[node.name]
        return readers[0] if len(readers) == 1 else None

    def _hidden(self, node: Node) -> tuple[tuple[str, ...], dict[str, float]] | None:
        """(token numbers, what hides some of them) of an attention's mask; None: it is another mask."""
        if len(node.inputs) == 3:
            return (), {}
        mask = self._nodes[node.inputs[3]]
        chain = []
        while len(mask.inputs) == 1 and mask.op in ("unsqueeze", "mul", "eq"):
            chain.append(mask)
            mask = self._nodes[mask.inputs[0]]
        named = [part.op for part in chain if part.op != "unsqueeze"]
        numbers = {part.op: part.attributes.get("number") for part in chain}
        others = self._nodes[node.inputs[1]].shape[-2]
        shapes = ((mask.shape[0], *(1,) * (len(node.shape) - 2), others), (mask.shape[0], others))
        if named != ["mul", "eq"] or None in (numbers["mul"], numbers["eq"]) or mask.shape != shapes[1]:
            return None
        if self._nodes[node.inputs[3]].shape != shapes[0]:
            return None
        return (mask.name,), {"hidden": float(numbers["mul"] or 0), "hidden_token": int(numbers["eq"] or 0)}


def _behind(nodes: Iterable[Node], output: str) -> set[str]:
    """The names of all that ``output`` depends on, itself included."""
    found = {output}
    for node in reversed(list(nodes)):
        found |= set(node.inputs) if node.name in found else set()
    return found
