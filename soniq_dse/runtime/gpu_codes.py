"""How the codes of a tensor lie on a GPU for the layers that read them: segments in mma order, a border pixel, sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.formats.deployment import ChannelGrids, channel_grids
from soniq_dse.kernels.gpu_catalog import part_for
from soniq_dse.kernels.gpu_device import GpuDevice
from soniq_dse.kernels.gpu_layer import CODES, MOST_SEGMENTS
from soniq_dse.kernels.gpu_pack import pack_activations, padded_steps
from soniq_dse.records.gpu import GpuKernel, GpuLayerKernel
from soniq_dse.records.network import TensorQuantizer

WARP = 32
"""Output channels to a multiple of which a segment is padded where a layer writes its codes."""
TILE = 64
"""Output channels of a block of the layer kernel."""


@dataclass(frozen=True)
class SegmentLayout:
    """Channels of one level: ``channels [groups, most of any group]``, -1 where a group has fewer. ``first`` is the
    place of the first among the outputs of a layer that writes them."""

    level: int
    part: GpuKernel
    channels: NDArray[np.int64]
    first: int

    @property
    def padded(self) -> int:
        """Places that it takes among outputs."""
        return -(-int(self.channels.shape[1]) // WARP) * WARP

    @property
    def steps(self) -> int:
        """Of the kernel, along the channels of a tap."""
        return padded_steps(self.part, self.channels.shape[1])

    @property
    def parts(self) -> int:
        """Blocks that write codes of it, each a part of the sums."""
        return (self.first + self.padded - 1) // TILE - self.first // TILE + 1


@dataclass(frozen=True)
class Layout:
    """All segments of a tensor whose readers have ``groups`` groups."""

    grids: ChannelGrids
    segments: tuple[SegmentLayout, ...]
    groups: int

    @property
    def places(self) -> NDArray[np.int64]:
        """Place among the outputs of a layer that writes the codes -> channel, -1: none."""
        return np.concatenate([
            np.pad(one.channels[0], (0, one.padded - one.channels.shape[1]), constant_values=-1)
            for one in self.segments
        ])  # fmt: skip


def layout_of(quantizer: TensorQuantizer, groups: int, kernel: GpuLayerKernel) -> Layout:
    """Segments in palette order, the channels of each in ascending order.

    Raises:
        UserError: more segments than the kernel takes, or a level without a kernel.
    """
    grids = channel_grids(quantizer)
    of_group = np.arange(len(grids.level)).reshape(groups, -1)
    found: list[SegmentLayout] = []
    for level in np.unique(grids.level):
        chosen = [channels[grids.level[channels] == level] for channels in of_group]
        most = max(map(len, chosen))
        channels = np.stack([np.pad(one, (0, most - len(one)), constant_values=-1) for one in chosen])
        part = part_for(kernel, quantizer.palette.levels[level])
        found.append(SegmentLayout(int(level), part, channels, found[-1].first + found[-1].padded if found else 0))
    if len(found) > MOST_SEGMENTS:
        raise UserError(f"segments: expected at most {MOST_SEGMENTS} levels in a tensor on a GPU, got {len(found)}")
    return Layout(grids, tuple(found), groups)


@dataclass(frozen=True)
class CodeBuffer:
    """The codes of ``pixels`` pixels on the device: addresses of the packed words and of the sums, by segment."""

    layout: Layout
    pixels: int
    packed: tuple[int, ...]
    row_sums: tuple[int, ...]
    parts: tuple[int, ...]
    """Of a row's sum, by segment: one, unless a layer writes the codes."""

    def table(self, device: GpuDevice | None = None, offsets: NDArray[np.int64] | None = None) -> NDArray[np.void]:
        """``Codes`` (``CODES``) of every segment; for a pass with ``offsets``, where in a pixel's floats each channel
        lies."""
        table = np.zeros(MOST_SEGMENTS, CODES)
        for row, one, packed, sums in zip(table, self.layout.segments, self.packed, self.row_sums, strict=False):
            planes = one.part.algorithm == "bmma"
            channel = int(one.channels.max())
            row["packed"], row["row_sums"] = packed, sums
            for name, values in zip(("inverse", "shift", "low", "high"), self.layout.grids[3:7], strict=True):
                row[name] = values[channel]
            row["first"], row["channels"] = one.first, one.channels.shape[1]
            row["bits"] = one.part.activation_bits if planes else 0
            row["steps"] = one.steps if planes else one.steps * one.part.k_group // 32
            row["group_words"] = self._words(one)
            if device is not None and offsets is not None:
                sources = np.where(one.channels < 0, -1, offsets[one.channels])
                row["sources"] = device.place(sources.astype(np.int32))
        return table

    def expected(self, codes: NDArray[np.uint8]) -> list[NDArray[np.uint32]]:
        """The packed words, by segment, of ``codes [pixels, channels]``."""
        return [
            np.concatenate([packed_rows(one, group, codes, self.layout.grids)[0] for group in one.channels])
            for one in self.layout.segments
        ]

    def read(self, device: GpuDevice) -> list[NDArray[np.uint32]]:
        """The packed words, by segment, as they are now."""
        return [
            device.read(address, (self.layout.groups * self._words(one),), "u4")
            for one, address in zip(self.layout.segments, self.packed, strict=True)
        ]

    def _words(self, one: SegmentLayout) -> int:
        return _group_words(one, self.pixels)


def new_buffer(layout: Layout, pixels: int, device: GpuDevice, *, written_by_layer: bool) -> CodeBuffer:
    """Room for the codes, with what never changes: padding, and the pixel that stands for all outside."""
    packed, sums, parts = [], [], []
    for one in layout.segments:
        n_parts = one.parts if written_by_layer else 1
        words = np.zeros((layout.groups, _group_words(one, pixels)), np.uint32)
        of_rows = np.zeros((layout.groups, n_parts, pixels + 1), np.int32)
        tail = np.zeros((pixels % 8, len(layout.grids.level)), np.uint8)  # of the tile that holds the border
        for group, channels in enumerate(one.channels):
            last, last_sums = packed_rows(one, channels, tail, layout.grids)
            words[group, words.shape[1] - len(last) :] = last
            of_rows[group, 0, -1] = last_sums[-1]
        packed.append(device.place(words))
        sums.append(device.place(of_rows))
        parts.append(n_parts)
    return CodeBuffer(layout, pixels, tuple(packed), tuple(sums), tuple(parts))


def packed_rows(
    one: SegmentLayout, channels: NDArray[np.int64], codes: NDArray[np.uint8], grids: ChannelGrids
) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """``codes [rows, channels of the tensor]`` and then the border, of one group's channels of a segment."""
    rows = np.concatenate((codes, grids.zero_code[None]))
    chosen = np.where(channels < 0, 0, rows[:, channels])
    return pack_activations(one.part, np.ascontiguousarray(chosen, np.uint8))


def _group_words(one: SegmentLayout, pixels: int) -> int:
    tiles = -(-(pixels + 1) // 8)
    return tiles * 8 * one.steps * one.part.k_group * one.part.activation_bits // 32
