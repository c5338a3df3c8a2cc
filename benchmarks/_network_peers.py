"""The graph of a network, with random weights, in the libraries of others.

Every library gets one fp32 sample, channels first, and gives fp32 outputs; quantisation of the input counts. Peers read
the graph with BatchNorm folded away, FP32 or statically quantised to INT8 (u8 activations, s8 weights per output
channel), in the form that each wants: ONNX, ONNX with QDQ by onnxruntime's quantizer, torch's graph-mode quantisation.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks._networks import Network, sample_of
from benchmarks._peers import Call
from soniq_dse.export.onnx_tokens import TokenNodes
from soniq_dse.records.network import (
    AddNode,
    AttentionNode,
    ClipNode,
    Conv2dNode,
    FlattenNode,
    LinearNode,
    PoolNode,
    QuantizeNode,
    ReluNode,
)
from soniq_dse.runtime.pack import PackedNetwork

CALIBRATION_SAMPLES = 4
LAYERS = ("Conv", "MatMul", "Gemm")
PLAIN = {ReluNode: "Relu", AddNode: "Add", FlattenNode: "Flatten"}


class _Graph:
    """The model under construction; a tensor of codes is the fp32 tensor that was quantised."""

    def __init__(self, packed: PackedNetwork) -> None:
        self._network, self._rng = packed.network, np.random.default_rng(0)
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._made = {packed.network.nodes[0].name: packed.network.nodes[0].name}
        self._tokens = TokenNodes(packed.network, packed.arrays, self)

    def model(self) -> bytes:
        """The whole model."""
        from onnx import TensorProto, helper

        for node in self._network.nodes[1:]:
            is_codes = isinstance(node, QuantizeNode)
            self._made[node.name] = self._made[node.inputs[0]] if is_codes else node.name
            if not is_codes:
                self._emit(node)
        first, last = self._network.nodes[0], self._network.nodes[-1]
        graph = helper.make_graph(
            self._nodes, "peer",
            [helper.make_tensor_value_info(first.name, TensorProto.FLOAT, [1, *first.shape])],
            [helper.make_tensor_value_info(self._made[last.name], TensorProto.FLOAT, [1, *last.shape])],
            list(self._constants.values()),
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        return bytes(model.SerializeToString())

    def op(self, kind: str, inputs: Any, output: str, **attributes: Any) -> str:
        """Add a node; the name of what it gives."""
        from onnx import helper

        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        """Add a constant, once under each name."""
        from onnx import numpy_helper

        self._constants.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name

    def _emit(self, node: Any) -> None:
        inputs, name = [self._made[source] for source in node.inputs], node.name
        if isinstance(node, Conv2dNode):
            window = {"strides": node.stride, "dilations": node.dilation, "group": node.groups}
            weight, bias = self._random(f"{name}.w", node.weight.shape), self._random(f"{name}.b", node.bias.shape)
            self.op("Conv", [*inputs, weight, bias], name, pads=[*node.padding, *node.padding], **window)
        elif isinstance(node, LinearNode):
            self._linear(node, inputs[0])
        elif isinstance(node, PoolNode):
            kind = "MaxPool" if node.op == "max_pool2d" else "AveragePool"
            window = {"kernel_shape": node.kernel, "strides": node.stride, "pads": [*node.padding, *node.padding]}
            self.op(kind, inputs, name, **window)
        elif isinstance(node, ClipNode):
            bounds = (self.constant("zero", np.float32(0)), self.constant(f"{name}.most", np.float32(node.most)))
            self.op("Clip", [*inputs, *bounds], name)
        elif type(node) in PLAIN:
            self.op(PLAIN[type(node)], inputs, name)
        else:
            self._tokens.emit[type(node)](node)

    def _linear(self, node: LinearNode, source: str) -> None:
        bias = self._random(f"{node.name}.b", node.bias.shape)
        if len(node.shape) == 1:
            self.op("Gemm", [source, self._random(f"{node.name}.w", node.weight.shape), bias], node.name, transB=1)
            return
        # Of tokens: Gemm takes matrices alone, and libraries quantise a MatMul of a constant [in, out].
        turned = self.constant(f"{node.name}.turned", self._values(node.weight.shape).T.copy())
        self.op("Add", [self.op("MatMul", [source, turned], f"{node.name}.product"), bias], node.name)

    def _random(self, name: str, shape: tuple[int, ...]) -> str:
        return self.constant(name, self._values(shape))

    def _values(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        return (spread * self._rng.standard_normal(shape)).astype(np.float32)


def onnx_model(packed: PackedNetwork) -> bytes:
    """The graph of ``packed`` in fp32 with random weights, quantizers left out."""
    return _Graph(packed).model()


def quantized_onnx(model: bytes, in_shape: tuple[int, ...], *, layers_only: bool = False) -> bytes:
    """``model`` statically quantised by onnxruntime: QDQ, u8 activations, s8 weights per output channel; with
    ``layers_only`` the products with weights, and all else in fp32."""
    from onnx import load_from_string
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    graph = load_from_string(model).graph

    class Normal(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            rng = np.random.default_rng(1)
            shape, name = (1, *in_shape), graph.input[0].name
            samples = [rng.standard_normal(shape).astype(np.float32) for _ in range(CALIBRATION_SAMPLES)]
            self._left: Iterator[dict[str, Any]] = iter([{name: sample} for sample in samples])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

    logging.getLogger().setLevel(logging.ERROR)  # it advises a preprocessing that leaves this graph as it is
    only: dict[str, Any] = {}
    if layers_only:
        constants = {constant.name for constant in graph.initializer}
        products = [node for node in graph.node if node.op_type in LAYERS]
        only["op_types_to_quantize"] = list(LAYERS)
        only["nodes_to_exclude"] = [node.name for node in products if node.input[1] not in constants]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "f32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        quantize_static(
            source, target, Normal(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, **only,
        )  # fmt: skip
        return target.read_bytes()


def dynamic_onnx(model: bytes) -> bytes:
    """``model`` whose products with weights round what they read at run time: onnxruntime's dynamic quantisation."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "f32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        quantize_dynamic(source, target, ["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8)
        return target.read_bytes()


