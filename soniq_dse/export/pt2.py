"""A torch.export program: weights at 1, 2, 4 or 8 bits in bytes, unpacked and multiplied as integers in fp32.

Equal to the golden arithmetic bit for bit where sums stay below 2**24, as every operation is one of the deployment's in
its order (run eagerly: a compiler may contract multiplications and additions); Transformers are not: ``pt2_tokens.py``.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

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
from soniq_dse.export.pt2_tokens import constants, token_output
from soniq_dse.formats import grid_of
from soniq_dse.formats.deployment import channel_grids
from soniq_dse.formats.network import quantizer_of
from soniq_dse.records.network import (
    ClipNode,
    Conv2dNode,
    InputNode,
    LinearNode,
    NetworkNode,
    PoolNode,
    QuantizeNode,
    WeightOnlyNode,
)
from soniq_dse.records.palette import FLOAT_BITS, Level

Levels = dict[int, Tensor]
"""The integers behind a tensor of codes, by level, in fp32."""


class Pt2(Base):
    """A program of PyTorch, fp32 or token numbers in and fp32 out, any number of samples a call."""

    title = "torch.export program"

    def write(self, design: Design, target: Path) -> tuple[str, ...]:
        """See ``Base``."""
        expect_plain(design.network, (*OPERATORS, *TOKEN_OPERATORS, "weight_only"), ".pt2")
        first = design.network.nodes[0]
        is_text = isinstance(first, InputNode) and first.n_tokens is not None
        example = torch.zeros(2, *first.shape, dtype=torch.int64 if is_text else torch.float32)
        archive = io.BytesIO()
        with _quiet():
            batch = torch.export.Dim("batch")
            program = torch.export.export(_Network(design).eval(), (example,), dynamic_shapes=({0: batch},))
            torch.export.save(program, archive)
        save(target, archive.getvalue())
        inexact = inexact_layers(design.network, design.arrays)
        layers = (f"sums may reach 2**24, where fp32 rounds them, in: {', '.join(inexact)}",) if inexact else ()
        return (*summed_otherwise(design.network), *layers)

    def outputs(self, path: Path, x: NDArray[Any]) -> NDArray[np.float32]:
        """See ``Base``; by PyTorch."""
        feed = x if x.dtype == np.float32 else x.astype(np.int64)
        with _quiet(), torch.no_grad():
            result: NDArray[np.float32] = torch.export.load(path).module()(torch.from_numpy(feed)).numpy()
        return result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch warns of in its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Network(nn.Module):  # type: ignore[misc]
    """The network node by node, as torch.export traces it."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self._design = design
        for node in design.network.nodes:
            if isinstance(node, Conv2dNode | LinearNode):
                self._keep(node.name, "bias", design.arrays[node.bias.sha256])
                for part in layer_levels(design.network, node, design.arrays):
                    self._keep(node.name, f"scale_{part.index}", part.scale)
                    for number, block in enumerate(part.blocks):
                        self._keep(node.name, f"weight_{part.index}_{number}", _stored(block.weight, part.level))
            if isinstance(node, WeightOnlyNode):
                self._keep(node.name, "weight", _stored(design.arrays[node.weight.sha256], _weight_level(node)))
            for field, array in constants(node, design.arrays).items():
                self._keep(node.name, field, array)

    def forward(self, x: Tensor) -> Tensor:
        nodes = self._design.network.nodes
        values: dict[str, Tensor] = {nodes[0].name: x}
        codes: dict[str, Levels] = {}
        for node in nodes[1:]:
            source = node.inputs[0]
            if isinstance(node, QuantizeNode):
                codes[node.name] = _quantized(node, values[source])
            elif isinstance(node, Conv2dNode | LinearNode):
                values[node.name] = self._layer(node, codes[source])
            elif isinstance(node, WeightOnlyNode):
                values[node.name] = self._weight_only(node, values[source])
            elif isinstance(node, PoolNode) and source in codes:
                pooled = {index: _max_pool(node, integers) for index, integers in codes[source].items()}
                codes[node.name] = pooled
            elif node.op in TOKEN_OPERATORS:
                inputs = [values[name] for name in node.inputs]
                values[node.name] = token_output(node, inputs, functools.partial(self._kept, node.name))
            else:
                values[node.name] = _plain(node, [values[name] for name in node.inputs])
        return values[nodes[-1].name]

    def _layer(self, node: Conv2dNode | LinearNode, integers: Levels) -> Tensor:
        beside = (1,) * (2 if isinstance(node, Conv2dNode) else 0)
        total: Tensor | None = None
        for part in layer_levels(self._design.network, node, self._design.arrays):
            scale = self._kept(node.name, f"scale_{part.index}").reshape(-1, *beside)
            scaled = self._sums(node, part, integers[part.index]) * scale
            total = scaled if total is None else total + scaled
        assert total is not None
        return total + self._kept(node.name, "bias").reshape(-1, *beside)

    def _sums(self, node: Conv2dNode | LinearNode, part: LayerLevel, integers: Tensor) -> Tensor:
        """The integer sums of a level, every output channel in its place."""
        found = []
        for number, block in enumerate(part.blocks):
            weight = _unpacked(self._kept(node.name, f"weight_{part.index}_{number}"), block.weight.shape, part.level)
            found.append(self._product(node, part, integers, block, weight))
        value = torch.cat(found, 1)
        source = part.source
        if source is None:
            return value
        if int(source.max()) == value.shape[1]:  # some channels get nothing
            value = functional.pad(value, (0, 0, 0, 0, 0, 1))
        return value[:, torch.from_numpy(source)]

    def _product(
        self, node: Conv2dNode | LinearNode, part: LayerLevel, integers: Tensor, block: Block, weight: Tensor
    ) -> Tensor:
        if isinstance(node, LinearNode):
            return integers @ weight.T
        grid = activation_grid(quantizer_of(self._design.network, node.inputs[0]), part.index)
        above, beside = node.padding
        border = float(grid.integer(grid.zero_code))
        image = functional.pad(
            integers[:, torch.from_numpy(block.channels)], (beside, beside, above, above), value=border
        )
        return functional.conv2d(image, weight, None, node.stride, 0, node.dilation, block.groups)

    def _weight_only(self, node: WeightOnlyNode, x: Tensor) -> Tensor:
        weight = _unpacked(self._kept(node.name, "weight"), node.weight.shape, _weight_level(node))
        return x @ weight.T * self._kept(node.name, "scale") + self._kept(node.name, "bias")

    def _keep(self, node: str, name: str, array: NDArray[Any]) -> None:
        self.register_buffer(_buffer(node, name), torch.from_numpy(np.array(array)))

    def _kept(self, node: str, name: str) -> Tensor:
        return self.get_buffer(_buffer(node, name))


