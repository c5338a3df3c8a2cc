"""The decoder of ``_decode.py`` in onnxruntime: one step, keys and values of earlier tokens being inputs.

Two graphs, of which the faster counts: plain operators, which give the new keys and values as outputs of one token and
join them to the earlier ones to attend; and ``GroupQueryAttention`` of onnxruntime, which appends them in place.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._decode import CACHED, Size
from benchmarks._peers import Call

Arrays = dict[str, NDArray[Any]]


class _Graph:
    """Nodes and constants in the making; methods give the name of what they make."""

    def __init__(self, size: Size, *, plain: bool) -> None:
        self.size, self.plain = size, plain
        self.nodes: list[Any] = []
        self.constants: Arrays = {}
        self._rng = np.random.default_rng(0)

    def op(self, op: str, inputs: list[str], name: str, outputs: int = 1, **attributes: Any) -> str:
        from onnx import helper

        names = [name, *(f"{name}.{index}" for index in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{name}/{op}", **attributes))
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = value
        return name

    def normal(self, name: str, *shape: int) -> str:
        spread = shape[0] ** -0.5 if len(shape) > 1 else 0.1
        return self.constant(name, (spread * self._rng.standard_normal(shape)).astype(np.float32))

    def linear(self, name: str, x: str, inputs: int, outputs: int) -> str:
        product = self.op("MatMul", [x, self.normal(f"{name}.w", inputs, outputs)], f"{name}.product")
        return self.op("Add", [product, self.normal(f"{name}.b", outputs)], name)

    def norm(self, name: str, x: str) -> str:
        gain, bias = self.normal(f"{name}.g", self.size.width), self.normal(f"{name}.b", self.size.width)
        return self.op("LayerNormalization", [x, gain, bias], name, axis=-1)

    def block(self, name: str, x: str) -> str:
        width, inner = self.size.width, self.size.inner
        normed = self.norm(f"{name}.norm1", x)
        query, key, value = (self.linear(f"{name}.{part}", normed, width, width) for part in "qkv")
        attend = self._plainly if self.plain else self._grouped
        out = self.linear(f"{name}.out", attend(name, query, key, value), width, width)
        x = self.op("Add", [x, out], f"{name}.add1")
        up = self.op("Relu", [self.linear(f"{name}.up", self.norm(f"{name}.norm2", x), width, inner)], f"{name}.relu")
        return self.op("Add", [x, self.linear(f"{name}.down", up, inner, width)], f"{name}.add2")

    def _plainly(self, name: str, query: str, key: str, value: str) -> str:
        heads, of_head = self.size.heads, self.size.width // self.size.heads
        self.constant("by_head", np.array([1, heads, 1, of_head]))
        self.constant("together", np.array([1, 1, self.size.width]))
        self.constant("scale", np.float32(of_head**-0.5))
        new = {
            part: self.op("Reshape", [of, "by_head"], f"{name}.new_{part}") for part, of in (("k", key), ("v", value))
        }
        keys = self.op("Concat", [f"{name}.past_k", new["k"]], f"{name}.keys", axis=2)
        values = self.op("Concat", [f"{name}.past_v", new["v"]], f"{name}.values", axis=2)
        turned = self.op("Transpose", [keys], f"{name}.turned", perm=[0, 1, 3, 2])
        scaled = self.op("Mul", [self.op("Reshape", [query, "by_head"], f"{name}.heads"), "scale"], f"{name}.scaled")
        weights = self.op(
            "Softmax", [self.op("MatMul", [scaled, turned], f"{name}.scores")], f"{name}.weights", axis=-1
        )
        return self.op("Reshape", [self.op("MatMul", [weights, values], f"{name}.mix"), "together"], f"{name}.mixed")

    def _grouped(self, name: str, query: str, key: str, value: str) -> str:
        self.constant("before", np.array([CACHED], np.int32))
        self.constant("in_all", np.array(CACHED + 1, np.int32))
        from onnx import helper

        inputs = [query, key, value, f"{name}.past_k", f"{name}.past_v", "before", "in_all"]
        outputs = [f"{name}.mixed", f"{name}.new_k", f"{name}.new_v"]
        node = helper.make_node(
            "GroupQueryAttention", inputs, outputs, name=f"{name}/attention", domain="com.microsoft",
            num_heads=self.size.heads, kv_num_heads=self.size.heads,
        )  # fmt: skip
        self.nodes.append(node)
        return outputs[0]


def step_model(size: Size, *, plain: bool) -> bytes:
    """One step in FP32. Caches hold ``CACHED`` tokens, or ``size.length`` where they are appended to in place."""
    from onnx import TensorProto, helper, numpy_helper

    graph = _Graph(size, plain=plain)
    rows = graph.op("Gather", [graph.normal("table", size.n_tokens, size.width), "x"], "embed")
    x = graph.op("Add", [rows, graph.normal("place", size.width)], "placed")
    for index in range(size.blocks):
        x = graph.block(f"b{index}", x)
    graph.linear("y", graph.norm("norm", x), size.width, size.n_tokens)

    def caches(kind: str, length: int) -> list[Any]:
        shape = [1, size.heads, length, size.width // size.heads]
        names = [f"b{index}.{kind}_{part}" for index in range(size.blocks) for part in "kv"]
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]

    past, new = (CACHED, 1) if plain else (size.length, size.length)
    made = helper.make_graph(
        graph.nodes, "step",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [1, 1]), *caches("past", past)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, size.n_tokens]), *caches("new", new)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in graph.constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString())


def quantised(model: bytes, how: str, feeds: Mapping[str, NDArray[Any]]) -> bytes:
    """``model`` with INT8 products of weights by onnxruntime's quantizer: ``how`` is dynamic or static (QDQ)."""
    from onnx import TensorProto
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Once(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._left: Iterator[Mapping[str, Any]] = iter([feeds])

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self._left, None)

    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "f32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        options = {"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT}
        if how == "dynamic":
            quantize_dynamic(
                source, target, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"],
                extra_options=options,
            )  # fmt: skip
        else:
            quantize_static(
                source, target, Once(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"],
                extra_options=options,
            )  # fmt: skip
        return target.read_bytes()


def feeds_of(size: Size, *, plain: bool) -> Arrays:
    """A token and random caches."""
    rng, length = np.random.default_rng(0), CACHED if plain else size.length
    shape = (1, size.heads, length, size.width // size.heads)
    names = [f"b{index}.past_{part}" for index in range(size.blocks) for part in "kv"]
    caches = {name: rng.standard_normal(shape).astype(np.float32) for name in names}
    return {"x": np.array([[7]]), **caches}


def onnxruntime_step(model: bytes, feeds: Arrays, *, plain: bool, threads: int) -> Call:
    """A run of ``model`` on bound buffers; those that are appended to in place are inputs and outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding, kept = session.io_binding(), dict(feeds)
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        past = output.name.replace(".new_", ".past_")
        array = feeds[past] if not plain and past in feeds else np.empty(output.shape, np.float32)
        kept[f"out {output.name}"] = array
        binding.bind_output(output.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    return lambda: (session.run_with_iobinding(binding), kept)


def peer_steps(size: Size, threads: int) -> tuple[dict[str, Call], dict[str, Call]]:
    """(INT8, FP32) steps by name."""
    int8: dict[str, Call] = {}
    f32: dict[str, Call] = {}
    for form, plain in (("plain", True), ("grouped", False)):
        model, feeds = step_model(size, plain=plain), feeds_of(size, plain=plain)
        make: Callable[[bytes], Call] = lambda one, feeds=feeds, plain=plain: onnxruntime_step(  # noqa: E731
            one, feeds, plain=plain, threads=threads
        )
        f32[f"onnxruntime {form}"] = make(model)
        for how in ("dynamic", "static"):
            int8[f"onnxruntime {how} {form}"] = make(quantised(model, how, feeds))
    return int8, f32
