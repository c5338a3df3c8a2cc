"""ONNX with QuantizeLinear and DequantizeLinear: weights in INT2, INT4 and INT8, codes in UINT2, UINT4 and UINT8.

Equal to the golden arithmetic bit for bit where sums stay below 2**24: quantizers scale and shift explicitly, since
QuantizeLinear would divide where deployment multiplies; then its scale is 1. A zero-free weight ``z = 2u - c`` of b
bits is stored as the signed ``t = u - 2**(b - 1)`` and comes back as ``2t + 1`` (DequantizeLinear by 2, Add 1); a
zero-free activation as ``2u - c``. Layers multiply these integers, and the sums by the scale of level and channel.
Averages are spelled out in the deployment's order; Transformers are not (``onnx_tokens.py``).

Source: ONNX operator specification, opset 21 (4-bit types) and 25 (2-bit types).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.export import Base, Design, save
from soniq_dse.export.lowering import (
    OPERATORS,
    TOKEN_OPERATORS,
    Block,
    LayerLevel,
    activation_grid,
    expect_plain,
    inexact_layers,
    layer_levels,
    level_channels,
    packed_bits,
    summed_otherwise,
    window_starts,
)
from soniq_dse.export.onnx_tokens import TokenNodes
from soniq_dse.formats import Grid, grid_of
from soniq_dse.formats.deployment import channel_grids
from soniq_dse.formats.network import quantizer_of
from soniq_dse.records.network import (
    AddNode,
    ClipNode,
    Conv2dNode,
    FlattenNode,
    InputNode,
    LinearNode,
    NetworkNode,
    PoolNode,
    QuantizeNode,
    ReluNode,
    TensorQuantizer,
    WeightOnlyNode,
)
from soniq_dse.records.palette import FLOAT_BITS, Level

OPSETS = {4: (21, 10), 2: (25, 13)}
"""Narrowest type in bits -> the opset that has it and that opset's version of the file format."""


class Onnx(Base):
    """ONNX, fp32 or token numbers in and fp32 out, any number of samples a call."""

    title = "ONNX QDQ"

    def write(self, design: Design, target: Path) -> tuple[str, ...]:
        """See ``Base``."""
        expect_plain(design.network, (*OPERATORS, *TOKEN_OPERATORS, "weight_only"), "ONNX")
        narrowest = 2 if _accepts_two_bits() else 4
        model = _Graph(design, narrowest).model()
        save(target, model.SerializeToString())
        return tuple(_notes(design, narrowest))

    def outputs(self, path: Path, x: NDArray[Any]) -> NDArray[np.float32]:
        """See ``Base``; by onnxruntime."""
        _, runtime = _packages()
        session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        first = session.get_inputs()[0]
        feed = x if first.type == "tensor(float)" else x.astype(np.int64)
        result: NDArray[np.float32] = session.run(None, {first.name: feed})[0]
        return result


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"to: expected the packages onnx and onnxruntime, got no {error.name}: pip install 'soniq-dse[onnx]'"
        ) from error
    return onnx, onnxruntime


def _notes(design: Design, narrowest: int) -> list[str]:
    notes = []
    quantizers = [node.quantizer for node in design.network.nodes if isinstance(node, QuantizeNode)]
    levels = [level for quantizer in quantizers for level in quantizer.palette.levels]
    if narrowest > 2 and any(min(level.weight_bits, level.activation_bits) <= 2 for level in levels):
        notes.append("this onnx or onnxruntime has no 2-bit types: values of 1 and 2 bits are carried in 4")
    notes += summed_otherwise(design.network)
    inexact = inexact_layers(design.network, design.arrays)
    if inexact:
        notes.append(f"sums may reach 2**24, where fp32 rounds them, in {len(inexact)} layers: {', '.join(inexact)}")
    return notes


@functools.lru_cache(maxsize=1)
def _accepts_two_bits() -> bool:
    """Whether the installed packages know INT2: a model of one node says."""
    onnx, runtime = _packages()
    helper, types = onnx.helper, onnx.TensorProto
    if not hasattr(types, "INT2"):
        return False
    weight, scale = helper.make_tensor("w", types.INT2, [2], [1, -2]), helper.make_tensor("s", types.FLOAT, [], [1.0])
    output = helper.make_tensor_value_info("y", types.FLOAT, [2])
    node = helper.make_node("DequantizeLinear", ["w", "s"], ["y"])
    graph = helper.make_graph([node], "probe", [], [output], [weight, scale])
    opset, ir_version = OPSETS[2]
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return bool(np.array_equal(session.run(None, {})[0], [1, -2]))
    except Exception:  # onnxruntime's errors have no common base; whichever it is, the type is not there
        return False


