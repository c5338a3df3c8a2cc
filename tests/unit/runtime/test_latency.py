"""What a measurement says of itself; how fast is no test's business."""

from __future__ import annotations

import pytest
from network_factory import NetworkFactory

from soniq_dse.errors import UserError
from soniq_dse.runtime.latency import latency, measure
from soniq_dse.runtime.pack import PackedNetwork


@pytest.fixture
def packed() -> PackedNetwork:
    net = NetworkFactory((3, 8, 8), "w1a1+w4a4")
    inner = net.relu(net.conv(net.quantize("x", signed=True), 8, 3))
    net.linear(net.quantize(net.flatten(inner), signed=False), 4)
    return PackedNetwork(net.network(), net.arrays)


def test_a_measurement_names_its_conditions(packed: PackedNetwork) -> None:
    found = latency(packed, batch=2, max_s=0.05)
    measurement = found.measurement
    assert measurement.skipped is None
    assert measurement.median_us is not None
    assert measurement.median_us > 0
    assert (measurement.batch, measurement.threads) == (2, 1)
    assert measurement.host is not None
    assert measurement.compiler
    assert "-ffp-contract=off" in measurement.flags
    assert set(measurement.per_layer_us) == {"q1", "conv2", "q5", "fc6"}
    assert set(found.percentiles_us) == {50, 90, 99}
    assert found.percentiles_us[50] <= found.percentiles_us[99]


def test_several_threads_are_timed_by_the_wall_clock(packed: PackedNetwork) -> None:
    found = measure(packed, threads=3, max_s=0.05)
    assert found.threads == 3
    assert found.median_us is not None
    assert set(found.per_layer_us) == {"q1", "conv2", "q5", "fc6"}


def test_impossible_numbers_are_refused(packed: PackedNetwork) -> None:
    with pytest.raises(UserError, match="threads: expected 1 to 256, got 0"):
        measure(packed, threads=0)
    with pytest.raises(UserError, match="batch: expected 1 or more"):
        measure(packed, batch=0)


def test_without_a_compiler_the_reason_is_given(
    packed: PackedNetwork, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    from soniq_dse.kernels import library

    library.load_kernel.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    found = measure(packed)
    assert found.median_us is None
    assert "g++" in (found.skipped or "")
