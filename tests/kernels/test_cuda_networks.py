"""Whole networks by the CUDA kernels on the CPU: every code and every output is that of the golden arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_device import ShimDevice
from network_factory import NetworkFactory

from soniq_dse.errors import UserError
from soniq_dse.formats.network import evaluate
from soniq_dse.kernels.gpu_catalog import gpu_layer_kernels
from soniq_dse.records.gpu import GpuLayerKernel
from soniq_dse.runtime.gpu_network import GpuNetwork

WIDEST, BYTES = gpu_layer_kernels()
MIXED = "w1a1+w2a2+w4a4"


def residual_cnn(palette: str = MIXED, seed: int = 0) -> NetworkFactory:
    """Blocks with a skip that is strided, codes that two layers read, floats and codes of one layer, pools of both."""
    net = NetworkFactory((3, 9, 7), palette, seed)
    stem = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), 70, padding=(1, 1)))
    codes = net.quantize(stem, signed=False)
    deep = net.quantize(net.relu(net.conv(codes, 67, stride=(2, 2), padding=(1, 1))), signed=False)
    skip = net.conv(codes, 40, 1, stride=(2, 2))
    joined = net.relu(net.add(net.conv(deep, 40, padding=(1, 1)), skip))
    again = net.quantize(joined, signed=False)
    last = net.relu(net.add(net.conv(again, 40, padding=(1, 1)), joined))
    pooled = net.pool(net.quantize(last, signed=False), "max_pool2d", 3, 2, 1)
    features = net.conv(pooled, 34, padding=(1, 1))
    net.linear(net.quantize(net.flatten(features), signed=True), 10)
    return net


def hold(net: NetworkFactory, kernel: GpuLayerKernel, batch: int = 1, samples: int = 1, seed: int = 0) -> GpuNetwork:
    """The network on the stand-in for a GPU, held to the golden arithmetic; codes in the last of its runs."""
    network, x = net.network(), net.inputs(samples)
    made = GpuNetwork(network, net.arrays, ShimDevice(seed=seed), kernel, batch)
    golden = evaluate(network, net.arrays, x, keep=True)
    np.testing.assert_array_equal(made.run(x), golden[network.nodes[-1].name])
    golden = {name: np.resize(values[-(samples % batch or batch) :], (batch, *values.shape[1:]))
              for name, values in golden.items()}  # fmt: skip
    assert made.unequal_codes(golden) == {}
    assert len(made.codes) > 1
    golden[next(name for name, _ in made.codes)][0, 0] ^= 1
    assert sum(made.unequal_codes(golden).values()) > 0  # a wrong code is seen
    return made


@pytest.mark.parametrize(
    "kernel", [WIDEST, pytest.param(BYTES, marks=pytest.mark.slow)], ids=lambda kernel: kernel.symbol
)
def test_a_residual_network_is_the_golden_one_code_for_code(kernel: GpuLayerKernel) -> None:
    made = (
        hold(residual_cnn(), kernel, batch=2, samples=3, seed=3) if kernel == WIDEST else hold(residual_cnn(), kernel)
    )
    passes = [one.symbol for one in made.launches if one.path == "cuda/network.cu"]
    # Codes of the input, of what a pool gives, and behind the flattening; all others come from layers. Sums do too.
    assert [name.split("_")[0] for name in passes] == ["pack", "pool", "pack", "pack"]


@pytest.mark.parametrize(
    "palette", [pytest.param(name, marks=pytest.mark.slow) for name in ("w8a8", "w1a2+w2a4+w4a8", "w3a3+w8a8")]
)
def test_every_level_of_weights_and_activations(palette: str) -> None:
    hold(residual_cnn(palette, seed=1), WIDEST)


def test_groups_with_levels_of_their_own_and_what_no_layer_takes_along() -> None:
    """Depthwise and grouped layers, a mean, a sum and a ReLU by themselves, floats as the result."""
    net = NetworkFactory((6, 5, 4), MIXED, 4)
    wide = net.relu(net.conv(net.quantize("x", signed=True), 6, padding=(1, 1), groups=2))
    deep = net.conv(net.quantize(wide, signed=False), 6, padding=(2, 2), dilation=(2, 2), groups=6)
    both = net.relu(net.add(net.add(deep, wide), wide))
    mean = net.pool(net.relu(net.add(both, both)), "avg_pool2d", 3, 2)
    first = net.linear(net.quantize(net.flatten(mean), signed=False), 33)
    net.relu(net.add(first, first))
    made = hold(net, WIDEST)
    assert {one.symbol.split("_")[0] for one in made.launches} == {"layer", "pack", "pool", "sum"}


def test_what_a_network_is_timed_by_is_its_shape_not_its_values() -> None:
    def sha256(seed: int, batch: int = 1, levels: int = 0) -> str:
        net = NetworkFactory((4, 5, 5), "w1a1+w4a4", seed)
        of_channel = [0, 1, levels, 1]
        net.conv(net.quantize("x", signed=True, levels=of_channel), 8)
        return GpuNetwork(net.network(), net.arrays, ShimDevice(), WIDEST, batch).shape_sha256

    assert sha256(0) == sha256(1)
    assert len({sha256(0), sha256(0, batch=2), sha256(0, levels=1)}) == 3


def test_what_does_not_run_on_a_gpu_is_refused_by_name() -> None:
    net = NetworkFactory((6,), "w4a4", n_tokens=9)
    net.embedding("x", 16)
    with pytest.raises(UserError, match=r"node x: expected what runs on a GPU \(layers, pools, sums\), got input"):
        GpuNetwork(net.network(), net.arrays, ShimDevice(), WIDEST)
    net = NetworkFactory((4, 3, 3), "w4a4")
    net.linear(net.quantize(net.tokens("x"), signed=True), 8)
    with pytest.raises(UserError, match="node tokens1: expected what runs on a GPU"):
        GpuNetwork(net.network(), net.arrays, ShimDevice(), WIDEST)
