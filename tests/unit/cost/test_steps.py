"""The nodes of a packed network as they run: all are priced, and by what they do."""

from __future__ import annotations

import functools

import pytest
from network_factory import NetworkFactory

from soniq_dse.cost.steps import step_us
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.network import IntegerNetwork
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.runtime.stepwise import stepwise

WIDTH = 64


@functools.cache
def machine() -> HardwareModel:
    return load_hardware("avx512")


@functools.cache
def writer(palette: str = "w1a1", length: int = 32) -> PackedNetwork:
    net = NetworkFactory((length,), palette, n_tokens=9)
    x = net.add_constant(net.embedding("x", WIDTH))
    codes = net.quantize(net.layer_norm(x), signed=True)
    mixed = net.attention(*(net.linear(codes, WIDTH) for _ in range(3)), 2, causal=True)
    inner = net.relu(net.linear(net.quantize(net.add(x, mixed), signed=True), 2 * WIDTH))
    net.linear(net.quantize(inner, signed=False), 9)
    return PackedNetwork(net.network(), net.arrays)


def total_us(network: IntegerNetwork, **options: object) -> float:
    return sum(step_us(machine(), network, **options).values())  # type: ignore[arg-type]


def test_every_node_but_the_input_is_priced() -> None:
    network = writer().network
    found = step_us(machine(), network)
    assert set(found) == {node.name for node in network.nodes} - {"x"}
    assert min(found.values()) > 0


def test_costs_grow_with_bits_and_batch_and_threads_share_them() -> None:
    network = writer().network
    assert total_us(writer("w8a8").network) > total_us(network)
    assert total_us(network, batch=64) > 32 * total_us(network)
    assert 0.5 < total_us(network, batch=64, threads=2) / total_us(network, batch=64) < 0.7


def test_a_step_attends_to_what_is_kept() -> None:
    step = stepwise(writer(length=512).network).some(1, 512)
    attention = next(node.name for node in step.nodes if node.op == "attention")
    few, many = (step_us(machine(), step, kept={attention: kept}) for kept in (100, 500))
    assert many[attention] > 1.5 * few[attention]
    assert {name for name in few if few[name] != many[name]} == {attention}
    assert f"{attention}.keep" in few


@pytest.mark.parametrize("palette", ["w1a1", "w8a8"])
def test_the_codes_that_a_layer_writes_are_charged_to_it(palette: str) -> None:
    net = NetworkFactory((8, WIDTH), palette)
    alone = net.linear(net.quantize("x", signed=True), WIDTH)
    before = step_us(machine(), net.network())[alone]
    net.linear(net.quantize(net.relu(alone), signed=False), WIDTH)
    assert step_us(machine(), net.network())[alone] > before
