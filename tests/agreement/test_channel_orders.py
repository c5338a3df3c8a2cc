"""What the cost model takes for reordered is what the runtime reorders."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from soniq_dse.cost.bounds import uniform_assignment
from soniq_dse.cost.graph import reordered
from soniq_dse.cost.network import estimate
from soniq_dse.hardware.load import load_hardware
from soniq_dse.qat.untrained import untrained_network
from soniq_dse.records.design import Assignment, Granularity
from soniq_dse.records.network import QuantizeNode
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import Workload
from soniq_dse.runtime.check import check
from soniq_dse.runtime.graph import Graph
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.workloads import load_model
from soniq_dse.workloads.pins import with_pins
from soniq_dse.workloads.trace import trace

PALETTE = Palette.parse("w1a1+w4a4")


MODEL = "digits_resnet@0.5"


def traced() -> Workload:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trace(load_model(MODEL)[0]().eval(), torch.zeros(1, 1, 8, 8), name=MODEL, input_nonnegative=True)


def mixed(workload: Workload, *, alike: bool) -> Assignment:
    """A quarter of the channels that a palette decides at the upper level: the same ones of every tensor, or not."""
    chance = np.random.default_rng(3)
    levels = {}
    for c in workload.tensor_classes:
        upper = np.arange(c.channels) % 4 == 0 if c.pinned_bits is None else np.zeros(c.channels, bool)
        levels[c.name] = tuple((upper if alike else chance.permutation(upper)).astype(int).tolist())
    uniform = uniform_assignment(workload, PALETTE.levels[0])
    return uniform.model_copy(update={"palette": PALETTE, "level_of_channel": levels})


@pytest.mark.parametrize(("granularity", "some"), [("class", False), ("free", True)])
def test_reordered_by_both_and_exact(granularity: Granularity, some: bool) -> None:
    workload = with_pins(traced(), {}, granularity=granularity)
    assignment = mixed(workload, alike=False)
    network, arrays = untrained_network(load_model(MODEL)[0], workload, assignment)
    graph = Graph(network)
    gathered = {n.inputs[0] for n in network.nodes if isinstance(n, QuantizeNode) and graph.gathers(n.name)}
    assert gathered == reordered(workload, assignment)
    assert bool(gathered) == some
    x = np.random.default_rng(5).random((2, 1, 8, 8), np.float32)
    assert check(PackedNetwork(network, arrays), x).exact


def test_another_order_costs_time() -> None:
    hw, workload = load_hardware("avx512"), with_pins(traced(), {}, granularity="free")
    alike, unlike = (estimate(hw, workload, mixed(workload, alike=alike)) for alike in (True, False))
    assert unlike.cycles > alike.cycles
