"""What the cache levels must deliver for the loop nest of the layer driver, as bytes over bandwidths.

Loop nest (``kernels/cpu/layer.cpp``): blocks of rows; panels of output channels; tiles of rows; taps and k. A panel of
weights is read once per tile of rows: from the level that still holds it since the tile before. Between blocks all
weights of the layer pass; before the first block, all data of the network. A level holds what fits its whole capacity
(no conflicts); the nearest level costs nothing here, its loads are in the port bound.
"""

from __future__ import annotations

from dataclasses import dataclass

from soniq_dse.records.cost import Bound
from soniq_dse.records.hardware import HardwareModel

_BOUNDS: dict[str, Bound] = {"L1": "l1", "L2": "l2", "L3": "l3", "L4": "l3"}


@dataclass(frozen=True)
class Nest:
    """Sizes of one part's loop nest; bytes as packed, rows of k include all taps. ``output_bytes`` are those of sums
    that leave the nearest cache (the layer driver's block does not). ``repeats``: so often, over other weights each."""

    rows: int
    block_rows: int
    tile_rows: int
    panels: int
    panel_bytes: float
    row_bytes: float
    image_bytes: float
    output_bytes: float = 0.0
    repeats: int = 1

    @property
    def weight_bytes(self) -> float:
        """All packed weights of the part."""
        return self.panels * self.panel_bytes


@dataclass(frozen=True)
class Traffic:
    """Cycles to move data from beyond the nearest cache, the level that takes most of them, and bytes by level.

    ``first_cycles`` of them bring the weights for the first ``first_share`` of the work.
    """

    cycles: float
    bound: Bound
    bytes_by_level: tuple[float, ...]
    first_cycles: float = 0.0
    first_share: float = 1.0

    def waited(self, compute: float) -> float:
        """Cycles by which transfers outlast the ``compute`` that goes on meanwhile: that of the first block, and that
        of the others."""
        first = max(0.0, self.first_cycles - self.first_share * compute)
        return first + max(0.0, self.cycles - self.first_cycles - (1 - self.first_share) * compute)


class Hierarchy:
    """Capacities and bandwidths of a machine, nearest level first, main memory last; ``own_bytes``: the outermost cache
    that a core has to itself."""

    def __init__(self, hw: HardwareModel, threads: int = 1) -> None:
        shares = [cache.usable_share.value if cache.usable_share else 1.0 for cache in hw.caches]
        sizes = [cache.size_bytes.value * share for cache, share in zip(hw.caches, shares, strict=True)]
        self.capacity_bytes = [*sizes, float("inf")]
        self.bounds: list[Bound] = [_BOUNDS[cache.name] for cache in hw.caches]
        self.bounds.append("dram")
        own = [cache.size_bytes.value for cache in hw.caches if cache.shared_by_cores == 1]
        self.own_bytes = max(own, default=0.0)
        one, together = hw.memory.read_gb_per_s_one_core.value, hw.memory.read_gb_per_s_all_cores
        gb_per_s = one if together is None else min(one, together.value / threads)
        self.bytes_per_cycle = [cache.read_bytes_per_cycle.value for cache in hw.caches]
        self.bytes_per_cycle.append(gb_per_s / hw.clock_ghz.value)

    def level_of(self, size_bytes: float) -> int:
        """The nearest level that holds ``size_bytes``."""
        return next(i for i, capacity in enumerate(self.capacity_bytes) if size_bytes <= capacity)

    def cycles(self, size_bytes: float, working_set: float, home: int = 0) -> float:
        """Cycles to move ``size_bytes`` of a ``working_set``: none where the nearest cache holds it; what exceeds the
        caches of the core comes from ``home``, if that is farther."""
        level = self.level_of(working_set)
        if working_set > self.own_bytes:
            level = max(level, home)
        return size_bytes / self.bytes_per_cycle[level] if level else 0.0

    def traffic(self, nest: Nest, home: int) -> Traffic:
        """Cycles that the levels beyond the nearest one need for a part whose data start at level ``home``."""
        n_blocks = -(-nest.rows // nest.block_rows)
        n_tiles = -(-nest.rows // nest.tile_rows)
        all_bytes = nest.weight_bytes + nest.image_bytes
        by_level = [0.0] * len(self.capacity_bytes)
        by_level[self.level_of(all_bytes)] += (n_blocks - 1) * nest.weight_bytes
        in_tile = nest.panel_bytes + nest.tile_rows * nest.row_bytes
        by_level[self.level_of(in_tile)] += (n_tiles - n_blocks) * nest.weight_bytes
        block_image = min(nest.image_bytes, nest.block_rows * nest.row_bytes)
        by_level[self.level_of(block_image + nest.panel_bytes)] += (nest.panels - 1) * n_blocks * block_image
        if nest.output_bytes:  # a line that is written is read first, and written back
            by_level[self.level_of(all_bytes + nest.output_bytes)] += 2 * nest.output_bytes
        by_level[home] += nest.weight_bytes
        by_level = [nest.repeats * size for size in by_level]
        cycles = [size / rate for size, rate in zip(by_level, self.bytes_per_cycle, strict=True)]
        beyond = cycles[1:]
        if not beyond or max(beyond) <= 0:
            return Traffic(0.0, "l1", tuple(by_level))
        first = nest.repeats * nest.weight_bytes / self.bytes_per_cycle[home] if home else 0.0
        bound = self.bounds[1 + beyond.index(max(beyond))]
        return Traffic(sum(beyond), bound, tuple(by_level), first, min(1.0, nest.block_rows / nest.rows))
