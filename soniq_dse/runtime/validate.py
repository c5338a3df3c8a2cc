"""Is a network fit to be run? Every shape follows from the ones before it, before any C++ relies on them.

A record may come from a file that anyone wrote; what C++ reads and writes is sized by its shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.kernels.strips import Geometry
from soniq_dse.records.network import (
    Conv2dNode,
    InputNode,
    IntegerNetwork,
    LinearNode,
    NetworkNode,
    PoolNode,
    QuantizeNode,
    TensorQuantizer,
)
from soniq_dse.runtime.validate_tokens import OTHER_SHAPES, error_at, validate_numbers

MOST_ELEMENTS = 2**31
"""Of one tensor of one sample."""
MOST_NAME = 200

Shape = tuple[int, ...]


def validate(network: IntegerNetwork) -> None:
    """Refuse a network whose nodes do not fit together.

    Raises:
        UserError: names the node, what was expected and what was got.
    """
    checked: dict[str, NetworkNode] = {}
    quantizers: dict[str, TensorQuantizer] = {}  # of the tensors of codes
    validate_numbers(network)
    for node in network.nodes:
        _validate_node(node, [checked[name] for name in node.inputs], quantizers, is_first=not checked)
        checked[node.name] = node
        if isinstance(node, QuantizeNode):
            quantizers[node.name] = node.quantizer
        elif node.op == "max_pool2d" and node.inputs[0] in quantizers:
            quantizers[node.name] = quantizers[node.inputs[0]]
    kind = _kind(network.nodes[-1], quantizers)
    if kind != "fp32":
        raise error_at(network.nodes[-1], "fp32 as the output of the network", kind)


def validate_arrays(network: IntegerNetwork, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays that are not of the shape and type that their nodes say.

    Raises:
        UserError: names the node, what was expected and what was got.
    """
    for node in network.nodes:
        for name, ref in node.refs.items():
            dtype = "int8" if name in ("weight", "table") else "float32"
            array = arrays.get(ref.sha256)
            got = "none" if array is None else f"{array.dtype} {list(array.shape)}"
            if array is None or array.shape != ref.shape or array.dtype != dtype:
                raise error_at(node, f"a {name} of {dtype} {list(ref.shape)}", got)


def _validate_node(
    node: NetworkNode, inputs: list[NetworkNode], quantizers: Mapping[str, TensorQuantizer], *, is_first: bool
) -> None:
    if len(node.name) > MOST_NAME or not node.name.isprintable():
        raise UserError(f"node: expected a printable name of {MOST_NAME} characters at most, got {node.name[:40]!r}...")
    if (node.op == "input") != is_first:
        raise error_at(node, "an input as the first node and nowhere else", node.op)
    arities = {"input": (0,), "add": (2,), "attention": (3, 4)}.get(node.op, (1,))
    if len(inputs) not in arities:
        raise error_at(node, f"{arities[0]} inputs", f"{len(inputs)}")
    if len(node.shape) not in (1, 2, 3) or min(node.shape) < 1 or prod(node.shape) > MOST_ELEMENTS:
        shapes = "[channels], [channels, height, width] or [tokens, channels]"
        raise error_at(node, f"{shapes}, {MOST_ELEMENTS} numbers at most", f"{list(node.shape)}")
    _validate_kinds(node, [_kind(source, quantizers) for source in inputs])
    expected = _SHAPES[node.op](node, *(source.shape for source in inputs))
    if node.shape != expected:
        raise error_at(node, f"the shape {list(expected)}", f"{list(node.shape)}")
    if isinstance(node, Conv2dNode | LinearNode):
        levels = len(quantizers[inputs[0].name].palette.levels)
        _validate_vectors(node, levels)


def _kind(node: NetworkNode, quantizers: Mapping[str, TensorQuantizer]) -> str:
    """What a tensor holds."""
    if node.op == "slice" or (isinstance(node, InputNode) and node.n_tokens is not None):
        return "token numbers"
    return "codes" if node.name in quantizers else "fp32"


def _validate_kinds(node: NetworkNode, found: list[str]) -> None:
    """Refuse inputs that hold something else than the node reads."""
    read = {"conv2d": "codes", "linear": "codes", "slice": "token numbers", "embedding": "token numbers"}
    for position, kind in enumerate(found):
        wanted = "token numbers" if node.op == "attention" and position == 3 else read.get(node.op, "fp32")
        if kind != wanted and not (node.op == "max_pool2d" and kind == "codes"):
            raise error_at(node, f"{wanted} to read", kind)


def _validate_vectors(node: Conv2dNode | LinearNode, levels: int) -> None:
    cols = node.weight.shape[0]
    for name, ref, expected in (("scale", node.scale, (levels, cols)), ("bias", node.bias, (cols,))):
        if ref.shape != expected:
            raise error_at(node, f"a {name} of {list(expected)}", f"{list(ref.shape)}")


def _quantize(node: QuantizeNode, source: Shape) -> Shape:
    channels = source[1] if len(source) == 2 else source[0]
    if len(node.quantizer.level_of_channel) != channels:
        raise error_at(node, f"a level for each of {channels} channels", f"{len(node.quantizer.level_of_channel)}")
    return source


def _conv2d(node: Conv2dNode, source: Shape) -> Shape:
    weight = node.weight.shape
    groups_fit = (
        len(weight) == 4 and min(weight) > 0 and source[0] == weight[1] * node.groups and weight[0] % node.groups == 0
    )
    if len(source) != 3 or not groups_fit:
        raise error_at(node, f"a weight for {list(source)} in {node.groups} groups", f"{list(weight)}")
    geometry = Geometry(1, source[1], source[2], (weight[2], weight[3]), node.stride, node.padding, node.dilation)
    return weight[0], *geometry.out_size


def _linear(node: LinearNode, source: Shape) -> Shape:
    if len(source) > 2 or len(node.weight.shape) != 2 or node.weight.shape[1] != source[-1]:
        raise error_at(node, f"a weight for {list(source)}", f"{list(node.weight.shape)}")
    return *source[:-1], node.weight.shape[0]


def _pool(node: PoolNode, source: Shape) -> Shape:
    if len(source) != 3:
        raise error_at(node, "an image to read", f"{list(source)}")
    size = [(source[1 + i] + 2 * node.padding[i] - node.kernel[i]) // node.stride[i] + 1 for i in (0, 1)]
    return source[0], *size


def _add(node: NetworkNode, first: Shape, second: Shape) -> Shape:
    if first != second:
        raise error_at(node, f"two tensors of {list(first)}", f"{list(second)}")
    return first


def _flatten(node: NetworkNode, source: Shape) -> Shape:
    if len(source) == 2:
        raise error_at(node, "an image or a vector to read", f"{list(source)}")
    return (prod(source),)


_SHAPES: dict[str, Callable[..., Shape]] = {
    "input": lambda node: node.shape,
    "quantize": _quantize,
    "conv2d": _conv2d,
    "linear": _linear,
    "relu": lambda _, source: source,
    "clip": lambda _, source: source,
    "gelu": lambda _, source: source,
    "add": _add,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "flatten": _flatten,
    **OTHER_SHAPES,
}
