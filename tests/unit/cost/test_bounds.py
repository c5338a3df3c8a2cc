"""No assignment within the budget is faster than the lower or slower than the upper bound."""

from __future__ import annotations

import functools
import random

import pytest

from soniq_dse.cost.bounds import LatencyBounds, latency_bounds, uniform_assignment
from soniq_dse.cost.network import estimate
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.cost import CostTerm, Estimate, LayerEstimate
from soniq_dse.records.design import Assignment
from soniq_dse.records.palette import Level, Palette
from soniq_dse.records.workload import GemmLayer, Node, TensorClass, Workload

NARROW, WIDE = Level.parse("w1a1"), Level.parse("w4a4")


def two_layers() -> Workload:
    """Two linear layers of 100 and 300 weights, each with an input class of its own, and a ReLU that none decides."""
    nodes = (
        Node(name="x", op="input", inputs=(), shape=(1, 10)),
        Node(name="fc1", op="linear", inputs=("x",), shape=(1, 10), layer=GemmLayer(name="fc1", m=1, n=10, k=10)),
        Node(name="relu", op="relu", inputs=("fc1",), shape=(1, 10)),
        Node(name="fc2", op="linear", inputs=("relu",), shape=(1, 30), layer=GemmLayer(name="fc2", m=1, n=30, k=10)),
    )
    classes = (
        TensorClass(name="x", tensors=("x",), channels=10, nonnegative=True, consumers=("fc1",)),
        TensorClass(name="relu", tensors=("relu",), channels=10, nonnegative=True, consumers=("fc2",)),
    )
    return Workload(name="two", input_shape=(1, 10), nodes=nodes, tensor_classes=classes)


def uniform_at(fc1_us: float, fc2_us: float, relu_us: float, overhead_us: float = 0.0) -> Estimate:
    """An estimate at 1 cycle a microsecond."""
    layers = tuple(
        LayerEstimate(
            name=name, op="linear", cycles=us, latency_us=us, bound="port",
            terms=(CostTerm(name="overhead", cycles=overhead_us),),
        )
        for name, us in (("fc1", fc1_us), ("fc2", fc2_us), ("relu", relu_us))
    )  # fmt: skip
    total = fc1_us + fc2_us + relu_us
    return Estimate(
        hardware="m", hardware_sha256="0", cycles=total, latency_us=total, low_us=total, high_us=total, bound="port",
        batch=1, threads=1, per_layer=layers, model="hand", interval="none",
    )  # fmt: skip


def test_bounds_by_hand() -> None:
    # w1a1: fc1 1 us, fc2 3 us; w4a4: fc1 5 us, fc2 7 us; ReLU 1 us at either. 400 weights at 2 bits allow 800 bits: all
    # at 1 bit spend 400, so 400 / 3 = 133.3 weights may be lifted to 4 bits.
    # Fastest: none is lifted: 1 + 3 + 1 = 5. Slowest: fc1 costs 4 us / 100 weights to lift, fc2 4 us / 300. So all of
    # fc1 (4 us) and 33.3 weights of fc2 (4 * 33.3 / 300 = 0.444 us) are lifted: 5 + 4.444 = 9.444.
    uniform = {NARROW: uniform_at(1, 3, 1), WIDE: uniform_at(5, 7, 1)}
    palette = Palette(levels=(NARROW, WIDE))
    bounds = latency_bounds(two_layers(), uniform, palette, 2.0)
    assert (bounds.low_us, bounds.high_us) == (pytest.approx(5.0), pytest.approx(5 + 4 + 4 / 9))
    # Without a budget everything may be lifted: 5 + 7 + 1.
    assert latency_bounds(two_layers(), uniform, palette, None).high_us == pytest.approx(13.0)
    # Where the narrow level is the slow one, the budget forces at least 266.7 weights to stay narrow.
    swapped = {NARROW: uniform_at(5, 7, 1), WIDE: uniform_at(1, 3, 1)}
    bounds = latency_bounds(two_layers(), swapped, palette, 2.0)
    assert (bounds.low_us, bounds.high_us) == (pytest.approx(13 - 4 - 4 / 9), pytest.approx(13.0))


def test_fixed_costs_of_every_segment_raise_the_upper_bound() -> None:
    uniform = {NARROW: uniform_at(1, 3, 1, overhead_us=0.25), WIDE: uniform_at(5, 7, 1, overhead_us=0.5)}
    palette = Palette(levels=(NARROW, WIDE))
    assert latency_bounds(two_layers(), uniform, palette, None).high_us == pytest.approx(13 + 2 * 0.75)
    alone = latency_bounds(two_layers(), uniform, Palette(levels=(WIDE,)), None)
    assert alone == LatencyBounds(pytest.approx(13.0), pytest.approx(13.0))


def test_uniform_assignment_counts_pinned_classes_apart() -> None:
    workload = two_layers()
    pinned = workload.tensor_classes[0].model_copy(update={"pinned_bits": 8})
    found = uniform_assignment(
        workload.model_copy(update={"tensor_classes": (pinned, workload.tensor_classes[1])}), WIDE
    )
    assert found.palette_of("x").name == "w8a8"
    assert found.palette_of("relu").name == "w4a4"
    assert found.bits_per_weight == 4
    assert found.bits_per_weight_all == (100 * 8 + 300 * 4) / 400


@functools.cache
def digits() -> Workload:
    from soniq_dse.workloads import load_workload

    return load_workload("digits_cnn")


@pytest.mark.parametrize("machine", ["avx512", "avx2", "neon"])
@pytest.mark.parametrize(("name", "budget"), [("w1a1+w8a8", 3.0), ("w1a1+w2a2+w8a8", 2.5)])
def test_estimates_of_random_assignments_lie_within(machine: str, name: str, budget: float) -> None:
    hardware, workload, palette = load_hardware(machine), digits(), Palette.parse(name)
    uniform = {level: estimate(hardware, workload, uniform_assignment(workload, level)) for level in palette.levels}
    bounds = latency_bounds(workload, uniform, palette, budget)
    chance = random.Random(3)
    for _ in range(12):
        assignment = random_assignment(workload, palette, budget, chance)
        latency = estimate(hardware, workload, assignment).latency_us
        assert bounds.low_us <= latency <= bounds.high_us


def random_assignment(workload: Workload, palette: Palette, budget: float, chance: random.Random) -> Assignment:
    """Whole groups of 64 channels at random levels, lowered until the budget holds."""
    base = uniform_assignment(workload, palette.levels[0])
    free = [c for c in workload.tensor_classes if c.pinned_bits is None]
    weights = {c.name: sum(workload.node(n).layer.n_weights for n in c.consumers) for c in free}  # type: ignore[union-attr]
    groups = {c.name: [chance.randrange(len(palette.levels)) for _ in range(c.channels // 64)] for c in free}

    def bits() -> float:
        spent = sum(
            weights[name] * sum(palette.levels[j].weight_bits for j in chosen) / len(chosen)
            for name, chosen in groups.items()
        )
        return spent / sum(weights.values())

    while bits() > budget:
        name = chance.choice([name for name, chosen in groups.items() if any(chosen)])
        index = chance.choice([i for i, level in enumerate(groups[name]) if level])
        groups[name][index] -= 1
    levels = {name: tuple(level for level in chosen for _ in range(64)) for name, chosen in groups.items()}
    changes = {"palette": palette, "level_of_channel": {**base.level_of_channel, **levels}, "bits_per_weight": bits()}
    return base.model_copy(update=changes)
