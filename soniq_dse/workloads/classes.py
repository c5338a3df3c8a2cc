"""Which tensors share one channel order and one assignment, which are pinned, and which are never negative."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from soniq_dse.records.workload import Conv2dLayer, Node, TensorClass, Unsupported

PinnedBits = int | tuple[int, int]
"""Bits of a pinned tensor; weight and activation bits where they differ."""
PINNED_BITS = 8

ELEMENTWISE = frozenset(
    {
        "abs",
        "celu",
        "clamp",
        "clamp_max",
        "clamp_min",
        "clip",
        "elu",
        "erf",
        "exp",
        "gelu",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "mish",
        "neg",
        "selu",
        "sigmoid",
        "silu",
        "softplus",
        "tanh",
    }
)
"""Operators that treat each element alone."""

KEEPS_CHANNELS = frozenset({"add", "avg_pool2d", "batch_norm", "flatten", "max_pool2d", "relu"}) | ELEMENTWISE
"""Operators whose output has its channels in the order of the input. Normalisations over channels do not count: their
output is computed in floating point and may be written in any order, which leaves its readers a choice of their own."""

NONNEGATIVE = frozenset({"abs", "clip", "exp", "hardsigmoid", "relu", "sigmoid", "softmax", "softplus"})
"""Operators whose output is at least 0 whatever they read."""

KEEPS_SIGN = frozenset(
    {
        "avg_pool2d",
        "adaptive_avg_pool2d",
        "cat",
        "contiguous",
        "expand",
        "flatten",
        "flip",
        "max_pool2d",
        "mean_tokens",
        "permute",
        "reshape",
        "select",
        "slice",
        "squeeze",
        "stack",
        "token",
        "tokens",
        "transpose",
        "unflatten",
        "unsqueeze",
        "view",
    }
)
"""Operators whose output is at least 0 where all they read is."""


def unfoldable(nodes: list[Node], floating: set[str]) -> list[Unsupported]:
    """BatchNorms that cannot be folded into the layer before them."""
    by_name = {node.name: node for node in nodes}
    readers = Counter(tensor for node in nodes for tensor in node.inputs)
    found = []
    for node in nodes:
        if node.op != "batch_norm" or node.name in floating:
            continue
        producer = by_name[node.inputs[0]]
        if producer.layer is None or producer.name in floating:
            reason = f"follows {producer.op} {producer.name!r}, not a quantised layer, so it cannot be folded"
        elif readers[producer.name] > 1:
            reason = f"{producer.name!r} has other readers, so it cannot be folded into it"
        elif producer.op == "linear" and len(node.shape) != 2:
            reason = "normalises another axis than the features of the linear layer, so it cannot be folded"
        else:
            continue
        found.append(Unsupported(node=node.name, op=node.op, reason=reason))
    return found


def misaligned(nodes: list[Node], floating: set[str]) -> list[Unsupported]:
    """Layers that read another axis than the one that holds the channels of their input."""
    axes = _channel_axes(nodes, floating)
    rank_of = {node.name: len(node.shape) for node in nodes}
    return [
        Unsupported(
            node=node.name, op=node.op, reason=f"reads an axis of {node.inputs[0]!r} that does not hold its channels"
        )
        for node in nodes
        if node.layer is not None and node.name not in floating and axes[node.inputs[0]][0] != _axis_read(node, rank_of)
    ]


def tensor_classes(nodes: list[Node], floating: set[str], input_nonnegative: bool) -> tuple[TensorClass, ...]:
    """The classes that a quantised layer reads, in the order in which they are first read.

    ``floating`` names the nodes that stay in floating point. What the first, the last or a depthwise layer reads is
    pinned to 8 bits.
    """
    return classes_of(nodes, floating, nonnegative(nodes, floating, input_nonnegative), default_pins(nodes, floating))


def default_pins(nodes: list[Node], floating: set[str], ends: PinnedBits | None = PINNED_BITS) -> dict[str, PinnedBits]:
    """Tensor -> bits: ``ends`` for what the first and the last layers read, 8 for what a depthwise one reads.

    A depthwise convolution has a kernel of its own, which takes 8-bit codes: narrower ones save it no time.
    """
    layers = [node for node in nodes if node.layer is not None and node.name not in floating]
    at_ends = {} if ends is None else {node.inputs[0]: ends for node in layers if node.name in _ends(nodes)}
    return at_ends | {node.inputs[0]: PINNED_BITS for node in layers if _depthwise(node)}


def classes_of(
    nodes: list[Node],
    floating: set[str],
    nonnegative: Mapping[str, bool],
    pins: Mapping[str, PinnedBits],
    *,
    apart: bool = False,
) -> tuple[TensorClass, ...]:
    """The classes where ``pins`` fix tensors: each of these is a class of its own, as one level has no order to share.

    ``nonnegative`` says of every tensor whether it is at least 0; ``apart``: every tensor that a layer reads is a class
    of its own, whatever joins it to others.
    """
    layers = [node for node in nodes if node.layer is not None and node.name not in floating]
    axes = _channel_axes(nodes, floating)
    alone = set(pins) | ({node.inputs[0] for node in layers} if apart else set())
    root_of = _joined(nodes, axes, alone)
    consumers: dict[str, list[Node]] = defaultdict(list)
    for node in layers:
        consumers[root_of[node.inputs[0]]].append(node)
    order = {node.name: index for index, node in enumerate(nodes)}
    found = []
    for root, readers in consumers.items():
        read = sorted({node.inputs[0] for node in readers}, key=order.__getitem__)
        found.append(
            TensorClass(
                name=read[0],
                tensors=tuple(node.name for node in nodes if root_of[node.name] == root),
                channels=axes[read[0]][1],
                nonnegative=all(nonnegative[tensor] for tensor in read),
                consumers=tuple(node.name for node in readers),
                pinned_bits=pins.get(root),
            )
        )
    return tuple(found)


def _depthwise(node: Node) -> bool:
    return isinstance(node.layer, Conv2dLayer) and node.layer.groups == node.layer.in_channels > 1


def _axis_read(node: Node, rank_of: dict[str, int]) -> int:
    """Axis of a layer's input that its weights run along: 1 of images, the last of all else."""
    return 1 if isinstance(node.layer, Conv2dLayer) else rank_of[node.inputs[0]] - 1


