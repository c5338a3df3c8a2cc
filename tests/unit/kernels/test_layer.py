"""Geometry of the implicit GEMM and the corrections from raw to asked sums, worked by hand and by brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from soniq_dse.errors import UserError
from soniq_dse.formats import grid_of
from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels import reference
from soniq_dse.kernels.catalog import MASKED_ENDS, catalog, kernel, missing_features, token_bits
from soniq_dse.kernels.layer import InputSegment, LayerWeights, Part, corrections, part_shapes, plan_parts
from soniq_dse.kernels.library import Kernel, load_kernel
from soniq_dse.kernels.measure import random_weights
from soniq_dse.kernels.strips import Geometry, Strips, bordered, granule, packed_bytes
from soniq_dse.kernels.walk import block_rows, shares, tile_layer
from soniq_dse.records.cost import KernelSpec
from soniq_dse.records.palette import Level


def scalar(act: str, wgt: str) -> Kernel:
    return load_kernel(kernel(f"gemm_{act}_{wgt}_s32_1x1x8__scalar_direct"))


def test_reach_by_hand() -> None:
    # 5 pixels 0..4, windows of 3 pixels two apart from -1 on: -1 1 3 and 1 3 5. One pixel is read on either side.
    geometry = Geometry(1, 1, 5, kernel=(1, 3), stride=(1, 2), padding=(0, 1), dilation=(1, 2))
    assert geometry.out_size == (1, 2)
    assert geometry.reach == (1, 1)
    assert not geometry.has_runs
    assert Geometry(5).is_flat


def test_layers_share_strips_with_the_widest_border() -> None:
    wide, narrow = Geometry(1, 8, 8, (5, 5), padding=(2, 2)), Geometry(1, 8, 8, (1, 1), stride=(2, 2))
    strips = bordered(Strips(None, 0, 4), [wide, narrow])
    assert (strips.left, strips.right) == (2, 2)
    assert strips.size_bytes(wide) == (8 + 1) * 64  # 12 pixels of 4 bytes, to whole cache lines, and the strip of pads


@pytest.mark.parametrize("spec", [spec for spec in catalog() if spec.act != "f32"], ids=lambda spec: spec.symbol)
def test_whole_granules_pack_on_their_own(spec: KernelSpec) -> None:
    if missing_features(spec, detect_host().features):
        pytest.skip("this machine lacks a feature")
    kernel, rng = load_kernel(spec), np.random.default_rng(0)
    size = granule(kernel)
    if not size:
        pytest.skip("its packed rows cannot be joined")
    codes = rng.integers(0, 2 ** token_bits(spec.act), (7, 3 * size)).astype(np.uint8)
    each = packed_bytes(kernel, 3 * size)
    joined = kernel.pack_a(codes.reshape(1, -1))[0]
    np.testing.assert_array_equal(joined[: 7 * each], kernel.pack_a(codes)[:, :each].reshape(-1))


@pytest.mark.parametrize("spec", catalog(), ids=lambda spec: spec.symbol)
def test_panels_of_weights_lie_one_after_another(spec: KernelSpec) -> None:
    # What lets threads share the columns of a layer.
    if missing_features(spec, detect_host().features):
        pytest.skip("this machine lacks a feature")
    kernel, panel = load_kernel(spec), spec.tile[1]
    weights = random_weights(kernel, (3 * panel, 2, 37), np.random.default_rng(0))
    whole = kernel.pack_w(weights)
    tail = kernel.pack_w(np.ascontiguousarray(weights[panel:]))
    np.testing.assert_array_equal(whole[kernel.w_bytes(panel, 2, 37) :], tail)


@pytest.mark.parametrize("spec", [s for s in catalog() if s.algorithm in MASKED_ENDS], ids=lambda spec: spec.symbol)
def test_padding_may_count_as_elements(spec: KernelSpec) -> None:
    # What spares masks where nothing but padding follows the elements of a tap.
    if missing_features(spec, detect_host().features):
        pytest.skip("this machine lacks a feature")
    kernel, rng, k = load_kernel(spec), np.random.default_rng(0), spec.k_group + 5
    cols, padded = spec.tile[1] + 1, 2 * spec.k_group
    w = kernel.pack_w(random_weights(kernel, (cols, 2, k), rng))
    a = kernel.pack_a(rng.integers(0, 2 ** token_bits(spec.act), (14, k)).astype(np.uint8))
    gather = np.arange(14).reshape(2, 7)
    exact, counted = (kernel.run(a, w, cols=cols, taps=2, k=n, gather=gather) for n in (k, padded))
    np.testing.assert_array_equal(counted, exact)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("act", "wgt"), [("u", "s8"), ("u", "z4"), ("z", "z4"), ("z", "s8")])
def test_corrections_give_the_asked_sums(bits: int, signed: bool, act: str, wgt: str) -> None:
    kernel_bits = min(width for width in (1, 2, 4, 8) if width >= bits)
    if act == "z" and kernel_bits == 8:
        pytest.skip("no kernel computes 8-bit zero-free activations")
    base = scalar(f"u{kernel_bits}", wgt)
    spec = base.spec.model_copy(update={"act": f"{act}{kernel_bits}"})
    kernel_of_family = Kernel(spec, base._struct, base._library)
    rng = np.random.default_rng(bits)
    codes = rng.integers(1 if bits == 8 and signed else 0, 2**bits, (6, 13))
    weights = (2 * rng.integers(0, 16, (5, 13)) - 15).astype(np.int8)
    level = Level(weight_bits=4, activation_bits=bits)
    padded = 3
    left, right, offset = corrections(
        kernel_of_family, grid_of(level.activation_format(signed=signed)), weights[:, None], padded
    )
    raw = reference.raw_gemm(spec.act, codes, weights)
    if act == "z" and wgt != "s8":
        raw = raw + padded * (2**kernel_bits - 1) * 15
    wanted = reference.asked_values(codes, bits, signed=signed) @ weights.astype(np.int64).T
    np.testing.assert_array_equal(((raw << left) + offset) >> right, wanted)


def test_sums_that_could_overflow_are_refused() -> None:
    grid = grid_of(Level(weight_bits=8, activation_bits=8).activation_format(signed=False))
    weights = np.full((1, 1, 70_000), 127, np.int8)  # 255 * 127 * 70,000 > 2**31
    with pytest.raises(UserError, match=r"expected below 2\*\*31"):
        corrections(scalar("u8", "s8"), grid, weights, 0)


def layer_of(channels: int, kernel_size: int, groups: int = 1, order: np.ndarray | None = None) -> LayerWeights:
    in_group = channels // groups
    return LayerWeights(
        weight=np.ones((2 * groups, in_group, kernel_size, kernel_size), np.int8),
        in_order=np.arange(channels) if order is None else order,
        segments=(InputSegment(Level(weight_bits=1, activation_bits=1), 0, channels),),
        signed=False,
        groups=groups,
        scale=np.ones((1, 2 * groups), np.float32),
        bias=np.zeros(2 * groups, np.float32),
    )


def parts_of(act: str, wgt: str, channels: int, size: int, **window: Any) -> Part:
    geometry = Geometry(1, 8, 8, (size, size), **window)
    (part,) = plan_parts(layer_of(channels, size), geometry, lambda _: (scalar(act, wgt), None))
    return part


def test_runs_of_pixels_are_one_k() -> None:
    part = parts_of("u1", "z1", 8, 3)  # 3 rows of 24 elements, in groups of 8
    assert (part.folded, part.taps, part.k, part.taps_per_row, part.padded_k) == (False, 3, 24, 1, 72)
    part = parts_of("u8", "s8", 5, 3)  # what follows a run meets weights of zero
    assert (part.folded, part.taps, part.k, part.padded_k) == (False, 3, 15, 48)
    part = parts_of("u1", "z1", 8, 3, dilation=(1, 2))  # pixels apart
    assert (part.folded, part.taps, part.k, part.taps_per_row) == (False, 9, 8, 3)


def test_what_follows_a_run_may_be_masked() -> None:
    spec = kernel("gemm_z1_z1_s32_12x16x32__avx512vpopcntdq_popcount")
    if missing := missing_features(spec, detect_host().features):
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    masking = load_kernel(spec)
    for channels, laid_out in ((16, (3, 48, 192, 2)), (102, (3, 312, 960, 13))):  # 102: 13 bytes, where words are 16
        (part,) = plan_parts(layer_of(channels, 3), Geometry(1, 8, 8, (3, 3)), lambda _: (masking, False))
        assert not part.folded
        assert (part.taps, part.k, part.padded_k, part.strips.pixel_bytes) == laid_out
    (part,) = plan_parts(layer_of(51, 3), Geometry(1, 8, 8, (3, 3)), lambda _: (masking, False))  # no fewer words
    assert (part.taps, part.k, part.padded_k) == (9, 51, 576)


def test_narrow_layers_fold_taps_into_k() -> None:
    part = parts_of("u1", "z1", 3, 3)  # 27 in groups of 8, not 9 x 8
    assert (part.folded, part.taps, part.padded_k, part.run_codes) == (True, 1, 32, 9)
    assert not parts_of("u1", "z1", 3, 1).folded


def test_groups_whose_channels_are_scattered_are_gathered() -> None:
    order = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    layer = layer_of(8, 1, groups=2, order=order)
    parts = plan_parts(layer, Geometry(1, 4, 4), lambda _: (scalar("u1", "z1"), None))
    assert [part.strips.channels for part in parts] == [(0, 2, 4, 6), (1, 3, 5, 7)]
    assert [(part.first_column, part.folded) for part in parts] == [(0, True), (2, True)]


def test_shapes_are_those_of_the_parts() -> None:
    layer = layer_of(8, 3, groups=2, order=np.array([0, 1, 2, 3, 4, 6, 5, 7]))
    geometry = Geometry(2, 4, 4, (3, 3))
    shapes = part_shapes(layer, geometry)
    assert {(shape.name, shape.run, shape.pixels) for shape in shapes} == {("w1a1 8x2x(9x4)", 3, 32)}
    parts = plan_parts(layer, geometry, lambda _: (scalar("u1", "z1"), None))
    assert [shape.contiguous for shape in shapes] == [part.strips.channels is None for part in parts]
    assert part_shapes(layer, Geometry(2, 8, 8, (3, 3), dilation=(1, 2)))[0].run == 1


def test_a_layout_that_is_asked_for_is_taken() -> None:
    for folded, laid_out in ((True, (1, 72)), (False, (3, 24))):
        (part,) = plan_parts(layer_of(8, 3), Geometry(1, 8, 8, (3, 3)), lambda _, way=folded: (scalar("u1", "z1"), way))
        assert (part.folded, part.taps, part.k) == (folded, *laid_out)


def test_blocks_fill_the_tile() -> None:
    part = parts_of("u1", "z1", 16, 1)
    assert block_rows([part], 1024, 64) == 48  # 16 KiB / 256 B = 64, to a multiple of 24
    assert block_rows([part], 1024, 4096) == 12
    assert block_rows([part], 3, 64) == 3
    assert block_rows([part], 49, 4096) == 10  # 12 would leave one row
    assert block_rows([part], 51, 4096) == 12


def test_narrow_rows_go_through_the_epilogue_together() -> None:
    part, geometry = parts_of("u1", "z1", 16, 1), Geometry(1, 8, 8)
    assert tile_layer([part], geometry, part.cols).rows_at_once == 64  # 2 columns, to 128
    # Two threads share rows, which are done together as before; of one row, columns, which are not.
    assert tile_layer([part], geometry, part.cols, threads=2).rows_at_once == 64
    assert tile_layer([part], Geometry(1), part.cols, threads=2).rows_at_once == 1


@pytest.mark.parametrize(
    ("rows", "cols", "step", "threads", "expected"),
    [
        (1024, 16, 16, 2, (2, 1)),  # one panel: rows
        (1, 4096, 64, 2, (1, 2)),  # one row: columns
        (49, 512, 16, 2, (1, 2)),  # 5 tiles of rows halve worse than 32 panels
        (24, 128, 64, 4, (2, 2)),  # both
        (1, 10, 16, 8, (1, 1)),  # nothing to share
    ],
)
def test_shares_by_hand(rows: int, cols: int, step: int, threads: int, expected: tuple[int, int]) -> None:
    assert shares(rows, cols, step, threads) == expected


def test_packed_weights_are_of_the_length_that_the_kernel_reads() -> None:
    part = parts_of("u1", "z1", 16, 3)
    assert len(part.packed) == part.kernel.w_bytes(part.cols, part.taps, part.k)
