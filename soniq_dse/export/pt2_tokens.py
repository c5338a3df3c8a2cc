"""The nodes of Transformers as operations of PyTorch: look-up tables, places, class tokens, norms, GELU, attention.

LayerNorm, GELU, attention and means are PyTorch's, in an order of their own: outputs are the golden ones up to
the rounding of fp32, and what a code on the other side of a rounding makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from soniq_dse.records.network import AttentionNode, GeluNode, NetworkNode, SliceNode, TokenNode, TokensNode

Constant = Callable[[str], Tensor]
"""A constant of a node by its field's name."""


def constants(node: NetworkNode, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What ``token_output`` will ask for, by field."""
    fields = {
        "embedding": ("table", "scale"),
        "add_constant": ("constant",),
        "prepend": ("rows",),
        "layer_norm": ("gain", "bias"),
        "weight_only": ("scale", "bias"),
    }.get(node.op, ())
    return {field: arrays[getattr(node, field).sha256] for field in fields}


def token_output(node: Any, inputs: list[Tensor], constant: Constant) -> Tensor:
    """What a node of ``lowering.TOKEN_OPERATORS`` gives for its inputs, ``[n, tokens, channels]`` or token numbers
    ``[n, tokens]``."""
    x = inputs[0]
    if isinstance(node, SliceNode):
        return x[:, node.start : node.stop]
    if isinstance(node, TokensNode):
        return x.flatten(2).transpose(1, 2)
    if isinstance(node, TokenNode):
        return x[:, node.index]
    if isinstance(node, GeluNode):
        return functional.gelu(x, approximate=node.approximate)
    if node.op == "prepend":
        return torch.cat([constant("rows").expand(x.shape[0], -1, -1), x], dim=1)
    if isinstance(node, AttentionNode):
        return _attention(node, inputs)
    if node.op == "embedding":
        return constant("table")[x].float() * constant("scale")[x][..., None]
    if node.op == "add_constant":
        return x + constant("constant")
    if node.op == "layer_norm":
        normal: Tensor = functional.layer_norm(x, x.shape[-1:], constant("gain"), constant("bias"), node.eps)
        return normal
    return x.sum(1) * float(np.float32(1 / x.shape[1]))


def _attention(node: AttentionNode, inputs: list[Tensor]) -> Tensor:
    query, key, value = (x.unflatten(-1, (node.heads, -1)).transpose(1, 2) for x in inputs[:3])
    scores = (query @ key.transpose(2, 3)) * node.scale
    if len(inputs) > 3:
        is_hidden = (inputs[3] == node.hidden_token)[:, None, None]
        scores = scores + torch.where(is_hidden, node.hidden, 0.0)
    if node.causal:
        later = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
