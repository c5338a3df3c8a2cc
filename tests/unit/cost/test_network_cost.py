"""Whole networks: what is costed, what the estimate says about itself, and what follows from a changed descriptor."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from soniq_dse.cost.bounds import uniform_assignment
from soniq_dse.cost.intervals import TOLERANCE
from soniq_dse.cost.network import estimate, estimate_layer, level_costs
from soniq_dse.cost.operators import Operators
from soniq_dse.cost.vector_loops import VectorLoops
from soniq_dse.errors import UserError
from soniq_dse.hardware.levels import best_native_levels
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.cost import Estimate
from soniq_dse.records.design import Assignment
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Level, Palette
from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Node, Segment, TensorClass, Workload


@functools.cache
def machine(name: str) -> HardwareModel:
    return load_hardware(name)


def conv(name: str, channels: int, out: int) -> Conv2dLayer:
    return Conv2dLayer(
        name=name, in_channels=channels, out_channels=out, height=8, width=8, kernel=(3, 3), padding=(1, 1)
    )


def node(name: str, op: str, inputs: tuple[str, ...], shape: tuple[int, ...], **more: Any) -> Node:
    return Node(name=name, op=op, inputs=inputs, shape=shape, **more)


WORKLOAD = Workload(
    name="toy",
    input_shape=(1, 3, 8, 8),
    nodes=(
        node("x", "input", (), (1, 3, 8, 8)),
        node("first", "conv2d", ("x",), (1, 64, 8, 8), layer=conv("first", 3, 64)),
        node("relu1", "relu", ("first",), (1, 64, 8, 8)),
        node("second", "conv2d", ("relu1",), (1, 128, 8, 8), layer=conv("second", 64, 128)),
        node("norm", "batch_norm", ("second",), (1, 128, 8, 8)),
        node("relu2", "relu", ("norm",), (1, 128, 8, 8)),
        node("pool", "max_pool2d", ("relu2",), (1, 128, 4, 4), attributes={"kernel": [2, 2], "stride": [2, 2]}),
        node("soft", "softmax", ("pool",), (1, 128, 4, 4)),
        node("flat", "flatten", ("soft",), (1, 2048)),
        node("last", "linear", ("flat",), (1, 10), layer=GemmLayer(name="last", m=1, n=10, k=2048)),
    ),
    tensor_classes=(
        TensorClass(name="x", tensors=("x",), channels=3, nonnegative=False, consumers=("first",), pinned_bits=8),
        TensorClass(name="relu1", tensors=("first", "relu1"), channels=64, nonnegative=True, consumers=("second",)),
        TensorClass(name="flat", tensors=("flat",), channels=128, nonnegative=True, consumers=("last",), pinned_bits=8),
    ),
)


def at(level: str, **options: Any) -> Estimate:
    return estimate(machine("avx512"), WORKLOAD, uniform_assignment(WORKLOAD, Level.parse(level)), **options)


def layer_us(found: Estimate) -> dict[str, float]:
    return {layer.name: layer.latency_us for layer in found.per_layer}


def test_the_whole_is_the_sum_of_what_is_listed() -> None:
    found = at("w1a1")
    assert found.cycles == pytest.approx(sum(layer.cycles for layer in found.per_layer))
    for layer in found.per_layer:
        assert layer.cycles == pytest.approx(sum(term.cycles for term in layer.terms))
        assert layer.latency_us == pytest.approx(layer.cycles / machine("avx512").clock_ghz.value / 1000)
    # Relu and norm are part of an epilogue, input and flatten compute nothing; softmax stays and is not free.
    assert set(layer_us(found)) == {"first", "second", "pool", "soft", "last"}


def test_interval_follows_from_the_stated_tolerances() -> None:
    nowhere = machine("avx512").model_copy(update={"matches": ()})  # no measured layers speak for it
    found = estimate(nowhere, WORKLOAD, uniform_assignment(WORKLOAD, Level.parse("w4a4")))
    assert found.low_us < found.latency_us < found.high_us
    below = max(low for low, _ in TOLERANCE.values())
    above = max(high for _, high in TOLERANCE.values())
    assert found.low_us >= found.latency_us * (1 - below)
    assert found.high_us <= found.latency_us * (1 + above)
    assert "not calibrated" in found.interval


def test_narrow_levels_are_faster_and_only_where_they_are_assigned() -> None:
    narrow, wide = layer_us(at("w1a1")), layer_us(at("w8a8"))
    assert narrow["second"] < wide["second"]
    assert narrow["first"] == wide["first"]


def test_a_mix_lies_between_its_levels() -> None:
    palette = Palette.parse("w1a1+w8a8")
    uniform = uniform_assignment(WORKLOAD, Level.parse("w1a1"))
    mixed = uniform.model_copy(
        update={"palette": palette, "level_of_channel": uniform.level_of_channel | {"relu1": (0,) * 32 + (1,) * 32}}
    )
    second = layer_us(estimate(machine("avx512"), WORKLOAD, mixed))["second"]
    assert layer_us(at("w1a1"))["second"] < second
    compute = {
        name: next(
            t.cycles for layer in found.per_layer if layer.name == "second" for t in layer.terms if t.name == "compute"
        )
        for name, found in (("mix", estimate(machine("avx512"), WORKLOAD, mixed)), ("wide", at("w8a8")))
    }
    assert compute["mix"] < compute["wide"]


def test_groups_share_the_segments_of_a_layer() -> None:
    """A quarter of the channels in and out of each group, so a quarter of the products."""
    segments = (Segment(weight_bits=4, activation_bits=4, channels=64),)
    layers = [conv("layer", 64, 64).model_copy(update={"segments": segments, "groups": n}) for n in (1, 4)]
    whole, grouped = (estimate_layer(machine("avx512"), layer).per_layer[0] for layer in layers)
    assert grouped.macs == whole.macs / 4
    assert {term.name: term.cycles for term in grouped.terms}["compute"] < 0.6 * whole.terms[0].cycles


def test_fp32_is_written_where_something_but_a_layer_reads_it() -> None:
    operators = Operators(WORKLOAD, VectorLoops(machine("avx512")), 1.0, quantised=True)
    kept = {name: operators.written_bytes(WORKLOAD.node(name)) for name in ("first", "second", "last")}
    assert kept == {"first": 64 * 64, "second": 5 * 128 * 64, "last": 4 * 10}


def test_batch_scales_the_work_and_threads_share_it() -> None:
    one, eight = at("w4a4"), at("w4a4", batch=8)
    assert 4 < eight.latency_us / one.latency_us <= 8.5
    assert at("w4a4", batch=8, threads=4).latency_us < eight.latency_us / 2


def test_without_an_assignment_everything_is_fp32() -> None:
    found = estimate(machine("avx512"), WORKLOAD)
    assert {kernel for layer in found.per_layer for kernel in layer.kernels} == {"fp32"}
    assert found.latency_us > at("w8a8").latency_us


def test_what_if_follows_the_descriptor() -> None:
    hw = machine("avx512")
    faster = hw.model_copy(update={"clock_ghz": hw.clock_ghz.model_copy(update={"value": 2 * hw.clock_ghz.value})})
    before = estimate(hw, WORKLOAD, uniform_assignment(WORKLOAD, Level.parse("w2a2")))
    after = estimate(faster, WORKLOAD, uniform_assignment(WORKLOAD, Level.parse("w2a2")))
    assert after.latency_us < before.latency_us
    assert after.hardware_sha256 != before.hardware_sha256


def test_level_costs_speak_of_every_native_level_over_the_free_layers() -> None:
    hw = machine("avx512")
    costs = {cost.level: cost for cost in level_costs(hw, WORKLOAD)}
    assert set(costs) == set(best_native_levels(hw))
    assert costs[Level.parse("w1a1")].cycles < costs[Level.parse("w8a8")].cycles
    macs = 64 * 9 * 64 * 128  # the one layer whose input class is not pinned: 64 pixels x 9 taps x 64 x 128 channels
    for cost in costs.values():
        assert cost.cycles_per_mac == pytest.approx(cost.cycles / macs)
        assert cost.reason


@pytest.mark.parametrize(
    ("options", "got"), [({"batch": 0}, "0 and 1"), ({"threads": 0}, "1 and 0"), ({"threads": 97}, "97")]
)
def test_out_of_range(options: dict[str, int], got: str) -> None:
    with pytest.raises(UserError, match=got):
        estimate(machine("avx512"), WORKLOAD, **options)


def test_a_level_that_no_recipe_holds_is_named() -> None:
    hw = machine("neon")
    only_dot = hw.model_copy(update={"recipes": {"dot_w4a4": hw.recipes["dot_w4a4"]}})
    assignment: Assignment = uniform_assignment(WORKLOAD, Level.parse("w8a8"))
    with pytest.raises(UserError, match=r"level w8a8: expected one that neon computes"):
        estimate(only_dot, WORKLOAD, assignment)


@pytest.mark.parametrize(("others", "causal", "at_least", "at_most"), [(64, True, 0.4, 0.7), (128, False, 1.6, 2.0)])
def test_attention_costs_its_products(others: int, causal: bool, at_least: float, at_most: float) -> None:
    """Of 64 tokens to 64 others: about half as much where it is causal, not quite twice as much to twice as many."""

    def cost(others: int, causal: bool) -> float:
        attributes = {"heads": 4, "causal": causal, "scale": 1.0}
        nodes = (
            Node(name="x", op="input", inputs=(), shape=(1, 64, 128)),
            Node(name="y", op="layer_norm", inputs=("x",), shape=(1, others, 128)),
            Node(name="z", op="attention", inputs=("x", "y", "y"), shape=(1, 64, 128), attributes=attributes),
        )
        workload = Workload(name="w", input_shape=(1, 64, 128), nodes=nodes, tensor_classes=())
        found = estimate(load_hardware("avx512"), workload, model="incore")
        return next(part.latency_us for part in found.per_layer if part.name == "z")

    assert at_least < cost(others, causal) / cost(64, False) < at_most
