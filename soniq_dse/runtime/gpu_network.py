"""An ``IntegerNetwork`` on a GPU: which kernels run in which order, on buffers of their own, for a batch of samples.

Floats lie with channels last. A layer takes its ReLU, and a sum whose other side is there before, into its epilogue;
where one quantizer reads what comes out, the layer writes that one's codes (``cuda/layer.h``). Other codes, pools and
sums are passes (``cuda/network.cu``). Results are those of the golden arithmetic, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.formats.network import checked_input, quantizer_of
from soniq_dse.kernels.gpu_device import GpuDevice
from soniq_dse.kernels.gpu_layer import PlacedSegment, geometry_table, nothing, packed_taps
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.records.gpu import GpuLayerKernel
from soniq_dse.records.network import Conv2dNode, IntegerNetwork, LinearNode, NetworkNode, PoolNode
from soniq_dse.records.workload import Conv2dLayer
from soniq_dse.runtime.gpu_codes import CodeBuffer, SegmentLayout, layout_of, new_buffer
from soniq_dse.runtime.gpu_tables import PACK, PASS_THREADS, PASSES, POOL, SUM

Arrays = Mapping[str, NDArray[Any]]
MatmulNode = Conv2dNode | LinearNode


@dataclass(frozen=True)
class Floats:
    """fp32 on the device, ``[batch, height, width, channels]``; ``flat``: its shape is forgotten, not its order."""

    address: int
    height: int
    width: int
    channels: int
    flat: bool = False

    @property
    def size(self) -> int:
        """Elements of a sample."""
        return self.height * self.width * self.channels


@dataclass(frozen=True)
class Launch:
    """One kernel, of the node that it serves; ``shape`` is its table without addresses and values."""

    node: str
    path: str
    symbol: str
    grid: tuple[int, int]
    threads: int
    table: int
    shape: bytes


class GpuNetwork:
    """``network`` on ``device``, ``batch`` samples a run.

    Raises:
        UserError: an operator, or a geometry, that has no kernel on GPUs.
    """

    def __init__(
        self, network: IntegerNetwork, arrays: Arrays, device: GpuDevice, kernel: GpuLayerKernel, batch: int = 1
    ) -> None:
        self.network, self.batch = network, batch
        self._arrays, self._device, self._kernel = arrays, device, kernel
        self.launches: list[Launch] = []
        self._nodes = {node.name: node for node in network.nodes}
        self._readers: dict[str, list[NetworkNode]] = {node.name: [] for node in network.nodes}
        for node in network.nodes:
            for name in node.inputs:
                self._readers[name].append(node)
        self._floats: dict[str, Floats] = {}
        self.codes: dict[tuple[str, int], CodeBuffer] = {}
        """By node that gives codes, and groups of those that read them."""
        for node in network.nodes:
            if node.name not in self._floats:
                self._add(node)

    @property
    def shape_sha256(self) -> str:
        """Of all that its time depends on but the device: kernels, their sources, geometries, in order."""
        parts = [
            f"{one.symbol} {cuda_source_sha256(one.path)} {one.grid} {one.threads} {one.shape.hex()}"
            for one in self.launches
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def start(self) -> None:
        """Launch everything once, on the input that is there."""
        for one in self.launches:
            self._device.launch(one.path, one.symbol, one.grid, one.threads, one.table)

    def set_input(self, x: NDArray[Any]) -> None:
        """Of ``batch`` samples ``[batch, ...]``, channels first."""
        first = self._floats[self.network.nodes[0].name]
        images = np.asarray(x, np.float32).reshape(self.batch, first.channels, first.height, first.width)
        self._device.write(first.address, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))

    def run(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs on ``x [n, ...]``, any number of samples.

        Raises:
            ValueError: as ``formats.network.evaluate``.
        """
        x = checked_input(self.network, x)
        found = []
        for at in range(0, len(x), self.batch):
            chunk = x[at : at + self.batch]
            self.set_input(np.resize(chunk, (self.batch, *x.shape[1:])))
            self.start()
            found.append(self._output()[: len(chunk)])
        return np.concatenate(found)

    def _output(self) -> NDArray[np.float32]:
        node = self.network.nodes[-1]
        last = self._floats[node.name]
        found = self._device.read(last.address, (self.batch, last.height, last.width, last.channels), "f4")
        return np.asarray(found.transpose(0, 3, 1, 2).reshape(self.batch, *node.shape), np.float32)

    def unequal_codes(self, golden: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """Words of codes that differ, by node, after a run of a batch whose golden values are ``golden``."""
        wrong: dict[str, int] = {}
        for (name, _), buffer in self.codes.items():
            codes = golden[name]
            rows = np.moveaxis(codes.reshape(*codes.shape[:2], -1), 1, 2).reshape(buffer.pixels, -1)
            pairs = zip(buffer.read(self._device), buffer.expected(rows), strict=True)
            count = sum(int((found != expected).sum()) for found, expected in pairs)
            if count:
                wrong[name] = wrong.get(name, 0) + count
        return wrong

    def _add(self, node: NetworkNode) -> None:
        if isinstance(node, Conv2dNode | LinearNode):
            self._add_layer(node)
        elif node.op in ("relu", "add"):
            self._add_sum(node)
        elif isinstance(node, PoolNode):
            if node.op == "avg_pool2d" or not self._gives_codes(node.name):
                self._floats[node.name] = self._pooled(node, self._floats[node.inputs[0]])
        elif node.op == "flatten":
            self._floats[node.name] = replace(self._floats[node.inputs[0]], flat=True)
        elif node.op == "input" and getattr(node, "n_tokens", None) is None and len(node.shape) in (1, 3):
            self._floats[node.name] = self._new_floats(node.shape)
        elif node.op != "quantize":
            raise UserError(f"node {node.name}: expected what runs on a GPU (layers, pools, sums), got {node.op}")

    def _gives_codes(self, name: str) -> bool:
        node = self._nodes[name]
        return node.op == "quantize" or (node.op == "max_pool2d" and self._gives_codes(node.inputs[0]))

    def _new_floats(self, shape: tuple[int, ...]) -> Floats:
        channels, height, width = shape if len(shape) == 3 else (*shape, 1, 1)
        address = self._device.place(np.zeros(self.batch * height * width * channels, np.float32))
        return Floats(address, height, width, channels)

    def _add_launch(
        self, node: str, path: str, symbol: str, grid: tuple[int, int], threads: int, table: NDArray[Any]
    ) -> None:
        shape = b"".join(_without_values(table[0]))
        self.launches.append(Launch(node, path, symbol, grid, threads, self._device.place(table), shape))

    def _add_pass(self, node: str, kind: str, table: NDArray[Any], grid: tuple[int, int]) -> None:
        self._add_launch(node, "cuda/network.cu", PASSES[kind], grid, PASS_THREADS, table)

    def _add_sum(self, node: NetworkNode) -> None:
        sides = [self._floats[name] for name in node.inputs]
        if any(side.flat and side.height * side.width > 1 for side in sides) and len(sides) > 1:
            raise UserError(f"node {node.name}: expected a sum of tensors that were not flattened, got one that was")
        made = replace(sides[0], address=self._device.place(np.zeros(self.batch * sides[0].size, np.float32)))
        table = np.zeros(1, SUM)
        table["x"], table["out"] = sides[0].address, made.address
        table["y"] = sides[1].address if len(sides) > 1 else 0
        table["n"], table["relu"] = self.batch * made.size, node.op == "relu"
        self._add_pass(node.name, "sum", table, (-(-self.batch * made.size // PASS_THREADS), 1))
        self._floats[node.name] = made

    def _pooled(self, node: PoolNode, x: Floats) -> Floats:
        made = self._new_floats(node.shape)
        table = np.zeros(1, POOL)
        outputs = self.batch * made.size
        values = (x.address, made.address, outputs, x.height, x.width, x.channels, made.height, made.width,
                  *node.kernel, *node.stride, *node.padding)  # fmt: skip
        for name, value in zip(POOL.names or (), values, strict=False):
            table[name] = value
        table["scale"] = 0 if node.op == "max_pool2d" else np.float32(1 / (node.kernel[0] * node.kernel[1]))
        self._add_pass(node.name, "pool", table, (-(-outputs // PASS_THREADS), 1))
        return made

    def _code_buffer(self, name: str, groups: int) -> CodeBuffer:
        """The codes that a layer reads; by a pass, unless the layer before has written them."""
        if (name, groups) not in self.codes:
            x = self._source(name)
            layout = layout_of(quantizer_of(self.network, name), groups, self._kernel)
            pixels = self.batch * (1 if x.flat else x.height * x.width)
            buffer = new_buffer(layout, pixels, self._device, written_by_layer=False)
            channels = np.arange(len(layout.grids.level))
            if x.flat:  # channels first -> where it lies, channels last
                area = x.height * x.width
                offsets = channels % area * x.channels + channels // area
            else:
                offsets = channels
            table = np.zeros(1, PACK)
            table["x"], table["pixels"], table["per_image"] = x.address, pixels, pixels // self.batch
            table["pixel_stride"], table["image_stride"] = x.channels, x.size
            table["groups"], table["n_segments"] = groups, len(layout.segments)
            table["segments"] = buffer.table(self._device, offsets)
            self._add_pass(name, "pack", table, (-(-pixels // 8), groups * len(layout.segments)))
            self.codes[name, groups] = buffer
        return self.codes[name, groups]

    def _source(self, name: str) -> Floats:
        """The floats of which ``name`` gives the codes: the largest of codes are the codes of the largest."""
        node = self._nodes[name]
        if not isinstance(node, PoolNode):
            return self._floats[node.inputs[0]]
        if name not in self._floats:
            self._floats[name] = self._pooled(node, self._source(node.inputs[0]))
        return self._floats[name]

    def _add_layer(self, node: MatmulNode) -> None:
        if len(node.shape) == 2:
            raise UserError(f"node {node.name}: expected a layer of images or vectors on a GPU, got one of tokens")
        groups = node.groups if isinstance(node, Conv2dNode) else 1
        x = self._source(node.inputs[0])
        codes = self._code_buffer(node.inputs[0], groups)
        tail, relu_first, residual, relu_last = self._absorbed(node)
        target = self._written_codes(node, tail) if groups == 1 else None
        layer = self._geometry(node, x, node.shape[0] if target is None else len(target[1].layout.places))
        places = np.arange(node.shape[0]) if target is None else target[1].layout.places
        segments = [self._segment(node, codes, i, places) for i in range(len(codes.layout.segments))]
        table = geometry_table(layer, segments)
        table["relu_first"], table["relu_last"], table["out_channels"] = relu_first, relu_last, node.shape[0]
        table["bias"] = self._device.place(_by_place(self._arrays[node.bias.sha256], places))
        table["residual"] = 0 if residual is None else residual.address
        readers = self._readers[tail]
        if target is None or len(readers) > 1:
            self._floats[tail] = self._new_floats(node.shape)
            table["out"] = self._floats[tail].address
        else:  # nobody asks for the floats
            self._floats[tail] = Floats(0, *layer.out_size, node.shape[0])
        if target is not None:
            table["channel_of"] = self._device.place(places.astype(np.int32))
            table["n_codes"], table["codes"] = len(target[1].layout.segments), target[1].table()
            self.codes[target[0], 1] = target[1]
        self._floats.update(dict.fromkeys(self._between(node.name, tail), self._floats[tail]))
        grid = -(-layer.out_channels // groups // self._kernel.tile) * groups, -(-layer.rows // self._kernel.tile)
        self._add_launch(node.name, self._kernel.path, self._kernel.symbol, grid, self._kernel.threads, table)

    def _geometry(self, node: MatmulNode, x: Floats, out_channels: int) -> Conv2dLayer:
        if isinstance(node, LinearNode):
            return Conv2dLayer(
                name=node.name, batch=self.batch, in_channels=node.weight.shape[1], out_channels=out_channels,
                height=1, width=1, kernel=(1, 1),
            )  # fmt: skip
        height, width = self._nodes[node.inputs[0]].shape[1:]
        kernel = (node.weight.shape[2], node.weight.shape[3])
        return Conv2dLayer(
            name=node.name, batch=self.batch, in_channels=x.channels, out_channels=out_channels, height=height,
            width=width, kernel=kernel, stride=node.stride, padding=node.padding, dilation=node.dilation,
            groups=node.groups,
        )  # fmt: skip

    def _absorbed(self, node: NetworkNode) -> tuple[str, bool, Floats | None, bool]:
        """The node whose value the layer's epilogue gives, and what it does on the way: ReLU, sum, ReLU."""
        tail, first = self._after(node.name, "relu")
        reader = self._only_reader(tail)
        if reader is None or reader.op != "add":
            return tail, first, None, False
        other = next((name for name in reader.inputs if name != tail), tail)
        residual = self._floats.get(other)
        if residual is None or residual.address == 0 or residual.flat:
            return tail, first, None, False
        tail, last = self._after(reader.name, "relu")
        return tail, first, residual, last

    def _after(self, name: str, op: str) -> tuple[str, bool]:
        reader = self._only_reader(name)
        return (reader.name, True) if reader is not None and reader.op == op else (name, False)

    def _only_reader(self, name: str) -> NetworkNode | None:
        readers = self._readers[name]
        return readers[0] if len(readers) == 1 else None

    def _between(self, first: str, last: str) -> list[str]:
        """Nodes that the epilogue of ``first`` computes on the way to ``last``."""
        found = [first]
        while found[-1] != last:
            found.append(self._readers[found[-1]][0].name)
        return found[:-1]

    def _written_codes(self, node: MatmulNode, tail: str) -> tuple[str, CodeBuffer] | None:
        """The quantizer whose codes the layer writes, if one alone reads ``tail`` and only ungrouped layers read it."""
        quantizers = [reader for reader in self._readers[tail] if reader.op == "quantize"]
        if len(quantizers) != 1:
            return None
        name = quantizers[0].name
        for reader in self._readers[name]:
            if not isinstance(reader, Conv2dNode | LinearNode) or getattr(reader, "groups", 1) != 1:
                return None
        layout = layout_of(quantizer_of(self.network, name), 1, self._kernel)
        area = int(np.prod(node.shape[1:], dtype=int))
        return name, new_buffer(layout, self.batch * area, self._device, written_by_layer=True)

    def _segment(self, node: MatmulNode, codes: CodeBuffer, i: int, places: NDArray[np.int64]) -> PlacedSegment:
        """Weights of a segment's channels, constants of its codes, by place among the outputs."""
        one, layout = codes.layout.segments[i], codes.layout
        channel = int(one.channels.max())
        multiplier, offset = int(layout.grids.multiplier[channel]), int(layout.grids.offset[channel])
        weights, sums = _weights_of(self._arrays[node.weight.sha256], one, layout.groups)
        by_place = np.full((len(places), *weights.shape[1:]), nothing(one.part), np.int8)
        by_place[places >= 0] = weights[places[places >= 0]]
        scale = self._arrays[node.scale.sha256][one.level]
        return PlacedSegment(
            part=one.part,
            weights=self._device.place(packed_taps(one.part, by_place, layout.groups)),
            activations=codes.packed[i],
            row_sums=codes.row_sums[i],
            scale=self._device.place(_by_place(scale, places)),
            offset=self._device.place(_by_place((-offset * sums).astype(np.int32), places)),
            steps=one.steps,
            left=multiplier - 1,
            parts=codes.parts[i],
        )


def _weights_of(
    weight: NDArray[np.int8], one: SegmentLayout, groups: int
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """``[out_channels, taps, channels of a segment]``, and the sum of each output's that are there."""
    flat = weight.reshape(*weight.shape[:2], -1)
    found = np.full((len(flat), flat.shape[2], one.channels.shape[1]), nothing(one.part), np.int8)
    sums = np.zeros(len(flat), np.int64)
    per_group = len(flat) // groups
    for group, channels in enumerate(one.channels):
        rows, here = slice(group * per_group, (group + 1) * per_group), channels >= 0
        chosen = flat[rows][:, channels[here] - group * flat.shape[1]]
        found[rows, :, here] = chosen.transpose(0, 2, 1)
        sums[rows] = chosen.sum(axis=(1, 2), dtype=np.int64)
    return found, sums


def _by_place(values: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """``values [out_channels]`` where each stands among the outputs; 0 where none does."""
    return np.where(places < 0, np.zeros(1, values.dtype), values[places])


def _without_values(row: Any) -> list[bytes]:
    """The whole numbers of a table's row, addresses and floats left out."""
    found = []
    for name in row.dtype.names:
        kind = row.dtype[name]
        if kind.subdtype is not None or kind.names is not None:
            found += [part for inner in np.atleast_1d(row[name]) for part in _without_values(inner)]
        elif kind == np.dtype("i4"):
            found.append(row[name].tobytes())
    return found
