"""The golden evaluation of an ``IntegerNetwork``: what every runtime must give, code for code and bit for bit.

input               x, fp32
quantize            requantisation (``deployment.requantize``) -> uint8 codes
conv2d, linear      exact int32 sum per level, then the fp32 epilogue (``deployment.epilogue``)
relu, add           fp32
max_pool2d          of fp32 or of codes
avg_pool2d          fp32 sum in row-major window order from the first element on, times f32(1 / window size)
flatten             channels first
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from soniq_dse.formats import deployment
from soniq_dse.formats.deployment import Array, ChannelGrids, Window
from soniq_dse.records.network import (
    Conv2dNode,
    IntegerNetwork,
    LinearNode,
    NetworkNode,
    PoolNode,
    QuantizeNode,
    TensorQuantizer,
)

CHUNK_BYTES = 64 * 2**20
"""Samples are evaluated in chunks whose largest window matrix stays near this."""


def evaluate(network: IntegerNetwork, arrays: Mapping[str, Array], x: Array, keep: bool = False) -> Any:
    """Outputs of ``network`` on ``x [n, ...]`` (fp32): ``[n, ...]`` fp32, or with ``keep`` every node's array by name.

    Args:
        arrays: ``ArrayRef.sha256`` -> array.

    Raises:
        ValueError: the shape of ``x`` is not the network's input, or a value is not finite.
        KeyError: an array is missing.
        OverflowError: a sum could leave int32.
    """
    x = np.asarray(x, dtype=np.float32)
    if x.shape[1:] != network.nodes[0].shape:
        raise ValueError(f"x: expected [n, {', '.join(map(str, network.nodes[0].shape))}], got {list(x.shape)}")
    if not np.isfinite(x).all():
        raise ValueError("x: expected finite numbers")
    chunk = max(1, CHUNK_BYTES // max(_window_bytes(network, arrays), 1))
    parts = [_evaluate_chunk(network, arrays, x[at : at + chunk]) for at in range(0, max(len(x), 1), chunk)]
    if keep:
        return {node.name: np.concatenate([part[node.name] for part in parts]) for node in network.nodes}
    return np.concatenate([part[network.nodes[-1].name] for part in parts])


def quantizer_of(network: IntegerNetwork, name: str) -> TensorQuantizer:
    """The quantizer whose codes reach the conv2d or linear node that reads ``name``; pools of codes are seen through.

    Raises:
        ValueError: the tensor is fp32.
    """
    nodes = {node.name: node for node in network.nodes}
    node = nodes[name]
    while node.op == "max_pool2d":
        node = nodes[node.inputs[0]]
    if not isinstance(node, QuantizeNode):
        raise ValueError(f"node {name}: expected codes of a quantize node, got the fp32 output of {node.op}")
    return node.quantizer


def _window_bytes(network: IntegerNetwork, arrays: Mapping[str, Array]) -> int:
    """Bytes of the largest fp64 window matrix for one sample."""
    sizes = [8 * int(np.prod(node.shape)) for node in network.nodes]
    for node in network.nodes:
        if isinstance(node, Conv2dNode):
            sizes.append(8 * int(np.prod(node.shape[1:])) * int(np.prod(arrays[node.weight.sha256].shape[1:])))
    return max(sizes)


def _evaluate_chunk(network: IntegerNetwork, arrays: Mapping[str, Array], x: Array) -> dict[str, Array]:
    values: dict[str, Array] = {network.nodes[0].name: x}
    for node in network.nodes[1:]:
        inputs = [values[name] for name in node.inputs]
        if isinstance(node, Conv2dNode | LinearNode):
            grids = deployment.channel_grids(quantizer_of(network, node.inputs[0]))
            values[node.name] = _matmul(node, inputs[0], grids, arrays)
        else:
            values[node.name] = _OPS[node.op](node, *inputs)
    return values


def _matmul(node: Conv2dNode | LinearNode, codes: Array, grids: ChannelGrids, arrays: Mapping[str, Array]) -> Array:
    weight = arrays[node.weight.sha256]
    if isinstance(node, Conv2dNode):
        window = Window(node.stride, node.padding, node.dilation, node.groups)
        accumulators = deployment.accumulate_conv2d(codes, grids, weight, window)
    else:
        accumulators = deployment.accumulate_linear(codes, grids, weight)
    return deployment.epilogue(accumulators, arrays[node.scale.sha256], arrays[node.bias.sha256])


def _quantize(node: QuantizeNode, x: Array) -> Array:
    return deployment.requantize(x, deployment.channel_grids(node.quantizer))


def _relu(_: NetworkNode, x: Array) -> Array:
    return np.asarray(np.maximum(x, np.float32(0)))


def _add(_: NetworkNode, first: Array, second: Array) -> Array:
    return np.asarray(first + second)


def _max_pool2d(node: PoolNode, x: Array) -> Array:
    return np.asarray(deployment.patches(x, node.kernel, node.stride).max(axis=(4, 5)))


def _avg_pool2d(node: PoolNode, x: Array) -> Array:
    windows = deployment.patches(x, node.kernel, node.stride)
    total = windows[..., 0, 0].copy()
    for tap in range(1, node.kernel[0] * node.kernel[1]):
        total += windows[..., tap // node.kernel[1], tap % node.kernel[1]]
    return np.asarray(total * np.float32(1 / (node.kernel[0] * node.kernel[1])))


def _flatten(_: NetworkNode, x: Array) -> Array:
    return x.reshape(len(x), -1)


_OPS: dict[str, Callable[..., Array]] = {
    "quantize": _quantize,
    "relu": _relu,
    "add": _add,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "flatten": _flatten,
}
