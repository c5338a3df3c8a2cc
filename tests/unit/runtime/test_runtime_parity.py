"""The runtime equals the golden arithmetic bit for bit: every operator, every level, vector and scalar kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_factory import NetworkFactory

from soniq_dse.errors import UserError
from soniq_dse.formats.network import evaluate
from soniq_dse.hardware.host import detect_host
from soniq_dse.records.choice import Choices, KernelChoice, KernelOption
from soniq_dse.runtime.check import check
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.runtime.structs import Kind

FEATURES = {"host": None, "scalar": ()}
MIXES = ("w1a1", "w2a2", "w4a4", "w8a8", "w3a3", "w1a1+w4a4", "w1a2+w2a4+w8a8", "w1a1+w2a2+w4a4+w8a8")


def packed(factory: NetworkFactory, features: str = "host") -> PackedNetwork:
    return PackedNetwork(factory.network(), factory.arrays, FEATURES[features])


def assert_exact(factory: NetworkFactory, features: str = "host", samples: int = 3) -> PackedNetwork:
    network = packed(factory, features)
    x = np.random.default_rng(9).standard_normal((samples, *network.in_shape)).astype(np.float32)
    parity = check(network, x)
    assert parity.exact, parity
    assert parity.unequal_codes  # something was compared
    return network


def residual_network(palette: str, *, signed: bool, width: int = 24, size: int = 8) -> NetworkFactory:
    """A small residual network: 8-bit ends, a shared shortcut, a strided 1 x 1 branch, both kinds of pool."""
    net = NetworkFactory((3, size, size), palette)
    trunk = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), width, 3, padding=(1, 1)))
    inner = net.relu(net.conv(net.quantize(trunk, signed=signed), width, 3, padding=(1, 1)))
    trunk = net.relu(net.add(net.conv(net.quantize(inner, signed=signed), width, 3, padding=(1, 1)), trunk))
    codes = net.quantize(net.pool(trunk, "max_pool2d", 2), signed=signed)
    inner = net.relu(net.conv(codes, 2 * width, 3, stride=(2, 2), padding=(1, 1)))
    branch = net.conv(codes, 2 * width, 1, stride=(2, 2))
    joined = net.add(net.conv(net.quantize(inner, signed=signed), 2 * width, 3, padding=(1, 1)), branch)
    flat = net.flatten(net.pool(net.relu(joined), "avg_pool2d", size // 4))
    net.linear(net.quantize(flat, signed=signed, palette="w8a8"), 10)
    return net


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("palette", MIXES)
def test_residual_network(palette: str, signed: bool, features: str) -> None:
    assert_exact(residual_network(palette, signed=signed, width=24 if features == "host" else 8), features)


@pytest.mark.parametrize("features", [None, pytest.param(("avx2",), marks=pytest.mark.slow)], ids=["host", "avx2"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("palette", ["w1a1", "w8a8", "w2a2+w4a4"])
def test_layers_as_wide_as_the_vectors_of_the_epilogue(
    palette: str, signed: bool, features: tuple[str, ...] | None
) -> None:
    if features is not None and not set(features) <= set(detect_host().features):
        pytest.skip(f"this machine lacks {', '.join(features)}")
    for width in (16, 40):  # several rows at once, and whole vectors with a rest
        factory = residual_network(palette, signed=signed, width=width)
        network = PackedNetwork(factory.network(), factory.arrays, features)
        x = np.random.default_rng(9).standard_normal((2, *network.in_shape)).astype(np.float32)
        assert check(network, x).exact


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_convolution(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.integers(low, high)), data.draw(st.integers(low, high))

    kernel, size = data.draw(st.integers(1, 3)), pair(5, 9)
    groups = data.draw(st.sampled_from([1, 1, 2, 4]))
    window = {"stride": pair(1, 3), "padding": pair(0, 2), "dilation": pair(1, 2), "groups": groups}
    net = NetworkFactory((groups * data.draw(st.integers(1, 20)), *size), data.draw(st.sampled_from(MIXES)))
    net.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = net.quantize("x", signed=data.draw(st.booleans()))
    net.conv(codes, groups * data.draw(st.integers(1, 20)), kernel, **window)
    assert_exact(net, data.draw(st.sampled_from(list(FEATURES))))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_depthwise_convolution(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.integers(low, high)), data.draw(st.integers(low, high))

    channels, kernel = data.draw(st.integers(2, 70)), data.draw(st.integers(1, 4))
    window = {"stride": pair(1, 3), "padding": pair(0, 3), "dilation": pair(1, 2), "groups": channels}
    net = NetworkFactory((channels, *pair(7, 11)), data.draw(st.sampled_from(["w8a8", "w8a8", *MIXES])))
    net.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = net.quantize("x", signed=data.draw(st.booleans()))
    inner = net.relu(net.conv(codes, channels * data.draw(st.integers(1, 2)), kernel, **window))
    net.conv(net.quantize(inner, signed=False), 3, 1)
    assert_exact(net, data.draw(st.sampled_from(list(FEATURES))))


def test_depthwise_layers_are_one_part_of_their_own_kernel() -> None:
    net = NetworkFactory((300, 9, 9), "w8a8")
    inner = net.relu(net.conv(net.quantize("x", signed=False), 300, 3, padding=(1, 1), groups=300))
    net.conv(net.quantize(inner, signed=False), 3, 1)
    network = assert_exact(net)
    layer = network.executor(3).plan.layers[0]
    assert layer.kernels == ("soniq_depthwise",)
    assert layer.macs == layer.padded_macs


@pytest.mark.parametrize("palette", ["w8a8", "w4a4"])
def test_narrow_groups_are_merged_where_weights_have_a_zero(palette: str) -> None:
    net = NetworkFactory((24, 6, 6), palette)
    net.conv(net.quantize("x", signed=True), 32, 3, padding=(1, 1), groups=8)
    executor = assert_exact(net).executor(1)
    arguments = dict(zip((step.kind for step in executor.plan.steps), executor._arguments, strict=True))
    assert arguments[Kind.LAYER].n_parts == (2 if palette == "w8a8" else 8)  # of 4 groups with 4 output channels each


@pytest.mark.parametrize("features", FEATURES)
def test_depthwise_convolution_of_mixed_levels(features: str) -> None:
    net = NetworkFactory((12, 6, 6), "w1a1+w4a4")
    inner = net.relu(net.conv(net.quantize("x", signed=True), 12, 3, padding=(1, 1), groups=12))
    net.conv(net.quantize(inner, signed=False), 5, 1)
    assert_exact(net, features)


def test_linear_layers_of_one_row() -> None:
    net = NetworkFactory((100,), "w1a1+w2a2")
    hidden = net.relu(net.linear(net.quantize("x", signed=True), 70))
    net.linear(net.quantize(hidden, signed=False), 10)
    assert_exact(net, samples=1)


def test_flatten_of_an_image_in_two_orders() -> None:
    # Mixed channels go into a linear layer whose own levels are mixed per feature: the quantizer must gather.
    net = NetworkFactory((3, 6, 6), "w1a1+w4a4")
    image = net.relu(net.conv(net.quantize("x", signed=True), 10, 3))
    net.linear(net.quantize(net.flatten(image), signed=False), 7)
    assert_exact(net)


def test_one_tensor_read_by_everything() -> None:
    # Two quantizers of different levels, an add and an average pool read the same tensor.
    net = NetworkFactory((4, 6, 6), "w1a1+w4a4")
    trunk = net.conv(net.quantize("x", signed=True), 8, 3, padding=(1, 1))
    one = net.conv(net.quantize(trunk, signed=True), 8, 3, padding=(1, 1))
    two = net.conv(net.quantize(trunk, signed=True, palette="w2a2+w8a8"), 8, 1)
    joined = net.add(net.add(one, two), trunk)
    pooled = net.flatten(net.pool(net.relu(joined), "avg_pool2d", 6))
    net.linear(net.quantize(pooled, signed=False, palette="w8a8"), 3)
    assert_exact(net)


def test_relu_before_and_after_the_shortcut() -> None:
    net = NetworkFactory((6, 5, 5), "w2a2")
    trunk = net.relu(net.conv(net.quantize("x", signed=True), 6, 1))
    inner = net.relu(net.conv(net.quantize(trunk, signed=False), 6, 3, padding=(1, 1)))
    net.conv(net.quantize(net.relu(net.add(trunk, inner)), signed=False), 4, 1)
    assert_exact(net)


def test_pool_of_codes_and_overlapping_pool() -> None:
    net = NetworkFactory((6, 9, 9), "w1a1+w4a4")
    codes = net.pool(net.quantize("x", signed=True), "max_pool2d", 3, 2)
    inner = net.pool(net.relu(net.conv(codes, 8, 1)), "max_pool2d", 2)
    net.conv(net.quantize(inner, signed=False), 4, 1)
    assert_exact(net)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 1, 1), (5, 3, 2)])
def test_padded_pools_of_values_and_of_codes(kernel: int, stride: int, padding: int) -> None:
    net = NetworkFactory((6, 9, 7), "w1a1+w4a4")
    codes = net.pool(net.quantize("x", signed=True), "max_pool2d", kernel, stride, padding)
    inner = net.pool(net.conv(codes, 8, 1), "max_pool2d", kernel, stride, padding)
    trunk = net.relu(net.add(inner, inner))
    net.conv(net.quantize(trunk, signed=False), 4, 1)
    assert_exact(net)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(most=st.floats(2**-6, 8, width=32), palette=st.sampled_from(["w8a8", "w2a2+w4a4", "w1a1+w3a3+w8a8"]))
def test_a_clip_is_left_to_codes(most: float, palette: str) -> None:
    """Straight and behind a max pool, in order and gathered, whatever codes its bound falls between."""
    net = NetworkFactory((6, 9, 9), palette)
    trunk = net.clip(net.conv(net.quantize("x", signed=True), 8, 3), most)
    one = net.clip(net.conv(net.quantize(trunk, signed=False), 8, 3, padding=(1, 1), groups=8), most)
    two = net.conv(net.quantize(trunk, signed=True, palette="w4a4+w2a2"), 8, 1)
    pooled = net.pool(net.clip(net.add(two, net.conv(net.quantize(one, signed=False), 8, 1)), most), "max_pool2d", 2)
    net.linear(net.quantize(net.flatten(net.conv(net.quantize(pooled, signed=False), 4, 1)), signed=True), 3)
    network = assert_exact(net)
    assert "CLIP" not in {step.kind.name for step in network.executor(1).plan.steps}


def test_a_clip_that_other_operators_read_is_a_step() -> None:
    net = NetworkFactory((6, 8, 8), "w2a2+w4a4")
    one = net.clip(net.conv(net.quantize("x", signed=True), 8, 1), 0.5)
    two = net.clip(net.add(one, net.conv(net.quantize(one, signed=False), 8, 1)), 0.75)
    net.clip(net.linear(net.quantize(net.flatten(net.pool(two, "avg_pool2d", 8)), signed=False), 3), 0.125)
    kinds = [step.kind.name for step in assert_exact(net).executor(1).plan.steps]
    assert kinds.count("CLIP") == 3


def test_operators_on_the_input_itself() -> None:
    net = NetworkFactory((5, 6, 6), "w2a2+w8a8")
    pooled = net.pool(net.relu("x"), "avg_pool2d", 2)
    codes = net.quantize(net.add(pooled, pooled), signed=False)
    net.linear(net.quantize(net.flatten(net.conv(codes, 4, 2)), signed=True), 3)
    assert_exact(net)


@pytest.mark.parametrize("channels", [1, 3, 16, 20, 40])
@pytest.mark.parametrize("palette", ["w8a8", "w1a1+w4a4"])
def test_images_of_any_depth_come_in_and_go_out(channels: int, palette: str) -> None:
    # Channels first outside, last inside: whole vectors of 16 channels and 16 pixels, and what is left of both.
    net = NetworkFactory((channels, 7, 23), palette)
    net.conv(net.quantize("x", signed=True), channels, 1)
    network = assert_exact(net)
    assert check(network, np.full((2, *network.in_shape), 0.7, np.float32), threads=3).exact


def test_output_that_is_an_image() -> None:
    net = NetworkFactory((3, 5, 4), "w4a4")
    net.relu(net.conv(net.quantize("x", signed=True), 7, 3, padding=(1, 1)))
    network = assert_exact(net)
    assert network.out_shape == (7, 5, 4)


def test_extreme_inputs_saturate_as_the_golden_arithmetic_says() -> None:
    net = residual_network("w1a1+w4a4", signed=False, width=8)
    network = packed(net)
    x = np.full((2, *network.in_shape), 1e36, np.float32)
    x[1] *= -1
    assert np.array_equal(network.run(x), evaluate(network.network, network.arrays, x))


def test_batches_and_rests_give_the_same_numbers() -> None:
    net = residual_network("w1a1+w2a2", signed=False, width=8)
    network = packed(net)
    x = np.random.default_rng(1).standard_normal((37, *network.in_shape)).astype(np.float32)
    whole = network.run(x)
    assert np.array_equal(whole, network.run(x, batch=5))
    assert np.array_equal(whole, network.run(x, batch=1))


def test_layers_write_codes_and_absorb_what_follows() -> None:
    network = packed(residual_network("w1a1", signed=False, width=8))
    kinds = [step.kind.name for step in network.executor(1).plan.steps if step.kind.name != "PACK"]
    # The pool between the blocks is of codes; every relu, add and inner quantize is part of a layer.
    assert kinds == [
        "QUANTIZE", "LAYER", "LAYER", "LAYER", "MAX_POOL_CODES", "LAYER", "LAYER", "LAYER", "AVERAGE_POOL", "QUANTIZE",
        "LAYER",
    ]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 3, 0), (3, 2, 1), (5, 3, 2), (2, 1, 1)])
def test_layers_pool_their_own_sums(kernel: int, stride: int, padding: int, features: str, threads: int) -> None:
    """A stem of whose values nothing but a pool is left, scales below zero too; windows of 2 leave a column over."""
    net = NetworkFactory((3, 6, 11), "w1a1+w4a4")
    stem = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), 24, 3, padding=(1, 1)))
    trunk = net.pool(stem, "max_pool2d", kernel, stride, padding)
    branch = net.conv(net.quantize(trunk, signed=False), 24, 3, padding=(1, 1))
    net.conv(net.quantize(net.add(branch, trunk), signed=True), 5, 1)
    network = assert_exact(net, features)
    kinds = {step.kind for step in network.plan(1).steps}
    assert bool(kinds & {Kind.MAX_POOL, Kind.MAX_POOL_CODES}) == (stride == 1)
    x = np.random.default_rng(4).standard_normal((7, *network.in_shape)).astype(np.float32)
    assert np.array_equal(network.run(x, batch=7, threads=threads), network.run(x, batch=1))


@pytest.mark.parametrize("palette", ["w1a1", "w2a2+w8a8"])
def test_wide_layers_go_on_by_columns(palette: str) -> None:
    """More output channels than are done at once, for more rows than a block has."""
    net = NetworkFactory((32, 5, 5), palette)
    wide = net.relu(net.conv(net.quantize("x", signed=True), 1100, 1))
    net.conv(net.quantize(wide, signed=False), 8, 1)
    network = assert_exact(net)
    x = np.random.default_rng(1).standard_normal((3, *network.in_shape)).astype(np.float32)
    assert np.array_equal(network.executor(3, threads=2).run(x), network.executor(3).run(x))


def test_scalar_network_needs_no_vector_features() -> None:
    network = packed(residual_network("w1a1", signed=False, width=8), "scalar")
    assert network.executor(1).flags == ()
    assert all("scalar" in name for layer in network.executor(1).plan.layers for name in layer.kernels)


@pytest.mark.skipif("avx512vpopcntdq" not in detect_host().features, reason="this machine lacks avx512vpopcntdq")
def test_vector_network_uses_vector_kernels() -> None:
    layers = packed(residual_network("w1a1", signed=False)).executor(1).plan.layers
    assert "avx512vpopcntdq_popcount" in layers[1].kernels[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :2], r"expected \[n, 3, 8, 8\]"),
        (lambda x: x[:0], "n >= 1"),
        (lambda x: x * np.float32(np.nan), "finite"),
        (lambda x: x.reshape(-1), r"expected \[n, 3, 8, 8\]"),
    ],
)
def test_wrong_inputs_are_refused(spoil: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    network = packed(residual_network("w1a1", signed=False, width=8))
    x = np.ones((2, *network.in_shape), np.float32)
    with pytest.raises(UserError, match=message):
        network.run(spoil(x))


def test_weight_only_levels_are_refused_in_words() -> None:
    net = NetworkFactory((8,), "w2a2")
    net.linear(net.quantize("x", signed=True, palette="w4"), 3)
    with pytest.raises(UserError, match=r"float|weight-only"):
        packed(net).run(np.ones((1, 8), np.float32))


@pytest.mark.parametrize("folded", [False, True])
def test_the_chosen_kernel_and_layout_run_with_the_same_result(folded: bool) -> None:
    free = packed(residual_network("w2a2", signed=True, width=8), "scalar")
    symbol = "gemm_u8_s8_s32_1x1x8__scalar_direct"  # no ranking prefers it for 2 bits
    option = KernelOption(symbol=symbol, folded=folded, latency_us=1)
    shapes = [shape for shape in free.shapes(1) if shape.taps > 1]
    made = tuple(KernelChoice(shape=shape, source="measured", options=(option,)) for shape in shapes)
    given = free.with_choices(Choices(made=made))
    x = np.random.default_rng(3).standard_normal((1, *free.in_shape)).astype(np.float32)
    np.testing.assert_array_equal(given.run(x, batch=1), free.run(x, batch=1))
    chosen = [layer for layer in given.executor(1).plan.layers if symbol in layer.kernels and layer.folded == folded]
    assert len(chosen) >= len(set(shapes)) > 0


@pytest.mark.parametrize("signed", [False, True])
def test_pixels_of_bits_are_padded_to_whole_bytes(signed: bool) -> None:
    """38 channels: three pixels of 5 bytes are one k of 4 words, where each by itself has two."""
    if not {"avx512_vpopcntdq", "avx512vpopcntdq"} & set(detect_host().features):
        pytest.skip("this processor lacks avx512_vpopcntdq")
    net = NetworkFactory((38, 9, 7), "w1a1")
    inner = net.conv(net.quantize("x", signed=signed), 38, 3, padding=(1, 1))
    net.conv(net.quantize(inner, signed=signed), 20, 3, stride=(2, 2))
    option = KernelOption(symbol="gemm_z1_z1_s32_6x64x32__avx512vpopcntdq_popcount", folded=False, latency_us=1)
    network = packed(net)
    shapes = [shape for shape, _ in network.windows(1)]
    made = tuple(KernelChoice(shape=shape, source="predicted", options=(option,)) for shape in shapes)
    network = network.with_choices(Choices(made=made))
    assert check(network, np.random.default_rng(3).standard_normal((3, *network.in_shape)).astype(np.float32)).exact


@pytest.mark.parametrize("channels", [12, 10])
def test_plain_codes_are_read_where_they_lie(channels: int) -> None:
    """1x1 convolutions and linear layers on byte dot products pack nothing; what pads their k meets weights of 0."""
    if not {"avx512_vnni", "avx512vnni"} & set(detect_host().features):
        pytest.skip("this processor lacks avx512_vnni")
    net = NetworkFactory((channels, 6, 5), "w8a8")
    inner = net.relu(net.conv(net.quantize("x", signed=True), channels, 1))
    flat = net.flatten(net.pool(net.relu(net.conv(net.quantize(inner, signed=False), 20, 1)), "avg_pool2d", 5))
    net.linear(net.quantize(flat, signed=False), 7)
    option = KernelOption(symbol="gemm_u8_s8_s32_12x16x4__avx512vnni_dot", folded=False, latency_us=1)
    network = assert_exact(net)
    shapes = [shape for shape, _ in network.windows(1)]
    made = tuple(KernelChoice(shape=shape, source="predicted", options=(option,)) for shape in shapes)
    network = network.with_choices(Choices(made=made))
    assert check(network, np.random.default_rng(3).standard_normal((3, *network.in_shape)).astype(np.float32)).exact
    assert not [step for step in network.plan(1).steps if step.kind is Kind.PACK]
