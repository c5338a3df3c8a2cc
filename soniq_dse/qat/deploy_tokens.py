"""The nodes of a Transformer for the integer network: look-up tables, places, norms, attention."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from soniq_dse.errors import UserError
from soniq_dse.formats import format_of
from soniq_dse.qat.apply import QuantizedModel
from soniq_dse.qat.fake_quant import WeightQuantizer
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.network import (
    AddConstantNode,
    AttentionNode,
    EmbeddingNode,
    InputNode,
    LayerNormNode,
    MeanTokensNode,
    NetworkNode,
    PrependNode,
    SliceNode,
    TokenNode,
    TokensNode,
)
from soniq_dse.records.workload import Node, Workload

Array = npt.NDArray[Any]
PutArray = Callable[[Array], ArrayRef]


class TokenNodes:
    """Makes the nodes that read the input, or that only Transformers have; arrays go to ``put_array``."""

    def __init__(self, quantized: QuantizedModel, put_array: PutArray) -> None:
        self._quantized, self._put = quantized, put_array

    def node(self, node: Node, common: dict[str, Any]) -> NetworkNode | None:
        """The node for ``node``, with the name, inputs and shape in ``common``; None for other operators."""
        if node.op == "add" and node.attributes.get("parameters"):
            return AddConstantNode(**common, constant=self._places(node))
        makers: dict[str, Callable[[Node, dict[str, Any]], NetworkNode]] = {
            "input": self._input,
            "embedding": self._embedding,
            "layer_norm": self._layer_norm,
            "attention": self._attention,
            "slice": lambda node, common: SliceNode(**common, **node.attributes),
            "prepend": lambda node, common: PrependNode(**common, rows=self._before(node)),
            "token": lambda node, common: TokenNode(**common, **node.attributes),
            "tokens": lambda node, common: TokensNode(**common),
            "mean_tokens": lambda node, common: MeanTokensNode(**common),
        }
        return makers[node.op](node, common) if node.op in makers else None

    def _input(self, node: Node, common: dict[str, Any]) -> InputNode:
        """Fp32, or token numbers."""
        return InputNode(**common, n_tokens=n_tokens_of(self._quantized.model, self._quantized.workload))

    def _embedding(self, node: Node, common: dict[str, Any]) -> EmbeddingNode:
        quantizer = self._quantized.weights.get(node.name)
        if quantizer is None:
            raise UserError(f"layer {node.module}: expected a table of its own, got one that another layer shares")
        table = integer_weight(self._module(node).parametrizations.weight.original.detach(), quantizer)
        scale = quantizer.log_step.detach().exp()[0].numpy()
        return EmbeddingNode(**common, table=self._put(table), scale=self._put(scale))

    def _layer_norm(self, node: Node, common: dict[str, Any]) -> LayerNormNode:
        gain = attrgetter(node.attributes["gain"])(self._quantized.model)
        has_bias = "bias" in node.attributes
        bias = attrgetter(node.attributes["bias"])(self._quantized.model) if has_bias else torch.zeros_like(gain)
        eps = float(np.float32(node.attributes["eps"]))
        return LayerNormNode(**common, gain=self._put(_fp32(gain)), bias=self._put(_fp32(bias)), eps=eps)

    def _attention(self, node: Node, common: dict[str, Any]) -> AttentionNode:
        exact = {
            name: float(np.float32(node.attributes[name])) for name in ("scale", "hidden") & node.attributes.keys()
        }
        return AttentionNode(**common, **(node.attributes | exact))

    def _places(self, node: Node) -> ArrayRef:
        """The first rows of the parameter that is added, as many as there are tokens."""
        (path,) = node.attributes["parameters"]
        table = _fp32(attrgetter(path)(self._quantized.model))
        return self._put(np.ascontiguousarray(table.reshape(-1, table.shape[-1])[: node.shape[1]]))

    def _before(self, node: Node) -> ArrayRef:
        """The parameters that stand before all tokens."""
        found = [_fp32(attrgetter(path)(self._quantized.model)) for path in node.attributes["parameters"]]
        return self._put(np.concatenate([rows.reshape(-1, node.shape[-1]) for rows in found]))

    def _module(self, node: Node) -> Any:
        return self._quantized.model.get_submodule(node.module)


def n_tokens_of(model: nn.Module, workload: Workload) -> int | None:
    """The rows that every table has, all of which the input may name; None where it is no token numbers."""
    tables: list[Any] = [model.get_submodule(node.module) for node in workload.nodes if node.op == "embedding"]
    return min((table.num_embeddings for table in tables), default=None)


def _fp32(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def integer_weight(weight: Tensor, quantizer: WeightQuantizer) -> Array:
    """int8 integers of ``weight [out, in / groups, ...]`` at the level of each input channel."""
    values = weight.numpy()
    steps = quantizer.log_step.detach().exp().numpy()
    level = np.broadcast_to(quantizer.input_level().numpy(), values.shape[:2])
    result = np.zeros(values.shape, dtype=np.int8)
    for index, palette_level in enumerate(quantizer.mixture.palette.levels):
        chosen = level == index
        if chosen.any():
            form = palette_level.weight_format
            codes = format_of(form).quantize(values, steps[index].reshape(-1, *[1] * (values.ndim - 1)), form.bits)
            integers = format_of(form).integers(codes, form.bits)
            result[chosen] = integers[chosen].astype(np.int8)
    return result