class _Graph:
    """The model under construction; values of a node of codes are, by level, the integers behind them in fp32."""

    def __init__(self, design: Design, narrowest: int) -> None:
        onnx, _ = _packages()
        self._helper, self._types, self._numpy = onnx.helper, onnx.TensorProto, onnx.numpy_helper
        self._design, self._narrowest = design, narrowest
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._unrounded: dict[str, dict[int, str]] = {}
        self._integers: dict[str, dict[int, str]] = {}
        self._tokens = TokenNodes(design.network, design.arrays, self)

    def model(self) -> Any:
        """The whole model."""
        network = self._design.network
        for node in network.nodes:
            self._emit(node)
        first, last = network.nodes[0], network.nodes[-1]
        graph = self._helper.make_graph(
            self._nodes,
            network.name,
            [self._helper.make_tensor_value_info(first.name, self._input_type(first), ["batch", *first.shape])],
            [self._helper.make_tensor_value_info(last.name, self._types.FLOAT, ["batch", *last.shape])],
            list(self._initializers.values()),
        )
        opset, ir_version = OPSETS[self._narrowest]
        opsets = [self._helper.make_opsetid("", opset)]
        return self._helper.make_model(graph, producer_name="soniq-dse", opset_imports=opsets, ir_version=ir_version)

    def _input_type(self, first: NetworkNode) -> Any:
        has_numbers = isinstance(first, InputNode) and first.n_tokens is not None
        return self._types.INT64 if has_numbers else self._types.FLOAT

    def _emit(self, node: NetworkNode) -> None:
        match node:
            case InputNode():
                pass
            case QuantizeNode():
                self._quantize(node)
            case Conv2dNode() | LinearNode():
                self._layer(node)
            case WeightOnlyNode():
                self._weight_only(node)
            case PoolNode():
                self._pool(node)
            case ReluNode():
                self.op("Relu", node.inputs, node.name)
            case ClipNode():
                above = self.op("Relu", node.inputs, f"{node.name}/above")
                self.op("Min", (above, self.constant(f"{node.name}/most", np.float32(node.most))), node.name)
            case AddNode():
                self.op("Add", node.inputs, node.name)
            case FlattenNode():
                self.op("Flatten", node.inputs, node.name, axis=1)
            case _:
                self._tokens.emit[type(node)](node)

    def _quantize(self, node: QuantizeNode) -> None:
        """Codes of each level, and the integers behind them."""
        grids, levels = channel_grids(node.quantizer), level_channels(node.quantizer)
        self._unrounded[node.name] = {}
        for index, channels in levels.items():
            name, grid = f"{node.name}/{index}", activation_grid(node.quantizer, index)
            value = node.inputs[0]
            if len(levels) > 1:
                value = self.op(
                    "Gather",
                    (value, self.constant(f"{name}/channels", channels)),
                    f"{name}/x",
                    axis=-1 if len(node.shape) == 2 else 1,
                )
            inverse = self.constant(f"{name}/inverse", grids.inverse[channels[0]])
            value = self.op("Mul", (value, inverse), f"{name}/scaled")
            if grid.shift:
                shift = self.constant(f"{name}/shift", np.float32(grid.shift))
                value = self.op("Add", (value, shift), f"{name}/shifted")
            self._unrounded[node.name][index] = value
        self._round(node.name, node.quantizer)

    def _round(self, node: str, quantizer: TensorQuantizer) -> None:
        """The integers of a node of codes from what its levels round."""
        self._integers[node] = {
            index: self._codes(
                value,
                f"{node}/{index}",
                activation_grid(quantizer, index),
                self._width(quantizer.palette.levels[index].activation_bits),
            )
            for index, value in self._unrounded[node].items()
        }

    def _codes(self, value: str, name: str, grid: Grid, width: int) -> str:
        """fp32 -> codes of ``width`` bits -> the integers that they stand for, in fp32."""
        if grid.hi < 2**width - 1:  # Min and Max: onnxruntime 1.32 fails on a Clip before a 2-bit QuantizeLinear
            value = self.op("Min", (value, self.constant(f"{name}/hi", np.float32(grid.hi))), f"{name}/below")
        if grid.lo > 0:
            value = self.op("Max", (value, self.constant(f"{name}/lo", np.float32(grid.lo))), f"{name}/above")
        one = self.constant("const:1", np.float32(1))
        zero = self._typed(f"const:0:UINT{width}", f"UINT{width}", np.zeros(()))
        codes = self.op("QuantizeLinear", (value, one, zero), f"{name}/codes")
        offset = grid.offset if grid.multiplier == 1 else 0
        point = self._typed(f"{name}/zero_point", f"UINT{width}", np.asarray(offset)) if offset else zero
        scale = self.constant("const:2", np.float32(2)) if grid.multiplier == 2 else one
        value = self.op("DequantizeLinear", (codes, scale, point), f"{name}/integers")
        if grid.multiplier == 1:
            return value
        top = self.constant(f"{name}/top", np.float32(grid.offset))
        return self.op("Sub", (value, top), f"{name}/odd")

    def _layer(self, node: Conv2dNode | LinearNode) -> None:
        """t = 0; t = t + sums * scale, level by level; t = t + bias."""
        beside = (1,) * (len(node.shape) - 1) if isinstance(node, Conv2dNode) else ()
        levels = list(layer_levels(self._design.network, node, self._design.arrays))
        total = ""
        for part in levels:
            name = f"{node.name}/{part.index}"
            sums = self._sums(node, part, name)
            scale = self.constant(f"{name}/scale", part.scale.reshape(-1, *beside))
            scaled = self.op("Mul", (sums, scale), f"{name}/scaled")
            total = self.op("Add", (total, scaled), f"{name}/total") if total else scaled
        bias = self._design.arrays[node.bias.sha256].reshape(-1, *beside)
        self.op("Add", (total, self.constant(f"{node.name}/bias", bias)), node.name)

    def _sums(self, node: Conv2dNode | LinearNode, part: LayerLevel, name: str) -> str:
        """The integer sums of a level, every output channel in its place."""
        found = [self._product(node, part, f"{name}/{i}", block) for i, block in enumerate(part.blocks)]
        value = found[0] if len(found) == 1 else self.op("Concat", found, f"{name}/joined", axis=1)
        source = part.source
        if source is None:
            return value
        if int(source.max()) == sum(len(block.rows) for block in part.blocks):  # some channels get nothing
            ends = self.constant(f"{name}/ends", np.asarray([0, 0, 0, 0, 0, 1, 0, 0]))
            value = self.op("Pad", (value, ends), f"{name}/with_zeros")
        return self.op("Gather", (value, self.constant(f"{name}/rows", source)), f"{name}/in_place", axis=1)

    def _product(self, node: Conv2dNode | LinearNode, part: LayerLevel, name: str, block: Block) -> str:
        quantizer = quantizer_of(self._design.network, node.inputs[0])
        integers = self._integers[node.inputs[0]][part.index]
        if isinstance(node, LinearNode):
            weights = self._weights(f"{name}/weight", np.ascontiguousarray(block.weight.T), part.level)
            return self.op("MatMul", (integers, weights), f"{name}/sums")
        if not np.array_equal(block.channels, np.arange(len(level_channels(quantizer)[part.index]))):
            chosen = self.constant(f"{name}/channels", block.channels)
            integers = self.op("Gather", (integers, chosen), f"{name}/gathered", axis=1)
        grid, pads = activation_grid(quantizer, part.index), [*node.padding, *node.padding]
        border = grid.integer(grid.zero_code)
        if border and any(pads):
            ends = self.constant(f"{name}/border", np.asarray([0, 0, *node.padding, 0, 0, *node.padding]))
            value = self.constant(f"{name}/pad", np.float32(border))
            integers, pads = self.op("Pad", (integers, ends, value), f"{name}/padded"), [0, 0, 0, 0]
        return self.op(
            "Conv",
            (integers, self._weights(f"{name}/weight", block.weight, part.level)),
            f"{name}/sums",
            strides=list(node.stride),
            pads=pads,
            dilations=list(node.dilation),
            group=block.groups,
        )

    def _weight_only(self, node: WeightOnlyNode) -> None:
        name, arrays = node.name, self._design.arrays
        level = Level(weight_bits=node.bits, activation_bits=FLOAT_BITS)
        weights = self._weights(f"{name}/weight", np.ascontiguousarray(arrays[node.weight.sha256].T), level)
        # Scaled here: onnxruntime fuses DequantizeLinear with a MatMul behind it, and rounds what is read to INT8.
        weights = self.op("Mul", (weights, self.constant(f"{name}/scale", arrays[node.scale.sha256])), f"{name}/scaled")
        sums = self.op("MatMul", (node.inputs[0], weights), f"{name}/sums")
        self.op("Add", (sums, self.constant(f"{name}/bias", arrays[node.bias.sha256])), name)

    def _weights(self, name: str, integers: NDArray[np.int8], level: Level) -> str:
        """The integers of weights in fp32, from signed ones of the level's bits."""
        grid, kind = grid_of(level.weight_format), f"INT{self._width(level.weight_bits)}"
        signed = integers if grid.multiplier == 1 else (integers.astype(np.int16) - 1) // 2
        stored = self._typed(f"{name}/stored", kind, signed)
        if grid.multiplier == 1:
            return self.op("DequantizeLinear", (stored, self.constant("const:1", np.float32(1))), name)
        even = self.op("DequantizeLinear", (stored, self.constant("const:2", np.float32(2))), f"{name}/even")
        return self.op("Add", (even, self.constant("const:1", np.float32(1))), name)

    def _pool(self, node: PoolNode) -> None:
        source = node.inputs[0]
        window = {"kernel_shape": list(node.kernel), "strides": list(node.stride), "pads": list(node.padding * 2)}
        if source in self._unrounded:  # codes rise with what was rounded; onnxruntime pools no 4-bit types
            self._unrounded[node.name] = {
                index: self.op("MaxPool", (value,), f"{node.name}/{index}/x", **window)
                for index, value in self._unrounded[source].items()
            }
            self._round(node.name, quantizer_of(self._design.network, node.name))
        elif node.op == "max_pool2d":
            self.op("MaxPool", node.inputs, node.name, **window)
        else:
            self._average(node)

    def _average(self, node: PoolNode) -> None:
        taps = []
        axes = self.constant("const:axes", np.asarray([2, 3]))
        for row, column in window_starts(node):
            spans = [(at, at + (extent - 1) * step + 1)
                     for at, extent, step in zip((row, column), node.shape[1:], node.stride, strict=True)]  # fmt: skip
            name = f"{node.name}/{row}/{column}"
            starts = self.constant(f"{name}/starts", np.asarray([start for start, _ in spans]))
            ends = self.constant(f"{name}/ends", np.asarray([end for _, end in spans]))
            steps = self.constant(f"{node.name}/steps", np.asarray(node.stride))
            taps.append(self.op("Slice", (node.inputs[0], starts, ends, axes, steps), name))
        total = self.op("Sum", taps, f"{node.name}/total")
        share = self.constant(f"{node.name}/share", np.float32(1 / len(taps)))
        self.op("Mul", (total, share), node.name)

    def _width(self, bits: int) -> int:
        """Bits of the narrowest type that holds ``bits``."""
        return next(width for width in (2, 4, 8) if width >= max(bits, self._narrowest))

    def op(self, kind: str, inputs: Any, output: str, **attributes: Any) -> str:
        """Add a node; the name of what it gives."""
        self._nodes.append(self._helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        """Add a constant, once under each name."""
        if name not in self._initializers:
            array = np.ascontiguousarray(value).reshape(np.shape(value))
            self._initializers[name] = self._numpy.from_array(array, name)
        return name

    def _typed(self, name: str, kind: str, values: NDArray[Any]) -> str:
        """Integers in a type of 2, 4 or 8 bits, packed from the low bits of a byte up."""
        if name not in self._initializers:
            bits = int(kind.lstrip("UINT"))
            codes = (values.reshape(-1).astype(np.int16) & (2**bits - 1)).astype(np.uint8)
            raw = packed_bits(codes, bits).tobytes()
            type_number = getattr(self._types, kind)
            self._initializers[name] = self._helper.make_tensor(name, type_number, values.shape, raw, raw=True)
        return name
