"""A budget in latency or energy as a table: exact at the narrowest level, and in words where it is out of reach."""

from __future__ import annotations

import itertools
import math

import pytest

from soniq_dse.cost.bounds import even_assignment, uniform_assignment
from soniq_dse.cost.channel_table import OutOfReachError, assignment_cost, channel_costs, cost_of
from soniq_dse.cost.network import estimate
from soniq_dse.errors import UserError
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.channel_costs import CostUnit
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import GemmLayer, Node, TensorClass, Workload

HW = load_hardware("avx512")
PALETTE = Palette.parse("w1a1+w2a2+w4a4")


def three_layers() -> Workload:
    """Linear layers of 64 rows; the input of the first one is pinned."""
    nodes = [Node(name="x", op="input", inputs=(), shape=(64, 128))]
    for index, (k, n) in enumerate(((128, 256), (256, 64), (64, 128))):
        layer = GemmLayer(name=f"fc{index}", m=64, n=n, k=k)
        nodes.append(Node(name=layer.name, op="linear", inputs=(nodes[-1].name,), shape=(64, n), layer=layer))
    classes = tuple(
        TensorClass(name=node.name, tensors=(node.name,), channels=node.shape[1], nonnegative=True,
                    consumers=(reader.name,), pinned_bits=8 if node.op == "input" else None)
        for node, reader in itertools.pairwise(nodes)
    )  # fmt: skip
    return Workload(name="three", input_shape=(64, 128), nodes=tuple(nodes), tensor_classes=classes)


def uniform_costs(unit: CostUnit) -> list[float]:
    workload = three_layers()
    return [cost_of(HW, estimate(HW, workload, uniform_assignment(workload, v)), unit) for v in PALETTE.levels]


@pytest.mark.parametrize("unit", ["latency_us", "energy_uj"])
def test_the_table_adds_up_to_the_network(unit: CostUnit) -> None:
    totals = uniform_costs(unit)
    found = channel_costs(HW, three_layers(), PALETTE, unit, 0.5 * (totals[0] + totals[-1]))
    assert set(found.per_channel) == {"fc0", "fc1"}  # what is pinned is no matter of levels
    channels = {"fc0": 256, "fc1": 64}
    narrowest = found.fixed + math.fsum(channels[name] * costs[0] for name, costs in found.per_channel.items())
    assert narrowest == pytest.approx(totals[0])
    widest = found.fixed + math.fsum(channels[name] * costs[-1] for name, costs in found.per_channel.items())
    assert widest >= totals[-1] * (1 - 1e-9)
    assert found.budget == 0.5 * (totals[0] + totals[-1])


def test_a_mixed_layer_costs_more_than_the_table_says() -> None:
    """So levels are fixed by the estimate itself: this is the gap that ``qat.spending`` closes."""
    workload, totals = three_layers(), uniform_costs("latency_us")
    found = channel_costs(HW, workload, PALETTE, "latency_us", totals[-1])
    mixed = even_assignment(workload, PALETTE)
    of_table = math.fsum(
        found.per_channel[name][level] for name in found.per_channel for level in mixed.level_of_channel[name]
    )
    assert assignment_cost(HW, workload, mixed, "latency_us") > found.fixed + of_table


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_budget_out_of_reach_names_what_is_in_reach(share: float) -> None:
    low, high = min(uniform_costs("latency_us")), max(uniform_costs("latency_us"))
    close = f"{low if share < 1 else high:.4g}"
    with pytest.raises(OutOfReachError, match=f"expected {low:.4g} to {high:.4g} us.*nearest valid choice: {close}"):
        channel_costs(HW, three_layers(), PALETTE, "latency_us", share * (low if share < 1 else high))


def test_energy_needs_figures() -> None:
    bare = load_hardware("x60")
    with pytest.raises(UserError, match="budget in uj: expected a machine with figures of energy"):
        channel_costs(bare, three_layers(), PALETTE, "energy_uj", 1.0)
