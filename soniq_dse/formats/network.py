"""The golden evaluation of an ``IntegerNetwork``: what every runtime must give, code for code and bit for bit.

input               x, fp32 or token numbers
slice               some of the token numbers
embedding           f32(table[token]) * scale[token]
quantize            requantisation (``deployment.requantize``) -> uint8 codes
conv2d, linear      exact int32 sum per level, then the fp32 epilogue (``deployment.epilogue``)
weight_only         fp32 (``weight_only.weight_only``)
relu, add           fp32
clip, gelu          fp32 (``activations``)
add_constant        fp32
layer_norm          fp32 (``normalisation.layer_norm``)
attention           fp32 (``attention.attention``)
tokens              pixels become tokens
prepend             tokens of its own before those it reads
token               one of the tokens
mean_tokens         fp32 sum in the order of the tokens from the first on, times f32(1 / tokens)
max_pool2d          of fp32 or of codes, over what of a window lies inside
avg_pool2d          fp32 sum in row-major window order from the first element on, times f32(1 / window size)
flatten             channels first
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from soniq_dse.formats import activations, attention, deployment, normalisation
from soniq_dse.formats import weight_only as weights
from soniq_dse.formats.deployment import Array, ChannelGrids, Window
from soniq_dse.records.network import (
    AddConstantNode,
    AttentionNode,
    ClipNode,
    Conv2dNode,
    EmbeddingNode,
    GeluNode,
    InputNode,
    IntegerNetwork,
    LayerNormNode,
    LinearNode,
    NetworkNode,
    PoolNode,
    PrependNode,
    QuantizeNode,
    SliceNode,
    TensorQuantizer,
    TokenNode,
    WeightOnlyNode,
)

CHUNK_BYTES = 64 * 2**20
"""Samples are evaluated in chunks whose largest window matrix stays near this."""


def evaluate(network: IntegerNetwork, arrays: Mapping[str, Array], x: Array, keep: bool = False) -> Any:
    """Outputs of ``network`` on ``x [n, ...]`` (fp32 or token numbers): ``[n, ...]`` fp32, or with ``keep`` every
    node's array by name.

    Args:
        arrays: ``ArrayRef.sha256`` -> array.

    Raises:
        ValueError: the shape of ``x`` is not the network's input, or a value is not finite or no token number.
        KeyError: an array is missing.
        OverflowError: a sum could leave int32.
    """
    x = checked_input(network, x)
    chunk = max(1, CHUNK_BYTES // max(_window_bytes(network, arrays), 1))
    parts = [_evaluate_chunk(network, arrays, x[at : at + chunk]) for at in range(0, max(len(x), 1), chunk)]
    if keep:
        return {node.name: np.concatenate([part[node.name] for part in parts]) for node in network.nodes}
    return np.concatenate([part[network.nodes[-1].name] for part in parts])


def checked_input(network: IntegerNetwork, x: Array) -> Array:
    """``x`` in the type that the network reads: fp32, or int64 token numbers.

    Raises:
        ValueError: another shape, a value that is not finite, or no token number.
    """
    first = network.nodes[0]
    if x.shape[1:] != first.shape:
        raise ValueError(f"x: expected [n, {', '.join(map(str, first.shape))}], got {list(x.shape)}")
    n_tokens = first.n_tokens if isinstance(first, InputNode) else None
    if n_tokens is None:
        if not np.isfinite(x).all():
            raise ValueError("x: expected finite numbers, got infinities or NaN")
        return np.asarray(x, np.float32)
    if not np.issubdtype(x.dtype, np.integer):
        raise ValueError(f"x: expected token numbers as integers, got {x.dtype}")
    if x.size and not 0 <= x.min() <= x.max() < n_tokens:
        raise ValueError(f"x: expected token numbers 0..{n_tokens - 1}, got {x.min()}..{x.max()}")
    return np.asarray(x, np.int64)


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
        elif node.op in _WITH_ARRAYS:
            values[node.name] = _WITH_ARRAYS[node.op](node, arrays, inputs[0])
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


def _embedding(node: EmbeddingNode, arrays: Mapping[str, Array], tokens: Array) -> Array:
    rows = arrays[node.table.sha256][tokens].astype(np.float32)
    return np.asarray(rows * arrays[node.scale.sha256][tokens][..., None])


def _weight_only(node: WeightOnlyNode, arrays: Mapping[str, Array], x: Array) -> Array:
    return weights.weight_only(x, *(arrays[ref.sha256] for ref in (node.weight, node.scale, node.bias)))


def _add_constant(node: AddConstantNode, arrays: Mapping[str, Array], x: Array) -> Array:
    return np.asarray(x + arrays[node.constant.sha256])


def _prepend(node: PrependNode, arrays: Mapping[str, Array], x: Array) -> Array:
    rows = arrays[node.rows.sha256]
    return np.concatenate([np.broadcast_to(rows, (len(x), *rows.shape)), x], axis=1)


def _layer_norm(node: LayerNormNode, arrays: Mapping[str, Array], x: Array) -> Array:
    return normalisation.layer_norm(x, arrays[node.gain.sha256], arrays[node.bias.sha256], node.eps)


def _attention(node: AttentionNode, query: Array, key: Array, value: Array, tokens: Array | None = None) -> Array:
    hidden = None
    if tokens is not None:
        hidden = np.where(tokens == node.hidden_token, np.float32(node.hidden), np.float32(0))
    return attention.attention(query, key, value, heads=node.heads, scale=node.scale, causal=node.causal, hidden=hidden)


def _slice(node: SliceNode, tokens: Array) -> Array:
    return tokens[:, node.start : node.stop]


def _tokens(_: NetworkNode, x: Array) -> Array:
    return np.ascontiguousarray(x.reshape(*x.shape[:2], -1).transpose(0, 2, 1))


def _token(node: TokenNode, x: Array) -> Array:
    return np.ascontiguousarray(x[:, node.index])


def _mean_tokens(_: NetworkNode, x: Array) -> Array:
    total = x[:, 0].copy()
    for token in range(1, x.shape[1]):
        total += x[:, token]
    return np.asarray(total * np.float32(1 / x.shape[1]))


def _quantize(node: QuantizeNode, x: Array) -> Array:
    return deployment.requantize(x, deployment.channel_grids(node.quantizer))


def _relu(_: NetworkNode, x: Array) -> Array:
    return np.asarray(np.maximum(x, np.float32(0)))


def _clip(node: ClipNode, x: Array) -> Array:
    return activations.clip(x, node.most)


def _gelu(node: GeluNode, x: Array) -> Array:
    return activations.gelu(x, node.approximate)


def _add(_: NetworkNode, first: Array, second: Array) -> Array:
    return np.asarray(first + second)


def _max_pool2d(node: PoolNode, x: Array) -> Array:
    if any(node.padding):
        least = -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
        x = np.pad(x, ((0, 0), (0, 0), *((border, border) for border in node.padding)), constant_values=least)
    return np.asarray(deployment.patches(x, node.kernel, node.stride).max(axis=(4, 5)))


def _avg_pool2d(node: PoolNode, x: Array) -> Array:
    windows = deployment.patches(x, node.kernel, node.stride)
    total = windows[..., 0, 0].copy()
    for tap in range(1, node.kernel[0] * node.kernel[1]):
        total += windows[..., tap // node.kernel[1], tap % node.kernel[1]]
    return np.asarray(total * np.float32(1 / (node.kernel[0] * node.kernel[1])))


def _flatten(_: NetworkNode, x: Array) -> Array:
    return x.reshape(len(x), -1)


_WITH_ARRAYS: dict[str, Callable[..., Array]] = {
    "embedding": _embedding,
    "weight_only": _weight_only,
    "add_constant": _add_constant,
    "prepend": _prepend,
    "layer_norm": _layer_norm,
}

_OPS: dict[str, Callable[..., Array]] = {
    "slice": _slice,
    "attention": _attention,
    "tokens": _tokens,
    "token": _token,
    "mean_tokens": _mean_tokens,
    "quantize": _quantize,
    "relu": _relu,
    "clip": _clip,
    "gelu": _gelu,
    "add": _add,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "flatten": _flatten,
}
