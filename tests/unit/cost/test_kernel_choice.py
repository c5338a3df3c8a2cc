"""The choice of a kernel: the cheapest of all for a shape; what was given is obeyed, and the next best is named."""

from __future__ import annotations

import functools

import pytest

from soniq_dse.cost.bounds import uniform_assignment
from soniq_dse.cost.choice import Chooser
from soniq_dse.cost.incore import InCore
from soniq_dse.cost.layers import LayerCoster, _padded_depth
from soniq_dse.cost.network import choose_kernels, estimate
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.choice import Choices, KernelChoice, KernelOption, PartShape
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Level
from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Node, Segment, TensorClass, Workload


@functools.cache
def machine(name: str) -> HardwareModel:
    return load_hardware(name)


def shape(level: str, rows: int, cols: int, channels: int, taps: int = 1, **more: bool) -> PartShape:
    return PartShape(
        level=Level.parse(level), signed=True, rows=rows, cols=cols, taps=taps, channels=channels, pixels=rows, **more
    )


def chosen(hw: str, asked: PartShape) -> KernelChoice:
    (choice,) = choose_kernels(machine(hw), [asked]).made
    return choice


@pytest.mark.parametrize("hw", ["avx512", "granite_rapids", "avx2"])
@pytest.mark.parametrize("level", ["w1a1", "w1a4", "w2a2", "w4a4", "w8a8"])
@pytest.mark.parametrize("size", [(196, 256, 128, 9), (1, 512, 512, 1), (1024, 16, 16, 9)])
def test_no_kernel_in_no_layout_is_priced_below_the_chosen_one(hw: str, level: str, size: tuple[int, ...]) -> None:
    asked = shape(level, *size)
    coster = LayerCoster(machine(hw), Chooser(machine(hw), InCore()))
    prices = sorted(
        coster._part(asked, kernel, folded, 0, asked.cols, 1).cycles
        for kernel in coster._chooser.kernels(asked.level)
        for folded in asked.layouts
        if _padded_depth(asked, kernel, folded=folded) <= kernel.k_max
    )
    choice = coster.choose(asked, 0)
    assert choice is not None
    per_us = machine(hw).clock_ghz.value * 1e3
    assert [option.latency_us * per_us for option in choice.options] == pytest.approx(prices[: len(choice.options)])


def test_counters_in_bit_slices_pay_from_some_depth_on() -> None:
    symbols = [chosen("granite_rapids", shape("w1a1", 256, 512, depth)).taken.symbol for depth in (80, 4608)]
    assert [symbol.endswith("_gfni") for symbol in symbols] == [False, True]


def test_narrow_layers_are_folded_where_padding_would_cost_more() -> None:
    assert chosen("avx512", shape("w1a1", 784, 512, 5, taps=9)).taken.folded
    assert not chosen("avx512", shape("w1a1", 784, 64, 64, taps=9)).taken.folded
    assert chosen("avx512", shape("w8a8", 784, 64, 64, taps=9, contiguous=False)).taken.folded


def test_what_was_given_is_obeyed_and_priced() -> None:
    layer = GemmLayer(name="fc", m=64, n=256, k=256)
    workload = Workload(
        name="toy",
        input_shape=(64, 256),
        nodes=(
            Node(name="x", op="input", inputs=(), shape=(64, 256)),
            Node(name="fc", op="linear", inputs=("x",), shape=(64, 256), layer=layer),
        ),
        tensor_classes=(TensorClass(name="x", tensors=("x",), channels=256, nonnegative=False, consumers=("fc",)),),
    )
    hw, assignment = machine("avx512"), uniform_assignment(workload, Level.parse("w1a1"))
    free = estimate(hw, workload, assignment, batch=64)
    (choice,) = free.per_layer[0].choices
    worst = choice.model_copy(update={"options": choice.options[::-1]})
    given = estimate(hw, workload, assignment, batch=64, choices=Choices(made=(worst,)))
    assert given.per_layer[0].kernels == (choice.options[-1].symbol,)
    assert given.latency_us > free.latency_us
    assert given.latency_us - free.latency_us == pytest.approx(choice.options[-1].latency_us - choice.taken.latency_us)


def test_the_reason_names_what_runs_and_the_second_best() -> None:
    asked = shape("w1a1", 8, 8, 4, taps=9)
    options = (
        KernelOption(symbol="fast", folded=True, latency_us=2.0),
        KernelOption(symbol="slow", folded=False, latency_us=3.0),
    )
    both = KernelChoice(shape=asked, source="measured", options=options)
    assert both.reason == "fast, taps folded into k: measured 2 us; second best slow: 3 us (+50%)"
    alone = KernelChoice(shape=asked, source="predicted", options=options[1:])
    assert alone.reason == "slow: predicted 3 us; nothing else serves w1a1 8x8x(9x4)"
    assert Choices(made=(both,)).of(asked) is both
    assert Choices().of(asked) is None


def test_a_depthwise_layer_is_one_part_whatever_its_levels() -> None:
    layer = Conv2dLayer(
        name="dw", in_channels=96, out_channels=96, height=14, width=14, kernel=(3, 3), padding=(1, 1), groups=96
    )
    segments = [Segment(weight_bits=bits, activation_bits=bits, channels=48) for bits in (1, 8)]
    coster = LayerCoster(machine("avx2"), Chooser(machine("avx2"), InCore()))
    (part,) = coster.parts(layer, segments, signed=True)
    assert (part.macs, part.padded_macs) == (
        layer.macs,
        layer.macs / 9 * 10,
    )  # three panels of 32 channels, five pairs of taps
    assert part.choice is None
    wider = layer.model_copy(update={"in_channels": 97, "out_channels": 97, "groups": 97})
    (padded,) = coster.parts(wider, segments, signed=True)
    assert padded.padded_macs * 3 == part.padded_macs * 4
    assert padded.cycles > part.cycles


def test_a_depthwise_layer_sums_four_taps_where_there_is_a_dot_product() -> None:
    layer = Conv2dLayer(
        name="dw", in_channels=96, out_channels=96, height=14, width=14, kernel=(3, 3), padding=(1, 1), groups=96
    )
    segments = [Segment(weight_bits=8, activation_bits=8, channels=96)]
    parts = [
        LayerCoster(machine(name), Chooser(machine(name), InCore())).parts(layer, segments, signed=True)
        for name in ("avx512", "skylake")
    ]
    (dots,), (pairs,) = parts
    assert (dots.padded_macs, pairs.padded_macs) == (layer.macs / 9 * 12, layer.macs / 9 * 10)
    assert dots.compute < pairs.compute
