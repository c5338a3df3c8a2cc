"""INT8 and floating-point libraries on one product or convolution: what the kernels are measured against.

Every peer gets u8 activations in the layout it likes best (convolutions channels last), constant s8 weights that it
packs beforehand, one thread, and a buffer of its own. INT8 peers write u8 codes; onnxruntime's MatMulInteger
writes int32 sums.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], object]
STEP, OUT_STEP, ZERO_POINT = 0.02, 1.0, 128


@dataclass(frozen=True)
class Shape:
    """A product ``[rows, k] x [k, cols]``; with ``size``, the convolution of a ``size x size`` image, padded by half
    its kernel: ``k`` are the taps times the input channels of a group."""

    rows: int
    cols: int
    k: int
    size: int = 0
    kernel: int = 1
    stride: int = 1
    groups: int = 1

    @classmethod
    def conv(
        cls, channels: int, size: int, out: int | None = None, *, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> Shape:
        """A convolution; by default 3x3, and as many channels come out as go in."""
        out_size = (size - 1) // stride + 1
        k = kernel * kernel * channels // groups
        return cls(out_size * out_size, out or channels, k, size, kernel, stride, groups)

    @property
    def in_channels(self) -> int:
        """Of a product: k."""
        return self.k * self.groups // (self.kernel * self.kernel)

    @property
    def padding(self) -> int:
        """Pixels on each side."""
        return self.kernel // 2

    @property
    def name(self) -> str:
        """``256x512x2304``, ``conv3x3 64@56``, ``conv3x3 64-128@56 /2``, ``depthwise3x3 144@56``."""
        if not self.size:
            return f"{self.rows}x{self.cols}x{self.k}"
        kind = "depthwise" if self.groups == self.in_channels else "conv"
        channels = f"{self.cols}" if self.cols == self.in_channels else f"{self.in_channels}-{self.cols}"
        return f"{kind}{self.kernel}x{self.kernel} {channels}@{self.size}" + (
            f" /{self.stride}" if self.stride > 1 else ""
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.rows * self.cols * self.k

    def operands(self) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        """Codes ``[rows, k]`` or ``[1, size, size, channels]``; weights ``[k, cols]`` or ``[cols, k / taps, taps]``."""
        rng, channels, side = np.random.default_rng(0), self.in_channels, self.kernel
        codes = (1, self.size, self.size, channels) if self.size else (self.rows, self.k)
        weights = (self.cols, channels // self.groups, side, side) if self.size else (self.k, self.cols)
        return rng.integers(0, 256, codes).astype(np.uint8), rng.integers(-127, 128, weights).astype(np.int8)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Of a product ``[rows, cols]``, of a convolution channels last."""
        side = math.isqrt(self.rows)
        return (1, side, side, self.cols) if self.size else (self.rows, self.cols)


def _model(shape: Shape, op: str) -> bytes:
    """An ONNX model: ``op`` is MatMulInteger, QLinearConv (channels last) or QDQ (dequantise, multiply, quantise)."""
    from onnx import TensorProto, helper, numpy_helper

    codes, weights = shape.operands()
    constants = {
        "w": weights, "sx": np.float32(STEP), "so": np.float32(OUT_STEP), "zx": np.uint8(ZERO_POINT), "zw": np.int8(0),
    }  # fmt: skip
    node = helper.make_node
    window = {"pads": [shape.padding] * 4, "strides": [shape.stride] * 2, "group": shape.groups}
    if op == "MatMulInteger":
        nodes = [node(op, ["x", "w", "zx"], ["y"])]
    elif op == "QLinearConv":
        inputs = ["x", "sx", "zx", "w", "sx", "zw", "so", "zx"]
        side = [shape.kernel] * 2
        nodes = [node(op, inputs, ["y"], domain="com.microsoft", channels_last=1, kernel_shape=side, **window)]
    else:
        product = node("Conv", ["a", "b"], ["c"], **window) if shape.size else node("MatMul", ["a", "b"], ["c"])
        nodes = [node("DequantizeLinear", ["x", "sx", "zx"], ["a"]), node("DequantizeLinear", ["w", "sx", "zw"], ["b"])]
        nodes += [product, node("QuantizeLinear", ["c", "so", "zx"], ["y"])]
    shapes = [list(codes.shape), list(shape.out_shape)]
    if op == "QDQ" and shape.size:  # channels first
        shapes = [[one[0], one[3], one[1], one[2]] for one in shapes]
    in_shape, out_shape = shapes
    out_type = TensorProto.INT32 if op == "MatMulInteger" else TensorProto.UINT8
    graph = helper.make_graph(
        nodes, "peer",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, in_shape)],
        [helper.make_tensor_value_info("y", out_type, out_shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def _onnxruntime(shape: Shape) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = _model(shape, "QLinearConv" if shape.size else "MatMulInteger")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    codes, _ = shape.operands()
    out = np.empty(shape.out_shape, np.uint8 if shape.size else np.int32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", codes)
    binding.bind_output("y", "cpu", 0, out.dtype.type, out.shape, out.ctypes.data)
    kept = (codes, out)
    return lambda: (session.run_with_iobinding(binding), kept)


def _openvino(shape: Shape) -> Call:
    import openvino
    from openvino.preprocess import PrePostProcessor

    core = openvino.Core()
    model = core.read_model(model=_model(shape, "QDQ"))
    if shape.size:  # codes channels last, as every library computes
        layouts = PrePostProcessor(model)
        for port in (layouts.input(), layouts.output()):
            port.tensor().set_layout(openvino.Layout("NHWC"))
            port.model().set_layout(openvino.Layout("NCHW"))
        model = layouts.build()
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1})
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(shape.operands()[0], shared_memory=True))
    return request.infer


