"""Predicted against measured: the ratio, the interval, the reasons."""

from __future__ import annotations

import pytest

from soniq_dse.agreement import agree, likely_cause
from soniq_dse.records.cost import CostTerm, Estimate, LayerEstimate, Measurement


def estimate(low: float = 90.0, high: float = 110.0, batch: int = 1) -> Estimate:
    layers = tuple(
        LayerEstimate(name=name, op="conv2d", cycles=1, latency_us=us, bound="port")
        for name, us in (("conv1", 40.0), ("conv2", 60.0))
    )
    return Estimate(
        hardware="m", hardware_sha256="0", cycles=1, latency_us=100.0, low_us=low, high_us=high, bound="port",
        batch=batch, threads=1, per_layer=layers, model="bound", interval="test",
    )  # fmt: skip


def measured(us: float, **fields: object) -> Measurement:
    return Measurement.model_validate({"median_us": us, "mad_us": 0.1, "samples": 9, "settled": True, **fields})


@pytest.mark.parametrize("us", [90.0, 100.0, 110.0])
def test_within(us: float) -> None:
    found = agree(estimate(), measured(us))
    assert found.ratio == pytest.approx(100.0 / us, rel=1e-15)
    assert found.within is True
    assert found.reason.startswith("within the predicted 90..110 us")
    assert ("likely since" in found.reason) == (us == 90.0)  # predicted 11 % too slow; 110 is 9 % too fast


def test_above_names_the_layer_with_most_of_the_gap() -> None:
    found = agree(estimate(), measured(150.0, per_layer_us={"conv1": 45.0, "conv2": 105.0}))
    assert (found.ratio, found.within) == (100 / 150, False)
    assert found.reason == (
        "measured 150 us, above the predicted 90..110 us; most of it in conv2 (conv2d, bound by port): "
        "predicted 60 us, measured 105 us; likely since its loop is priced between the best and the even use of ports, "
        "and what a tile does besides its loop by counted instructions"
    )


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"latency_us": 1.0}, "calls, starts of tiles"),
        ({"bound": "dram"}, "its weights come from DRAM"),
        ({"terms": (CostTerm(name="packing", cycles=6), CostTerm(name="compute", cycles=4))}, "60% of it are packing"),
        ({"note": "priced by recipe: popcount_w1a1"}, "priced by a recipe"),
    ],
)
def test_the_likely_cause_follows_what_is_least_sure(changes: dict[str, object], cause: str) -> None:
    layer = LayerEstimate(name="conv", op="conv2d", cycles=10, latency_us=50.0, bound="port")
    assert cause in likely_cause(layer.model_copy(update=changes))


def test_below_names_the_layer_and_the_noise() -> None:
    found = agree(estimate(), measured(80.0, per_layer_us={"conv1": 15.0, "conv2": 65.0}, settled=False))
    assert found.within is False
    assert "below the predicted" in found.reason
    assert "most of it in conv1" in found.reason
    assert found.reason.endswith("the machine was busy")


def test_outside_without_layers_names_the_bound() -> None:
    assert "the bound that was predicted: port" in agree(estimate(), measured(150.0)).reason


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ((None, measured(1.0), None), "not predicted"),
        ((estimate(), None, None), "not measured"),
        ((estimate(), Measurement(skipped="no AVX-512"), None), "no AVX-512"),
        ((estimate(), measured(100.0), "the host is a Zen 4"), "the host is a Zen 4"),
        ((estimate(batch=8), measured(100.0), None), "predicted for batch 8, measured at batch 1"),
        ((estimate(), measured(100.0, threads=2), None), "predicted for threads 1, measured at threads 2"),
        ((estimate(), measured(0.0), None), "the measured time is 0"),
    ],
)
def test_left_out(given: tuple[Estimate | None, Measurement | None, str | None], reason: str) -> None:
    found = agree(given[0], given[1], host_mismatch=given[2])
    assert (found.ratio, found.within, found.reason) == (None, None, f"left out: {reason}")
