"""Operators that stay in fp32, LayerNorm, GELU and attention, in the runtime and in onnxruntime: chains of one kind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._peers import Call
from soniq_dse.formats.activations import Approximate
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.network import (
    AttentionNode,
    GeluNode,
    InputNode,
    IntegerNetwork,
    LayerNormNode,
    NetworkNode,
)
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.store import array_sha256

_GELU: dict[str, Approximate] = {"gelu": "none", "gelu_tanh": "tanh"}
CHAIN = 4
"""Operators in a row, so that copies at the ends of a network weigh little."""


@dataclass(frozen=True)
class Operator:
    """``kind`` is layer_norm, gelu, gelu_tanh or attention (of a tensor to itself)."""

    kind: str
    tokens: int
    width: int
    heads: int = 0
    causal: bool = False

    @property
    def name(self) -> str:
        """As it is shown: ``attention 256x768, 12 heads, causal``."""
        heads = f", {self.heads} heads" if self.heads else ""
        return f"{self.kind} {self.tokens}x{self.width}{heads}{', causal' * self.causal}"


OPERATORS: Sequence[Operator] = (
    *(Operator("layer_norm", tokens, width) for tokens in (1, 64, 256) for width in (256, 768)),
    *(
        Operator(kind, tokens, width)
        for kind in ("gelu", "gelu_tanh")
        for tokens in (1, 64, 256)
        for width in (768, 3072)
    ),
    *(
        Operator("attention", tokens, width, heads, causal)
        for tokens, width, heads in (
            (64, 256, 4),
            (64, 768, 12),
            (128, 512, 8),
            (256, 256, 4),
            (256, 768, 12),
            (256, 512, 16),
            (512, 768, 12),
        )
        for causal in (False, True)
    ),
)


def ours(operator: Operator) -> Call:
    """A run of the chain in the runtime."""
    shape, eps = (operator.tokens, operator.width), float(np.float32(1e-5))
    vectors = {name: np.full(operator.width, value, np.float32) for name, value in (("gain", 1), ("bias", 0))}
    refs = {name: ArrayRef(sha256=array_sha256(v), shape=v.shape, dtype="float32") for name, v in vectors.items()}
    nodes: list[NetworkNode] = [InputNode(name="x", shape=shape)]
    for index in range(CHAIN):
        common: dict[str, Any] = {"name": f"n{index}", "shape": shape}
        before = nodes[-1].name
        if operator.kind == "layer_norm":
            nodes.append(LayerNormNode(**common, inputs=(before,), **refs, eps=eps))
        elif operator.kind in _GELU:
            nodes.append(GeluNode(**common, inputs=(before,), approximate=_GELU[operator.kind]))
        else:
            scale = float(np.float32((operator.width / operator.heads) ** -0.5))
            heads = {"heads": operator.heads, "causal": operator.causal, "scale": scale}
            nodes.append(AttentionNode(**common, inputs=(before,) * 3, **heads))
    network = IntegerNetwork(name="chain", nodes=tuple(nodes))
    arrays = {refs[name].sha256: vector for name, vector in vectors.items()}
    executor = PackedNetwork(network, arrays).executor(1)
    executor.set_input(executor.random_input())
    return executor.run_again


def peers(operator: Operator) -> dict[str, Call]:
    """Runs of the chain in onnxruntime, attention by its own operator and by plain ones."""
    if operator.kind == "layer_norm":
        return {"onnxruntime": _call(operator, _norms(operator))}
    if operator.kind in _GELU:
        return {"onnxruntime": _call(operator, _gelus(operator))}
    return {
        "onnxruntime MultiHeadAttention": _call(operator, _fused(operator)),
        "onnxruntime plain": _call(operator, _plain(operator)),
    }


Nodes = list[tuple[str, list[str], str, dict[str, Any]]]


def _norms(operator: Operator) -> Nodes:
    names = ["x", *(f"n{index}" for index in range(CHAIN))]
    return [
        ("LayerNormalization", [before, "gain", "bias"], name, {"axis": -1})
        for before, name in itertools.pairwise(names)
    ]


def _gelus(operator: Operator) -> Nodes:
    names, form = ["x", *(f"n{index}" for index in range(CHAIN))], {"approximate": _GELU[operator.kind]}
    return [("Gelu", [before], name, dict(form)) for before, name in itertools.pairwise(names)]


def _fused(operator: Operator) -> Nodes:
    names = ["x", *(f"n{index}" for index in range(CHAIN))]
    attributes = {"num_heads": operator.heads, "unidirectional": int(operator.causal), "domain": "com.microsoft"}
    return [("MultiHeadAttention", [before] * 3, name, attributes) for before, name in itertools.pairwise(names)]


def _plain(operator: Operator) -> Nodes:
    nodes: Nodes = []
    before = "x"
    for index in range(CHAIN):
        n = f"n{index}"
        nodes += [
            ("Reshape", [before, "by_head"], f"{n}.r", {}),
            ("Transpose", [f"{n}.r"], f"{n}.q", {"perm": [0, 2, 1, 3]}),
            ("Transpose", [f"{n}.r"], f"{n}.k", {"perm": [0, 2, 3, 1]}),
            ("Transpose", [f"{n}.r"], f"{n}.v", {"perm": [0, 2, 1, 3]}),
            ("Mul", [f"{n}.q", "scale"], f"{n}.s", {}),
            ("MatMul", [f"{n}.s", f"{n}.k"], f"{n}.p", {}),
            *([("Add", [f"{n}.p", "mask"], f"{n}.m", {})] if operator.causal else []),
            ("Softmax", [f"{n}.{'m' if operator.causal else 'p'}"], f"{n}.w", {"axis": -1}),
            ("MatMul", [f"{n}.w", f"{n}.v"], f"{n}.o", {}),
            ("Transpose", [f"{n}.o"], f"{n}.t", {"perm": [0, 2, 1, 3]}),
            ("Reshape", [f"{n}.t", "together"], n, {}),
        ]
        before = n
    return nodes


def _call(operator: Operator, nodes: Nodes) -> Call:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    tokens, width = operator.tokens, operator.width
    constants: dict[str, Any] = {
        "gain": np.ones(width, np.float32),
        "bias": np.zeros(width, np.float32),
    }
    if operator.heads:
        constants = {
            "by_head": np.array([1, tokens, operator.heads, width // operator.heads]),
            "together": np.array([1, tokens, width]),
            "scale": np.float32((width / operator.heads) ** -0.5),
            "mask": np.triu(np.full((tokens, tokens), -1e4, np.float32), 1),
        }
    used = {name for _, inputs, _, _ in nodes for name in inputs}
    shape = [1, tokens, width]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [name], **attributes) for op, inputs, name, attributes in nodes], "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x, y = np.random.default_rng(0).standard_normal(shape).astype(np.float32), np.empty(shape, np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output(nodes[-1][2], "cpu", 0, np.float32, y.shape, y.ctypes.data)
    kept = (x, y)
    return lambda: (session.run_with_iobinding(binding), kept)