def _channel_axes(nodes: list[Node], floating: set[str]) -> dict[str, tuple[int, int]]:
    """Tensor -> (axis of its channels, how many); for a flattened image the channels before it was flattened.

    Behind an operator that gives no order, the layer that reads the tensor first decides.
    """
    rank_of = {node.name: len(node.shape) for node in nodes}
    wanted: dict[str, int] = {}
    for node in nodes:
        if node.layer is not None and node.name not in floating:
            wanted.setdefault(node.inputs[0], _axis_read(node, rank_of))
    axes: dict[str, tuple[int, int]] = {}
    for node in nodes:
        if node.op == "flatten":
            axes[node.name] = (1, axes[node.inputs[0]][1])
        elif node.op in KEEPS_CHANNELS and node.inputs:
            axes[node.name] = axes[node.inputs[0]]
        else:
            by_layer = None if node.layer is None else 1 if isinstance(node.layer, Conv2dLayer) else len(node.shape) - 1
            by_rank = 1 if len(node.shape) == 4 else max(len(node.shape) - 1, 0)
            axis = by_layer if by_layer is not None else wanted.get(node.name, by_rank)
            axes[node.name] = (axis, node.shape[axis] if node.shape else 1)
    return axes


def _joined(nodes: list[Node], axes: dict[str, tuple[int, int]], pinned: set[str]) -> dict[str, str]:
    """Tensor -> the representative of its class: union-find over adds and operators that keep the channel order."""
    parent = {node.name: node.name for node in nodes}

    def root(tensor: str) -> str:
        while parent[tensor] != tensor:
            parent[tensor] = parent[parent[tensor]]
            tensor = parent[tensor]
        return tensor

    for node in nodes:
        if node.op not in KEEPS_CHANNELS or node.name in pinned:
            continue
        for tensor in node.inputs:
            if tensor not in pinned and axes[tensor][1] == axes[node.name][1]:
                parent[root(node.name)] = root(tensor)
    return {tensor: root(tensor) for tensor in parent}


def _ends(nodes: list[Node]) -> set[str]:
    """Layers with no layer before them, or none after; a look-up table before them counts as one."""
    layers = {node.name for node in nodes if node.layer is not None}
    sources = layers | {node.name for node in nodes if node.op == "embedding"}
    after_layer: set[str] = set()
    for node in nodes:
        if any(tensor in after_layer or tensor in sources for tensor in node.inputs):
            after_layer.add(node.name)
    before_layer: set[str] = set()
    for node in reversed(nodes):
        if node.name in before_layer or node.name in layers:
            before_layer.update(node.inputs)
    return (layers - after_layer) | (layers - before_layer)


def nonnegative(nodes: list[Node], floating: set[str], input_nonnegative: bool) -> dict[str, bool]:
    """Tensor -> whether it is at least 0 by construction; an add that stays in floating point may subtract."""
    sign: dict[str, bool] = {}
    for node in nodes:
        keeps = node.op in KEEPS_SIGN or (node.op == "add" and node.name not in floating)
        if node.op == "input":
            sign[node.name] = input_nonnegative
        elif node.op in NONNEGATIVE or node.attributes.get("low", -1.0) >= 0:
            sign[node.name] = True
        else:
            known = bool(node.inputs) and not node.attributes.get("parameters")
            sign[node.name] = keeps and known and all(sign[tensor] for tensor in node.inputs)
    return sign
