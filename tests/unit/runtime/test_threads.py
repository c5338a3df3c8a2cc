"""Threads have no influence on results: bitwise equal outputs and codes for any number, on any network."""

from __future__ import annotations

import multiprocessing
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_factory import NetworkFactory

from soniq_dse.runtime import plan
from soniq_dse.runtime.check import check
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.runtime.structs import Kind

MORE_THAN_CORES = (os.cpu_count() or 1) + 3
COUNTS = (2, 3, MORE_THAN_CORES)


def network(palette: str, size: int = 9, width: int = 20, groups: int = 1) -> PackedNetwork:
    """Every kind of step: quantize, convolutions with a shortcut, both pools of fp32, one of codes, linear layers."""
    net = NetworkFactory((3, size, size), palette)
    trunk = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), width, 3, padding=(1, 1)))
    codes = net.pool(net.quantize(trunk, signed=False), "max_pool2d", 2)
    inner = net.relu(net.conv(codes, width, 3, padding=(1, 1), groups=groups))
    trunk = net.relu(net.add(net.conv(net.quantize(inner, signed=False), width, 1), net.pool(trunk, "max_pool2d", 2)))
    flat = net.flatten(net.pool(trunk, "avg_pool2d", size // 2))
    hidden = net.relu(net.linear(net.quantize(flat, signed=False), 150))
    net.linear(net.quantize(hidden, signed=False), 5)
    return PackedNetwork(net.network(), net.arrays)


def inputs(packed: PackedNetwork, samples: int) -> np.ndarray:
    return np.random.default_rng(4).standard_normal((samples, *packed.in_shape)).astype(np.float32)


@pytest.fixture(params=[0, plan.LITTLE_BYTES], ids=["all shared", "little ones alone"])
def little(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of small networks shared as those of large ones are, and done by one thread."""
    monkeypatch.setattr(plan, "LITTLE_BYTES", request.param)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("threads", COUNTS)
@pytest.mark.parametrize("palette", ["w1a1+w4a4", "w8a8"])
def test_every_code_and_output_is_that_of_the_golden_arithmetic(palette: str, threads: int) -> None:
    packed = network(palette)
    assert check(packed, inputs(packed, 3), threads=threads).exact


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_number_gives_the_same_bits(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 1, 2]))
    palette = data.draw(st.sampled_from(["w1a1", "w2a2+w8a8", "w4a4"]))
    packed = network(palette, data.draw(st.integers(4, 10)), groups * data.draw(st.integers(1, 40)), groups)
    x = inputs(packed, data.draw(st.integers(1, 4)))
    one = packed.run(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "LITTLE_BYTES", data.draw(st.sampled_from([0, plan.LITTLE_BYTES])))
        for threads in COUNTS:  # more than cores; more than the last layer has rows or panels
            np.testing.assert_array_equal(one, packed.run(x, threads=threads))


def test_one_thread_does_little_steps_in_a_row() -> None:
    packed = network("w1a1")
    found = packed.executor(1, threads=2).plan
    rounds = found.rounds()
    assert [index for one in rounds for index in range(one.first, one.first + one.count)] == [*range(len(found.steps))]
    assert any(one.count > 1 for one in rounds)
    assert not any(found.steps[one.first].kind is Kind.LAYER for one in rounds if one.alone)
    assert not any(one.alone for one in packed.executor(1, threads=1).plan.rounds())


def test_many_runs_of_one_team_agree() -> None:
    packed = network("w2a2")
    x = inputs(packed, 1)
    one = packed.run(x)
    executor = packed.executor(1, threads=MORE_THAN_CORES)
    for _ in range(200):
        np.testing.assert_array_equal(one, executor.run(x))


def test_executors_of_several_callers_run_side_by_side() -> None:
    x = inputs(network("w4a4"), 2)
    expected = network("w4a4").run(x)
    found: list[np.ndarray] = []

    def call() -> None:
        packed = network("w4a4")
        found.extend(packed.run(x, threads=2) for _ in range(20))

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 60
    assert all(np.array_equal(expected, outputs) for outputs in found)


def test_a_forked_process_makes_a_team_of_its_own() -> None:
    packed = network("w1a1")
    x = inputs(packed, 2)
    expected = packed.run(x, threads=2)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=lambda: results.put(packed.run(x, threads=2)))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(expected, results.get())
