"""Whole networks with random weights: ours at a mix of levels, and the same graph in the libraries of others.

Every library gets one fp32 sample, channels first, and gives fp32 outputs; quantisation of the input counts. Peers read
the graph with BatchNorm folded away, FP32 or statically quantised to INT8 (u8 activations, s8 weights per output
channel), in the form that each wants: ONNX, ONNX with QDQ by onnxruntime's quantizer, torch's graph-mode quantisation.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import logging
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks._ours import SEGMENT_MULTIPLE, Mix, host_descriptor
from benchmarks._peers import Call
from soniq_dse.cost.bounds import uniform_assignment
from soniq_dse.cost.network import choose_kernels
from soniq_dse.qat.untrained import untrained_network
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.network import (
    AddNode,
    Conv2dNode,
    FlattenNode,
    IntegerNetwork,
    LinearNode,
    NetworkNode,
    PoolNode,
    QuantizeNode,
    ReluNode,
    TensorQuantizer,
)
from soniq_dse.records.palette import Palette
from soniq_dse.runtime.autotune import autotune, tuned_choices
from soniq_dse.runtime.executor import Executor
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.store import array_sha256
from soniq_dse.workloads import load_model
from soniq_dse.workloads.models.blocks import cifar_resnet
from soniq_dse.workloads.trace import trace

CALIBRATION_SAMPLES = 4
FREE = Palette.parse("w1a1")
"""The palette of a topology whose tensors take any other."""
DECODER_BLOCKS, DECODER_WIDTH, DECODER_INNER, DECODER_ENDS = 6, 768, 3072, 64


@dataclass(frozen=True)
class Network:
    """A graph to be timed: ``build`` gives the module, ``in_shape`` is one sample's."""

    name: str
    build: Callable[[], nn.Module]
    in_shape: tuple[int, ...]

    @functools.cached_property
    def topology(self) -> IntegerNetwork:
        """The graph at ``FREE``."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            workload = trace(self.build().eval(), torch.zeros(1, *self.in_shape), name=self.name)
        network, _ = untrained_network(self.build, workload, uniform_assignment(workload, FREE.levels[0]))
        return network


def resnet18_imagenet() -> nn.Module:
    """ResNet-18 in its form for 224x224 images: a 7x7 stem of stride 2, a max pool, four stages, 1000 classes."""
    body = cifar_resnet((64, 128, 256, 512), blocks_per_stage=2, n_classes=1000)
    body[0] = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    parts = list(body.named_children())
    parts.insert(3, ("max_pool", nn.MaxPool2d(2)))
    return nn.Sequential(OrderedDict(parts))


def mobilenetv2_relu() -> nn.Module:
    """MobileNetV2 with ReLU for ReLU6, which the integer network lacks; peers run the same."""
    model = load_model("mobilenetv2")[0]()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU())
    return model


def decoder_linears() -> nn.Module:
    """The Linear layers of a decoder of width 768, in a chain with ReLU between: per block four of 768x768 (q, k, v and
    the output of attention) and the two of the feed-forward part. Small layers of 64 features, pinned to
    W8A8, stand at both ends."""
    widths = [DECODER_ENDS]
    widths += [*[DECODER_WIDTH] * 5, DECODER_INNER] + [*[DECODER_WIDTH] * 5, DECODER_INNER] * (DECODER_BLOCKS - 1)
    widths += [DECODER_WIDTH, DECODER_ENDS]
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


NETWORKS = {
    network.name: network
    for network in (
        Network("resnet18 32x32", load_model("resnet18")[0], (3, 32, 32)),
        Network("resnet18 224x224", resnet18_imagenet, (3, 224, 224)),
        Network("resnet20 32x32", load_model("resnet20")[0], (3, 32, 32)),
        Network("mobilenetv2 (ReLU) 32x32", mobilenetv2_relu, (3, 32, 32)),
        Network("decoder linears, batch 1", decoder_linears, (DECODER_ENDS,)),
    )
}


def random_network(topology: IntegerNetwork, mix: Mix) -> PackedNetwork:
    """The graph of ``topology``, which is at ``FREE``, with random integers at ``mix`` instead: each free tensor has
    shares of its channels at each level, whole segments of 64 where it is wide enough. Pinned ones stay as they are."""
    rng, arrays = np.random.default_rng(0), {}

    def kept(array: NDArray[Any]) -> ArrayRef:
        ref = ArrayRef(sha256=array_sha256(array), shape=array.shape, dtype=str(array.dtype))
        arrays[ref.sha256] = array
        return ref

    nodes: dict[str, NetworkNode] = {}
    for node in topology.nodes:
        made = node
        if isinstance(node, QuantizeNode) and node.quantizer.palette.levels == FREE.levels:
            made = node.model_copy(update={"quantizer": _quantizer(node, mix)})
        elif isinstance(node, Conv2dNode | LinearNode):
            codes = nodes[node.inputs[0]]
            while not isinstance(codes, QuantizeNode):
                codes = nodes[codes.inputs[0]]
            made = node.model_copy(update={name: kept(array) for name, array in _arrays(node, codes, rng).items()})
        nodes[node.name] = made
    return PackedNetwork(topology.model_copy(update={"nodes": tuple(nodes.values())}), arrays)


def _quantizer(node: QuantizeNode, mix: Mix) -> TensorQuantizer:
    palette = Palette(levels=tuple(level for level, _ in mix))
    levels = levels_of(len(node.quantizer.level_of_channel), [share for _, share in mix])
    steps = tuple(float(np.float32(2.5 / 2**level.activation_bits)) for level in palette.levels)
    return TensorQuantizer(palette=palette, level_of_channel=levels, steps=steps, signed=node.quantizer.signed)


def levels_of(channels: int, shares: list[float]) -> tuple[int, ...]:
    """The level of each channel, ascending."""
    multiple = SEGMENT_MULTIPLE if channels >= 4 * SEGMENT_MULTIPLE else 1
    counts = [round(share * channels / multiple) * multiple for share in shares[:-1]]
    counts.append(channels - sum(counts))
    return tuple(level for level, count in enumerate(counts) for _ in range(count))


def _arrays(node: Conv2dNode | LinearNode, codes: QuantizeNode, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Integers of each channel's level; scales that spread sums over the range of the next quantizer."""
    quantizer, shape = codes.quantizer, node.weight.shape
    groups = node.groups if isinstance(node, Conv2dNode) else 1
    bits = np.array([level.weight_bits for level in quantizer.palette.levels])
    group = np.arange(shape[0])[:, None] // (shape[0] // groups)
    of_weight = bits[np.asarray(quantizer.level_of_channel)[group * shape[1] + np.arange(shape[1])]]
    most = np.where(of_weight == 8, 127, 2**of_weight - 1).reshape(*of_weight.shape, *[1] * (len(shape) - 2))
    drawn = rng.integers(-most, most + 1, shape)
    odd = np.clip(drawn // 2 * 2 + 1, -most, most)
    size = np.asarray(quantizer.steps) / 2.0 ** (bits - 1) / np.prod(shape[1:]) ** 0.5
    return {
        "weight": np.where(most == 127, drawn, odd).astype(np.int8),
        "scale": (size[:, None] * rng.uniform(0.5, 1.5, (len(bits), shape[0]))).astype(np.float32),
        "bias": (0.3 * rng.standard_normal(shape[0])).astype(np.float32),
    }


def ours(packed: PackedNetwork, threads: int, *, tune: bool) -> Executor:
    """Ours on a random sample, on the kernels of ``soniq-dse run``: those measured on this machine (with ``tune``,
    all are), then those that the cost model chooses where a descriptor speaks of the host."""
    choices = autotune(packed, threads=threads) if tune else tuned_choices(threads=threads)
    hw = host_descriptor()
    if hw is not None:
        choices = choose_kernels(hw, packed.shapes(1), threads=threads, known=choices)
    packed = packed.with_choices(choices)
    executor = packed.executor(1, threads=threads)
    executor.set_input(sample_of(packed.in_shape))
    return executor


def sample_of(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One sample of standard normal numbers."""
    return np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)


def onnx_model(network: IntegerNetwork) -> bytes:
    """The graph of ``network`` in fp32 with random weights, quantizers left out."""
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, constants = np.random.default_rng(0), [], []
    made = {network.nodes[0].name: "x"}

    def constant(name: str, shape: tuple[int, ...]) -> str:
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        constants.append(numpy_helper.from_array((spread * rng.standard_normal(shape)).astype(np.float32), name))
        return name

    for node in network.nodes[1:]:
        inputs = [made[name] for name in node.inputs]
        made[node.name] = inputs[0] if isinstance(node, QuantizeNode) else node.name
        if isinstance(node, QuantizeNode):
            continue
        if isinstance(node, Conv2dNode | LinearNode):
            inputs += [constant(f"{node.name}.w", node.weight.shape), constant(f"{node.name}.b", node.bias.shape)]
        op, attributes = _onnx_op(node)
        nodes.append(helper.make_node(op, inputs, [node.name], name=node.name, **attributes))
    first, last = network.nodes[0], network.nodes[-1]
    graph = helper.make_graph(
        nodes, "peer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *first.shape])],
        [helper.make_tensor_value_info(made[last.name], TensorProto.FLOAT, [1, *last.shape])],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


def _onnx_op(node: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(node, Conv2dNode):
        window = {"strides": node.stride, "dilations": node.dilation, "group": node.groups}
        return "Conv", {"pads": [*node.padding, *node.padding], **window}
    if isinstance(node, LinearNode):
        return "Gemm", {"transB": 1}
    if isinstance(node, PoolNode):
        op = "MaxPool" if node.op == "max_pool2d" else "AveragePool"
        return op, {"kernel_shape": node.kernel, "strides": node.stride}
    return {ReluNode: "Relu", AddNode: "Add", FlattenNode: "Flatten"}[type(node)], {}


def quantized_onnx(model: bytes, in_shape: tuple[int, ...]) -> bytes:
    """``model`` statically quantised by onnxruntime: QDQ, u8 activations, s8 weights per output channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Normal(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            rng = np.random.default_rng(1)
            shape = (1, *in_shape)
            samples = [rng.standard_normal(shape).astype(np.float32) for _ in range(CALIBRATION_SAMPLES)]
            self._left: Iterator[dict[str, Any]] = iter([{"x": sample} for sample in samples])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

    logging.getLogger().setLevel(logging.ERROR)  # it advises a preprocessing that leaves this graph as it is
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "f32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        quantize_static(
            source, target, Normal(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
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
    binding.bind_cpu_input("x", x)
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
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
        model = onnx_model(network.topology)
        quantized, shape = quantized_onnx(model, network.in_shape), network.in_shape
        int8["onnxruntime"] = onnxruntime_call(quantized, shape, threads)
        f32["onnxruntime"] = onnxruntime_call(model, shape, threads)
        if importlib.util.find_spec("openvino"):
            int8["openvino"] = openvino_call(quantized, shape, threads, as_f32=False)
            f32["openvino"] = openvino_call(model, shape, threads, as_f32=True)
    return int8, f32
