"""Cache traffic of a loop nest worked by hand on a machine of round numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from soniq_dse.cost.memory import Hierarchy, Nest
from soniq_dse.hardware.load import load_hardware

# 1 KB, 100 KB, then memory; 32 and 4 bytes a cycle beyond the first level.
NEST = Nest(rows=24, block_rows=12, tile_rows=6, panels=2, panel_bytes=3200, row_bytes=100, image_bytes=2000)


def round_machine() -> Hierarchy:
    hierarchy = Hierarchy(load_hardware("avx512"))
    hierarchy.capacity_bytes = [1000.0, 100_000.0, float("inf")]
    hierarchy.bytes_per_cycle = [64.0, 32.0, 4.0]
    hierarchy.bounds = ["l1", "l2", "dram"]
    return hierarchy


def test_by_hand() -> None:
    """Weights 6400 bytes. First block from memory: 6400 / 4 = 1600 cycles. Second block: they and the image (8400) are
    in the second level: 6400 / 32 = 200. Panels again for the 2 tiles of 4 that do not begin a block: a panel and six
    rows (3800) exceed the first level: 2 x 6400 / 32 = 400. The image of a block, min(2000, 12 x 100) = 1200, for the
    second panel of both blocks, from the second level: 2 x 1200 / 32 = 75.
    """
    traffic = round_machine().traffic(NEST, home=2)
    assert traffic.cycles == pytest.approx(1600 + 200 + 400 + 75)
    assert traffic.bound == "dram"


def test_transfers_hide_behind_what_is_computed_meanwhile() -> None:
    """The first block's weights (1600 cycles) behind half of the work, all else (675) behind the other half."""
    traffic = round_machine().traffic(NEST, home=2)
    assert traffic.waited(0) == pytest.approx(2275)
    assert traffic.waited(2000) == pytest.approx(1600 - 1000)
    assert traffic.waited(1000) == pytest.approx((1600 - 500) + (675 - 500))
    assert traffic.waited(4000) == 0.0


def test_a_window_of_columns_repeats_the_walk() -> None:
    hierarchy = round_machine()
    once, twice = hierarchy.traffic(NEST, home=2), hierarchy.traffic(replace(NEST, repeats=2), home=2)
    assert twice.cycles == pytest.approx(2 * once.cycles)
    assert twice.first_cycles == pytest.approx(2 * once.first_cycles)


def test_what_is_moved_comes_from_the_cache_that_holds_it() -> None:
    hierarchy = round_machine()
    hierarchy.own_bytes = 100_000.0
    assert hierarchy.cycles(64, working_set=1000, home=2) == 0.0
    assert hierarchy.cycles(64, working_set=100_000, home=2) == 2.0  # a cache of the core's own
    assert hierarchy.cycles(64, working_set=100_001, home=2) == 16.0


def test_others_take_their_part_of_a_shared_cache() -> None:
    hw = load_hardware("avx512")
    assert Hierarchy(hw).capacity_bytes[2] == 0.75 * hw.caches[2].size_bytes.value


def test_what_stays_near_costs_nothing() -> None:
    hierarchy = round_machine()
    hierarchy.capacity_bytes[0] = 1e6
    assert hierarchy.traffic(NEST, home=0).cycles == 0.0


def test_level_of_is_the_nearest_that_holds() -> None:
    hierarchy = round_machine()
    assert [hierarchy.level_of(size) for size in (1000, 1001, 100_001)] == [0, 1, 2]


def test_threads_share_the_memory_bandwidth() -> None:
    hw = load_hardware("neon")
    alone, many = Hierarchy(hw), Hierarchy(hw, threads=64)
    assert many.bytes_per_cycle[-1] < alone.bytes_per_cycle[-1]
    assert many.bytes_per_cycle[:-1] == alone.bytes_per_cycle[:-1]