def _torch_int8(shape: Shape, engine: str) -> Call:
    import torch

    torch.set_num_threads(1)
    torch.backends.quantized.engine = engine
    codes, weights = (torch.from_numpy(array) for array in shape.operands())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eager-mode quantisation is deprecated, but has no faster successor on CPUs
        weights = weights if shape.size else weights.T.contiguous()
        scales, zeros = torch.full((shape.cols,), STEP), torch.zeros(shape.cols, dtype=torch.long)
        weights = torch.quantize_per_channel(weights.float() * STEP, scales, zeros, 0, torch.qint8)
        codes = codes.permute(0, 3, 1, 2) if shape.size else codes  # strides stay channels last
        codes = torch.quantize_per_tensor((codes.float() - ZERO_POINT) * STEP, STEP, ZERO_POINT, torch.quint8)
    bias, ops = torch.zeros(shape.cols), torch.ops.quantized
    if shape.size:
        stride, padding = [shape.stride] * 2, [shape.padding] * 2
        packed = ops.conv2d_prepack(weights, bias, stride, padding, [1, 1], shape.groups)
        return lambda: ops.conv2d(codes, packed, OUT_STEP, ZERO_POINT)
    packed = ops.linear_prepack(weights, bias)
    return lambda: ops.linear(codes, packed, OUT_STEP, ZERO_POINT)


def _torch_float(shape: Shape, dtype: str) -> Call:
    import torch

    torch.set_num_threads(1)
    codes, weights = (torch.from_numpy(array).to(getattr(torch, dtype)) for array in shape.operands())
    if shape.size:
        codes, weights = codes.permute(0, 3, 1, 2), weights.contiguous(memory_format=torch.channels_last)
        window = {"stride": shape.stride, "padding": shape.padding, "groups": shape.groups}
        return lambda: torch.nn.functional.conv2d(codes, weights, **window)
    weights = weights.T.contiguous()
    return lambda: torch.nn.functional.linear(codes, weights)


@dataclass(frozen=True)
class Peer:
    """A library; ``bits`` of its operands; ``obeys_isa_limit``: it is built on oneDNN and heeds ONEDNN_MAX_CPU_ISA."""

    name: str
    package: str
    bits: int
    obeys_isa_limit: bool
    prepare: Callable[[Shape], Call]


PEERS = (
    Peer("onnxruntime", "onnxruntime", 8, False, _onnxruntime),
    Peer("openvino", "openvino", 8, True, _openvino),
    Peer("torch onednn", "torch", 8, True, functools.partial(_torch_int8, engine="onednn")),
    Peer("torch fbgemm", "torch", 8, False, functools.partial(_torch_int8, engine="fbgemm")),
    Peer("torch fp32", "torch", 32, False, functools.partial(_torch_float, dtype="float32")),
    Peer("torch bf16", "torch", 16, False, functools.partial(_torch_float, dtype="bfloat16")),
)


def is_present(peer: Peer) -> bool:
    """Whether its packages are installed (onnxruntime and OpenVINO get their models as ONNX)."""
    needed = [peer.package] if peer.package == "torch" else [peer.package, "onnx"]
    return all(importlib.util.find_spec(name) is not None for name in needed)


def prepare(shape: Shape, peers: Sequence[Peer]) -> dict[str, Call]:
    """Name -> call, of the peers that are present and take the shape."""
    calls: dict[str, Call] = {}
    for peer in filter(is_present, peers):
        with contextlib.suppress(RuntimeError):  # an engine that lacks this convolution or this processor
            calls[peer.name] = peer.prepare(shape)
            calls[peer.name]()
    return calls