def onnxruntime_call(model: bytes, in_shape: tuple[int, ...], threads: int) -> Call:
    """A run of ``model`` in onnxruntime on bound buffers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x, found = sample_of(in_shape), session.get_outputs()[0]
    y = np.empty(found.shape, np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, x)
    binding.bind_output(found.name, "cpu", 0, np.float32, y.shape, y.ctypes.data)
    kept = (x, y)
    return lambda: (session.run_with_iobinding(binding), kept)


def openvino_call(model: bytes, in_shape: tuple[int, ...], threads: int, *, as_f32: bool) -> Call:
    """A run of ``model`` in OpenVINO; ``as_f32``: without its usual bf16 on processors that have it."""
    import openvino

    core = openvino.Core()
    hints: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    hints |= {"INFERENCE_PRECISION_HINT": "f32"} if as_f32 else {}
    request = core.compile_model(core.read_model(model=model), "CPU", hints).create_infer_request()
    request.set_input_tensor(openvino.Tensor(sample_of(in_shape), shared_memory=True))
    return request.infer


def torch_call(network: Network, *, engine: str | None) -> Call:
    """A run in torch, FP32 (channels last, BatchNorm folded, frozen) or INT8 by ``engine``."""
    torch.manual_seed(0)
    model, x = network.build().eval(), torch.from_numpy(sample_of(network.in_shape))
    x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if engine is not None:
            model = _quantized(model, x, engine)
        elif x.ndim == 4:
            model = model.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            traced = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, x)))

    def run() -> object:
        with torch.inference_mode():
            return traced(x)

    run()
    return run


def _quantized(model: nn.Module, x: torch.Tensor, engine: str) -> nn.Module:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = engine
    prepared = prepare_fx(model, get_default_qconfig_mapping(engine), (x,))
    with torch.no_grad():
        for _ in range(CALIBRATION_SAMPLES):
            prepared(torch.randn_like(x))
    return convert_fx(prepared)


def set_peer_threads(threads: int) -> None:
    """For libraries that keep one number for the whole process."""
    torch.set_num_threads(threads)


def peer_calls(network: Network, threads: int) -> tuple[dict[str, Call], dict[str, Call]]:
    """(INT8, FP32) calls by library, of those that are installed and take the network."""
    set_peer_threads(threads)
    int8, f32 = {}, {}
    for engine in ("onednn", "fbgemm"):
        with contextlib.suppress(RuntimeError, ModuleNotFoundError):
            int8[f"torch {engine}"] = torch_call(network, engine=engine)
    f32["torch"] = torch_call(network, engine=None)
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
        return int8, f32
    model, shape = onnx_model(network.topology), network.in_shape
    forms = {"": quantized_onnx(model, shape)}
    if any(isinstance(node, AttentionNode) for node in network.topology.network.nodes):
        forms[" (layers alone)"] = quantized_onnx(model, shape, layers_only=True)
        int8["onnxruntime (dynamic)"] = onnxruntime_call(dynamic_onnx(model), shape, threads)
    has_openvino = importlib.util.find_spec("openvino") is not None
    for form, quantized in forms.items():
        int8[f"onnxruntime{form}"] = onnxruntime_call(quantized, shape, threads)
        if has_openvino:
            int8[f"openvino{form}"] = openvino_call(quantized, shape, threads, as_f32=False)
    f32["onnxruntime"] = onnxruntime_call(model, shape, threads)
    if has_openvino:
        f32["openvino"] = openvino_call(model, shape, threads, as_f32=True)
    return int8, f32
