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
    IntegerNetwork,
    LinearNode,
    NetworkNode,
    PoolNode,
    QuantizeNode,
    TensorQuantizer,
)

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
    for node in network.nodes:
        _validate_node(node, [checked[name] for name in node.inputs], quantizers, is_first=not checked)
        checked[node.name] = node
        if isinstance(node, QuantizeNode):
            quantizers[node.name] = node.quantizer
        elif node.op == "max_pool2d" and node.inputs[0] in quantizers:
            quantizers[node.name] = quantizers[node.inputs[0]]
    if network.nodes[-1].name in quantizers:
        raise _error(network.nodes[-1], "fp32 as the output of the network", "codes")


def validate_arrays(network: IntegerNetwork, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays that are not of the shape and type that their nodes say.

    Raises:
        UserError: names the node, what was expected and what was got.
    """
    for node in network.nodes:
        if not isinstance(node, Conv2dNode | LinearNode):
            continue
        for name, ref, dtype in (
            ("weight", node.weight, "int8"),
            ("scale", node.scale, "float32"),
            ("bias", node.bias, "float32"),
        ):
            array = arrays.get(ref.sha256)
            got = "none" if array is None else f"{array.dtype} {list(array.shape)}"
            if array is None or array.shape != ref.shape or array.dtype != dtype:
                raise _error(node, f"a {name} of {dtype} {list(ref.shape)}", got)


def _validate_node(
    node: NetworkNode, inputs: list[NetworkNode], quantizers: Mapping[str, TensorQuantizer], *, is_first: bool
) -> None:
    if len(node.name) > MOST_NAME or not node.name.isprintable():
        raise UserError(f"node: expected a printable name of {MOST_NAME} characters at most, got {node.name[:40]!r}...")
    if (node.op == "input") != is_first:
        raise _error(node, "an input as the first node and nowhere else", node.op)
    arity = {"input": 0, "add": 2}.get(node.op, 1)
    if len(inputs) != arity:
        raise _error(node, f"{arity} inputs", f"{len(inputs)}")
    if len(node.shape) not in (1, 3) or min(node.shape) < 1 or prod(node.shape) > MOST_ELEMENTS:
        raise _error(
            node, f"[channels] or [channels, height, width], {MOST_ELEMENTS} numbers at most", f"{list(node.shape)}"
        )
    holds_codes = [source.name in quantizers for source in inputs]
    reads_codes = isinstance(node, Conv2dNode | LinearNode)
    if node.op != "max_pool2d" and holds_codes != [reads_codes] * arity:
        raise _error(node, f"{'codes' if reads_codes else 'fp32'} to read", f"{'fp32' if reads_codes else 'codes'}")
    expected = _SHAPES[node.op](node, *(source.shape for source in inputs))
    if node.shape != expected:
        raise _error(node, f"the shape {list(expected)}", f"{list(node.shape)}")
    if isinstance(node, Conv2dNode | LinearNode):
        levels = len(quantizers[inputs[0].name].palette.levels)
        _validate_vectors(node, levels)


def _validate_vectors(node: Conv2dNode | LinearNode, levels: int) -> None:
    cols = node.shape[0]
    for name, ref, expected in (("scale", node.scale, (levels, cols)), ("bias", node.bias, (cols,))):
        if ref.shape != expected:
            raise _error(node, f"a {name} of {list(expected)}", f"{list(ref.shape)}")


def _quantize(node: QuantizeNode, source: Shape) -> Shape:
    if len(node.quantizer.level_of_channel) != source[0]:
        raise _error(node, f"a level for each of {source[0]} channels", f"{len(node.quantizer.level_of_channel)}")
    return source


def _conv2d(node: Conv2dNode, source: Shape) -> Shape:
    weight = node.weight.shape
    groups_fit = (
        len(weight) == 4 and min(weight) > 0 and source[0] == weight[1] * node.groups and weight[0] % node.groups == 0
    )
    if len(source) != 3 or not groups_fit:
        raise _error(node, f"a weight for {list(source)} in {node.groups} groups", f"{list(weight)}")
    geometry = Geometry(1, source[1], source[2], (weight[2], weight[3]), node.stride, node.padding, node.dilation)
    return weight[0], *geometry.out_size


def _linear(node: LinearNode, source: Shape) -> Shape:
    if len(source) != 1 or node.weight.shape[1:] != source:
        raise _error(node, f"a weight for {list(source)}", f"{list(node.weight.shape)}")
    return node.weight.shape[:1]


def _pool(node: PoolNode, source: Shape) -> Shape:
    if len(source) != 3:
        raise _error(node, "an image to read", f"{list(source)}")
    size = [(source[1 + i] - node.kernel[i]) // node.stride[i] + 1 for i in (0, 1)]
    return source[0], *size


def _add(node: NetworkNode, first: Shape, second: Shape) -> Shape:
    if first != second:
        raise _error(node, f"two tensors of {list(first)}", f"{list(second)}")
    return first


_SHAPES: dict[str, Callable[..., Shape]] = {
    "input": lambda node: node.shape,
    "quantize": _quantize,
    "conv2d": _conv2d,
    "linear": _linear,
    "relu": lambda _, source: source,
    "add": _add,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "flatten": lambda _, source: (prod(source),),
}


def _error(node: NetworkNode, expected: str, got: str) -> UserError:
    return UserError(f"node {node.name} ({node.op}): expected {expected}, got {got}")
