"""The generated microbenchmarks: what depends on what, and that they run. Results are never tested: no timing is."""

from __future__ import annotations

import datetime
import platform

import numpy as np
import pytest

from soniq_dse.errors import MissingCapabilityError
from soniq_dse.hardware import microbench
from soniq_dse.hardware.load import load_hardware
from soniq_dse.hardware.microbench import Effort, Reading
from soniq_dse.hardware.probes import CHAINS, UNROLL, X86_PROBES, Probe, latency_body, throughput_body
from soniq_dse.hardware.window import measure_window

QUICK = Effort(batches=1, samples=2, sample_instructions=480)


def test_throughput_chains_do_not_wait_for_one_another() -> None:
    body = throughput_body([Probe("vpxorq", "binary", 512)])
    assert len(body) == UNROLL
    assert body[0] == "vpxorq %%zmm1, %%zmm0, %%zmm2"
    targets = [line.rsplit("%%", 1)[1] for line in body[:CHAINS]]
    assert len(set(targets)) == CHAINS
    assert not {"zmm0", "zmm1"} & set(targets)


def test_latency_body_is_one_chain() -> None:
    assert set(latency_body(Probe("vpxorq", "binary", 512))) == {"vpxorq %%zmm1, %%zmm2, %%zmm2"}
    assert set(latency_body(Probe("imul", "scalar", 0))) == {"imul %%r10, %%r10"}


def test_pair_alternates() -> None:
    body = throughput_body([Probe("vpaddb", "binary", 256), Probe("vpshufb", "binary", 256)])
    assert [line.split()[0] for line in body[:4]] == ["vpaddb", "vpshufb", "vpaddb", "vpshufb"]


def test_each_instruction_of_a_mix_goes_through_all_destinations() -> None:
    dot, add = Probe("vpdpbusd", "accumulate", 512), Probe("vpaddd", "binary", 512)
    lines = throughput_body([dot, dot, add, add, add])
    assert len(lines) == UNROLL // 5 * 5
    for name in ("vpdpbusd", "vpaddd"):
        targets = [line.rsplit("%%", 1)[1] for line in lines if line.startswith(name)]
        assert len(set(targets[:CHAINS])) == CHAINS


def test_probes_are_distinct_and_cover_what_recipes_name() -> None:
    keys = [(probe.key, probe.width_bits) for probe in X86_PROBES]
    assert len(keys) == len(set(keys))
    needed = {name for recipe in load_hardware("granite_rapids").recipes.values() for name in recipe.instructions}
    assert needed <= {key for key, _ in keys}


def test_linked_buffer_is_one_cycle_through_all_lines() -> None:
    buffer = microbench._aligned(4096)
    microbench._link(buffer)
    words = buffer.view(np.uint64)
    at, seen = 0, set()
    while at not in seen:
        seen.add(at)
        at = int(words[at // 8]) - buffer.ctypes.data
    assert (at, len(seen)) == (0, 4096 // 64)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="microbenchmarks are written for x86-64")
def test_runs_and_reads() -> None:
    probes = microbench.available_probes(())
    assert probes
    assert {probe.width_bits for probe in probes} == {0}
    readings = microbench.measure_instructions(probes[:3], QUICK)
    for reading in readings.values():
        assert reading.reciprocal_throughput_cycles.value > 0
        assert reading.reciprocal_throughput_cycles.samples == 2
    assert microbench.measure_mixes([(probes[0], probes[1], probes[1])], QUICK)[0].value > 0
    assert microbench.measure_all_cores(1 << 20, 2, 128, QUICK).value > 0
    assert microbench.measure_call(QUICK).value > 0
    assert microbench.measure_clock(QUICK).value > 0


@pytest.mark.slow  # it compiles hundreds of loops
@pytest.mark.skipif(platform.machine() != "x86_64", reason="microbenchmarks are written for x86-64")
def test_the_window_of_this_core_is_found() -> None:
    window = measure_window(128, Effort(1, 5, 20_000, rounds=12))
    assert 2 <= window.issue_width.value <= 16
    assert window.reorder_buffer_entries is None or window.reorder_buffer_entries.value >= 32
    assert window.scheduler_entries is None or window.scheduler_entries.value >= 16
    assert window.mispredict_cycles.value > 3
    assert window.vector_forwarding_cycles.value > 0


def test_other_instruction_sets_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    with pytest.raises(MissingCapabilityError, match="s390x"):
        microbench.available_probes(())


def test_reading_becomes_a_figure() -> None:
    figure = Reading(2.0, 0.1, 15).scaled(0.5).figure("host", datetime.date(2026, 1, 2))
    assert (figure.value, figure.spread, figure.samples, figure.kind) == (1.0, 0.05, 15, "measured")