def _buffer(node: str, name: str) -> str:
    return f"{node}_{name}".replace(".", "_")


def _width(bits: int) -> int:
    """Bits in which a weight of ``bits`` is stored: as many as divide a byte."""
    return next(width for width in (1, 2, 4, 8) if width >= bits)


def _weight_level(node: WeightOnlyNode) -> Level:
    return Level(weight_bits=node.bits, activation_bits=FLOAT_BITS)


def _stored(integers: NDArray[np.int8], level: Level) -> NDArray[np.uint8]:
    """The codes of weights, the first in the lowest bits of a byte."""
    grid = grid_of(level.weight_format)
    codes = ((integers.astype(np.int16) + grid.offset) // grid.multiplier).astype(np.uint8)
    return packed_bits(codes, _width(level.weight_bits))


def _unpacked(stored: Tensor, shape: tuple[int, ...], level: Level) -> Tensor:
    """The integers of weights in fp32."""
    grid, width = grid_of(level.weight_format), _width(level.weight_bits)
    shifts = torch.arange(0, 8, width, dtype=torch.uint8)
    codes = (stored[:, None] >> shifts) & (2**width - 1)
    return codes.reshape(-1)[: int(np.prod(shape))].reshape(shape).float() * grid.multiplier - grid.offset


def _quantized(node: QuantizeNode, x: Tensor) -> Levels:
    """Codes, and the integers behind them. Channels are the second axis of images, the last of all else."""
    grids, found = channel_grids(node.quantizer), {}
    axis = 1 if x.ndim == 4 else -1
    for index, channels in level_channels(node.quantizer).items():
        grid = activation_grid(node.quantizer, index)
        scaled = x.index_select(axis, torch.from_numpy(channels)) * float(grids.inverse[channels[0]]) + grid.shift
        found[index] = scaled.round().clamp(grid.lo, grid.hi) * grid.multiplier - grid.offset
    return found


def _plain(node: NetworkNode, inputs: list[Tensor]) -> Tensor:
    if isinstance(node, PoolNode):
        return _max_pool(node, inputs[0]) if node.op == "max_pool2d" else _average_pool(node, inputs[0])
    if node.op == "flatten":
        return inputs[0].flatten(1)
    if isinstance(node, ClipNode):
        return inputs[0].clamp(0, node.most)
    return inputs[0] + inputs[1] if node.op == "add" else inputs[0].relu()


def _max_pool(node: PoolNode, x: Tensor) -> Tensor:
    pooled: Tensor = functional.max_pool2d(x, node.kernel, node.stride, node.padding)
    return pooled


def _average_pool(node: PoolNode, x: Tensor) -> Tensor:
    """Summed in row-major order, as deployed."""
    (height, width), (down, right) = node.shape[1:], node.stride
    taps = [
        x[:, :, row : row + (height - 1) * down + 1 : down, column : column + (width - 1) * right + 1 : right]
        for row, column in window_starts(node)
    ]
    total = taps[0]
    for tap in taps[1:]:
        total = total + tap
    return total * float(np.float32(1 / len(taps)))
