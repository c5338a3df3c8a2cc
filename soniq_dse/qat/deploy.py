"""Trained model -> integer network: weights become integers, BatchNorm and steps fold into scale and bias."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from soniq_dse.errors import UserError
from soniq_dse.qat.apply import QuantizedModel, check_operators, check_trainable
from soniq_dse.qat.deploy_tokens import PutArray, TokenNodes, integer_weight
from soniq_dse.records.network import (
    AddNode,
    ClipNode,
    Conv2dNode,
    FlattenNode,
    GeluNode,
    IntegerNetwork,
    LinearNode,
    NetworkNode,
    PoolNode,
    QuantizeNode,
    ReluNode,
    TensorQuantizer,
    WeightOnlyNode,
)
from soniq_dse.records.workload import Conv2dLayer, Node

Array = npt.NDArray[Any]


def deploy(quantized: QuantizedModel, put_array: PutArray) -> IntegerNetwork:
    """The integer network of a hardened model; its arrays go to ``put_array``.

    Scale and bias are folded in float64 and rounded to fp32 once; weights are rounded by ``formats``.

    Raises:
        UserError: a level is weight-only but that of pinned linear layers, or an operator has no integer node.
    """
    check_operators(quantized.workload)
    for tensor_class in quantized.workload.tensor_classes:
        if tensor_class.pinned_level is None:
            check_trainable(quantized.workload, quantized.mixtures[tensor_class.name].palette)
    return _Deployment(quantized, put_array).network()


def size_bytes(network: IntegerNetwork) -> int:
    """Bytes of a packed network: weights at their true bits, fp32 scale (present levels only), bias and steps, and two
    bytes a channel for the order of each quantised tensor that mixes levels."""
    quantizers = {node.name: node.quantizer for node in network.nodes if isinstance(node, QuantizeNode)}
    total = 0
    for quantizer in quantizers.values():
        total += 4 * len(quantizer.segments)
        total += 2 * len(quantizer.level_of_channel) if len(quantizer.segments) > 1 else 0
    for node in network.nodes:
        if isinstance(node, WeightOnlyNode):
            total += -(-node.bits * math.prod(node.weight.shape) // 8) + node.scale.size_bytes + node.bias.size_bytes
        elif not isinstance(node, Conv2dNode | LinearNode):
            total += sum(ref.size_bytes for ref in node.refs.values())
        else:
            quantizer = quantizers[node.inputs[0]]
            bits = [quantizer.palette.levels[level].weight_bits for level in quantizer.level_of_channel]
            weights_per_channel = math.prod(node.weight.shape) // len(bits)
            total += -(-sum(bits) * weights_per_channel // 8)
            total += 4 * node.bias.shape[0] * (len(quantizer.segments) + 1)
    return total


class _Deployment:
    def __init__(self, quantized: QuantizedModel, put_array: PutArray) -> None:
        self._quantized, self._put = quantized, put_array
        self._nodes: list[NetworkNode] = []
        self._name_of: dict[str, str] = {}
        self._codes_of: dict[str, str] = {}
        self._tokens = TokenNodes(quantized, put_array)
        workload = quantized.workload
        self._readers: dict[str, list[Node]] = {node.name: [] for node in workload.nodes}
        for node in workload.nodes:
            for name in node.inputs:
                self._readers[name].append(node)

    def network(self) -> IntegerNetwork:
        """The nodes in the workload's order, a quantize node before the first reader of each tensor."""
        workload = self._quantized.workload
        for node in workload.nodes:
            if node.op in ("conv2d", "linear") and node.name in self._quantized.weights:
                self._matmul(node)
            elif node.op == "batch_norm":
                self._name_of[node.name] = self._name_of[node.inputs[0]]  # folded there
            elif node.op == "part":
                self._name_of[node.name] = node.name  # a layer of its own
            else:
                self._plain(node)
        return IntegerNetwork(name=self._quantized.name, nodes=tuple(self._nodes))

    def _plain(self, node: Node) -> None:
        common: dict[str, Any] = {"name": node.name, "shape": node.shape[1:]}
        common["inputs"] = tuple(self._name_of[name] for name in node.inputs)
        kinds: dict[str, Any] = {"relu": ReluNode, "clip": ClipNode, "gelu": GeluNode, "add": AddNode}
        made: NetworkNode | None = self._tokens.node(node, common)
        if made is not None:
            pass
        elif node.op in kinds:
            made = kinds[node.op](**common, **node.attributes)
        elif node.op == "flatten":
            made = FlattenNode(**common)
        elif node.op in ("max_pool2d", "avg_pool2d") and set(node.attributes) <= {"kernel", "stride", "padding"}:
            made = PoolNode(op=node.op, **common, **node.attributes)
        else:
            raise UserError(
                f"node {node.name}: expected an operator that the integer network has, got {node.op} "
                f"{dict(node.attributes) or ''}".rstrip()
            )
        self._nodes.append(made)
        self._name_of[node.name] = node.name

    def _codes(self, node: Node) -> str:
        """The quantize node of the tensor that ``node`` reads, made at the first call."""
        tensor = node.inputs[0]
        if tensor not in self._codes_of:
            source = self._name_of[tensor]
            quantizer = self._quantized.activations[tensor]
            mixture = quantizer.mixture
            levels = mixture.level.repeat_interleave(quantizer.repeats)
            record = TensorQuantizer(
                palette=mixture.palette,
                level_of_channel=tuple(levels.tolist()),
                steps=tuple(quantizer.log_step.detach().exp().tolist()),
                signed=mixture.signed,
            )
            shape = next(n.shape for n in self._nodes if n.name == source)
            name = f"{source}.codes"
            self._nodes.append(QuantizeNode(name=name, inputs=(source,), shape=shape, quantizer=record))
            self._codes_of[tensor] = name
        return self._codes_of[tensor]

    def _matmul(self, node: Node) -> None:
        if self._quantized.weights[node.name].mixture.weight_only:
            return self._weight_only(node)
        codes = self._codes(node)
        module = self._quantized.model.get_submodule(node.module)
        weight_quantizer = self._quantized.weights[node.name]
        weight = integer_weight(module.parametrizations.weight.original.detach(), weight_quantizer)
        gain, bias = self._affine(node, module)
        activation_steps = self._quantized.activations[node.inputs[0]].log_step.detach().exp().double().numpy()
        weight_steps = weight_quantizer.log_step.detach().exp().double().numpy()
        scale = (weight_steps * activation_steps[:, None] * gain).astype(np.float32)
        kind: type[Conv2dNode | LinearNode] = LinearNode
        window: dict[str, Any] = {}
        if isinstance(node.layer, Conv2dLayer):
            kind = Conv2dNode
            window = {name: getattr(node.layer, name) for name in ("stride", "padding", "dilation", "groups")}
        for part, rows in self._parts(node):
            self._nodes.append(
                kind(
                    name=part.name,
                    inputs=(codes,),
                    shape=part.shape[1:],
                    weight=self._put(weight[rows]),
                    scale=self._put(np.ascontiguousarray(scale[:, rows])),
                    bias=self._put(bias.astype(np.float32)[rows]),
                    **window,
                )
            )
        self._name_of[node.name] = node.name

    def _parts(self, node: Node) -> list[tuple[Node, slice]]:
        """The nodes that a layer becomes, and which of its output channels are theirs: itself, or its parts."""
        parts = [reader for reader in self._readers[node.name] if reader.op == "part"]
        return [(part, slice(part.attributes["start"], part.attributes["stop"])) for part in parts] or [
            (node, slice(None))
        ]

    def _weight_only(self, node: Node) -> None:
        module, quantizer = self._quantized.model.get_submodule(node.module), self._quantized.weights[node.name]
        gain, bias = self._affine(node, module)
        weight = integer_weight(module.parametrizations.weight.original.detach(), quantizer)
        scale = (_double(quantizer.log_step.exp()[0]) * gain).astype(np.float32)
        for part, rows in self._parts(node):
            self._nodes.append(
                WeightOnlyNode(
                    name=part.name,
                    inputs=(self._name_of[node.inputs[0]],),
                    shape=part.shape[1:],
                    bits=quantizer.mixture.palette.levels[0].weight_bits,
                    weight=self._put(weight[rows]),
                    scale=self._put(scale[rows]),
                    bias=self._put(bias.astype(np.float32)[rows]),
                )
            )
        self._name_of[node.name] = node.name

    def _affine(self, node: Node, module: Any) -> tuple[Array, Array]:
        """(gain, bias) in float64 per output channel: the layer's bias, then the BatchNorm that follows, if any."""
        n_out = module.parametrizations.weight.original.shape[0]
        bias = np.zeros(n_out) if module.bias is None else _double(module.bias)
        followers = self._readers[node.name]
        if len(followers) != 1 or followers[0].op != "batch_norm":
            return np.ones(n_out), bias
        norm: Any = self._quantized.model.get_submodule(followers[0].module)
        gain = 1 / np.sqrt(_double(norm.running_var) + norm.eps)
        gain = gain if norm.weight is None else gain * _double(norm.weight)
        shift = 0.0 if norm.bias is None else _double(norm.bias)
        return gain, (bias - _double(norm.running_mean)) * gain + shift


def _double(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().double().numpy())
