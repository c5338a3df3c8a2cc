"""A mixed layer as plain operations: one ordinary convolution or product per level, all in integers.

Other programs know no segments. A level of a layer is cut where the groups of a convolution differ in how many of their
channels have that level: each such ``Block`` is one grouped convolution of gathered channels. Integers travel in fp32,
where every sum below 2**24 is exact in any order, so that the results are those of the golden arithmetic bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.formats import Grid, grid_of
from soniq_dse.formats.deployment import EXACT_FP32
from soniq_dse.formats.network import quantizer_of
from soniq_dse.records.network import Conv2dNode, IntegerNetwork, LinearNode, PoolNode, TensorQuantizer
from soniq_dse.records.palette import Level

Arrays = Mapping[str, NDArray[Any]]
Indices = NDArray[np.int64]
MatmulNode = Conv2dNode | LinearNode
OPERATORS = ("input", "quantize", "conv2d", "linear", "relu", "clip", "add", "max_pool2d", "avg_pool2d", "flatten")
TOKEN_OPERATORS = (
    "slice", "embedding", "add_constant", "prepend", "layer_norm", "gelu", "attention", "tokens", "token",
    "mean_tokens",
)  # fmt: skip
ROUNDED = ("layer_norm", "gelu", "attention", "mean_tokens", "weight_only")
"""What other programs compute by sums or functions of their own."""


@dataclass(frozen=True, eq=False)
class Block:
    """Groups that have equally many input channels of a level.

    ``channels``: the input channels among those of the level (``level_channels``), group by group. ``weight``: int8
    ``[len(rows), channels of a group, ...]``; ``rows``: the output channels that it adds to.
    """

    weight: NDArray[np.int8]
    channels: Indices
    rows: Indices
    groups: int


@dataclass(frozen=True, eq=False)
class LayerLevel:
    """What one level of a layer's input adds to its outputs; ``scale`` is fp32 ``[out_channels]``."""

    index: int
    level: Level
    blocks: tuple[Block, ...]
    scale: NDArray[np.float32]

    @property
    def source(self) -> Indices | None:
        """Position of every output channel among the blocks' rows, one past the end for those of none; None: as they
        are."""
        rows = np.concatenate([block.rows for block in self.blocks])
        positions = np.full(len(self.scale), len(rows))
        positions[rows] = np.arange(len(rows))
        return None if np.array_equal(positions, np.arange(len(rows))) else positions


def expect_plain(network: IntegerNetwork, known: tuple[str, ...] = OPERATORS, form: str = "this format") -> None:
    """Raises UserError where a node is of a kind that ``form`` does not have."""
    for node in network.nodes:
        if node.op not in known:
            raise UserError(
                f"node {node.name}: expected an operator that {form} has ({', '.join(known)}), got {node.op}; "
                ".soniq and .zip have all"
            )


def summed_otherwise(network: IntegerNetwork) -> tuple[str, ...]:
    """A line for the reader of a file of which other programs round some operators otherwise, where there are any."""
    rounded = sorted({node.op for node in network.nodes if node.op in ROUNDED})
    found = f"{', '.join(rounded)}: computed in another order, so that codes may differ by a rounding"
    return (found,) if rounded else ()


def level_channels(quantizer: TensorQuantizer) -> dict[int, Indices]:
    """Index in the palette -> channels, ascending, of each level that is present."""
    level = np.asarray(quantizer.level_of_channel)
    return {int(index): np.flatnonzero(level == index) for index in np.unique(level)}


def activation_grid(quantizer: TensorQuantizer, index: int) -> Grid:
    """What the codes of a level mean."""
    return grid_of(quantizer.palette.levels[index].activation_format(signed=quantizer.signed))


def layer_levels(network: IntegerNetwork, node: MatmulNode, arrays: Arrays) -> Iterator[LayerLevel]:
    """The levels of a layer in palette order, the order in which their products are added."""
    quantizer = quantizer_of(network, node.inputs[0])
    weight, scale = arrays[node.weight.sha256], arrays[node.scale.sha256]
    groups = node.groups if isinstance(node, Conv2dNode) else 1
    for index, channels in level_channels(quantizer).items():
        blocks = tuple(_blocks(weight, channels, groups))
        yield LayerLevel(index, quantizer.palette.levels[index], blocks, scale[index])


def inexact_layers(network: IntegerNetwork, arrays: Arrays) -> tuple[str, ...]:
    """Layers whose sums could reach 2**24, where fp32 may round them."""

    def largest_sum(node: MatmulNode, part: LayerLevel) -> int:
        weights = [np.abs(block.weight.astype(np.int64)).reshape(len(block.rows), -1) for block in part.blocks]
        grid = activation_grid(quantizer_of(network, node.inputs[0]), part.index)
        return max(int(weight.sum(axis=1).max()) for weight in weights) * grid.magnitude

    layers = [node for node in network.nodes if isinstance(node, Conv2dNode | LinearNode)]
    sums = {node.name: max(largest_sum(node, part) for part in layer_levels(network, node, arrays)) for node in layers}
    return tuple(name for name, largest in sums.items() if largest >= EXACT_FP32)


def window_starts(node: PoolNode) -> list[tuple[int, int]]:
    """(row, column) of every element of a pool's window in row-major order, in which averages are summed."""
    return [(row, column) for row in range(node.kernel[0]) for column in range(node.kernel[1])]


def packed_bits(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The low ``bits`` of each code in a stream of bytes, the first code in the lowest bits."""
    each = np.unpackbits(codes.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(each.reshape(-1), bitorder="little")


def _blocks(weight: NDArray[np.int8], channels: Indices, groups: int) -> Iterator[Block]:
    out_group, in_group = weight.shape[0] // groups, weight.shape[1]
    counts = np.bincount(channels // in_group, minlength=groups)
    for count in np.unique(counts[counts > 0]):
        chosen = np.flatnonzero(counts == count)
        inside = [np.flatnonzero(channels // in_group == group) for group in chosen]
        rows = [np.arange(group * out_group, (group + 1) * out_group) for group in chosen]
        parts = [
            weight[of_group][:, channels[positions] % in_group]
            for of_group, positions in zip(rows, inside, strict=True)
        ]
        yield Block(np.concatenate(parts), np.concatenate(inside), np.concatenate(rows), len(chosen))
