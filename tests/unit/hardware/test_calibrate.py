"""A survey of canned readings becomes a complete, valid descriptor that admits what was not measured."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from soniq_dse.errors import UserError
from soniq_dse.hardware import geometry
from soniq_dse.hardware.calibrate import calibrated, unmeasured
from soniq_dse.hardware.find import find_descriptor
from soniq_dse.hardware.geometry import CacheGeometry
from soniq_dse.hardware.host import host_from_cpuinfo, match_host
from soniq_dse.hardware.levels import native_levels
from soniq_dse.hardware.load import load_hardware
from soniq_dse.hardware.microbench import InstructionReading, MemoryReading, Reading, available_probes
from soniq_dse.hardware.pipes import balanced_mix
from soniq_dse.hardware.ports import port_bound
from soniq_dse.hardware.probes import Probe
from soniq_dse.hardware.recalibrate import own_descriptor, update
from soniq_dse.hardware.render import figures
from soniq_dse.hardware.survey import (
    CacheReading,
    DramReading,
    Survey,
    dram_working_set,
    groups_of,
    in_turns,
    working_sets,
)
from soniq_dse.hardware.window import Window
from soniq_dse.records.hardware import HardwareModel

FLAGS = "avx avx2 fma bmi2 sse4_2 gfni avx512f avx512dq avx512bw avx512vl avx512vbmi avx512_vnni avx512_bitalg"
CPUINFO = f"""vendor_id : GenuineIntel
cpu family : 6
model : 151
model name : An imagined core
flags : {FLAGS} avx512_vpopcntdq
"""
TODAY = datetime.date(2026, 11, 21)


def steady(value: float) -> Reading:
    return Reading(value, 0.001 * value, 9)


def survey_like(hw: HardwareModel, *, factor: float = 1.0, spread: float = 0.001) -> Survey:
    """What a machine with the ports and figures of ``hw``, all its times multiplied by ``factor``, would read."""
    host = host_from_cpuinfo(CPUINFO, cores=2, memory_bytes=8 << 30)
    readings: dict[Probe, InstructionReading] = {}
    for probe in available_probes(host.features):
        timing = hw.timing(probe.key, probe.width_bits)
        rate = timing.reciprocal_throughput_cycles.value if timing else 0.5
        latency = timing.latency_cycles.value if timing and timing.latency_cycles else 1.0
        readings[probe] = InstructionReading(steady(rate), steady(latency * factor) if probe.has_latency else None)
    mixes = {}
    for group in groups_of(list(readings)):
        found = {}
        for a, b in itertools.combinations(group.landmarks, 2):
            one, two = (hw.timing(name, group.width_bits) for name in (a, b))
            if one and two:
                rates = [readings[group.members[name]].reciprocal_throughput_cycles.value for name in (a, b)]
                mix = balanced_mix(a, rates[0], b, rates[1])
                loads: dict[frozenset[str], float] = {}
                for timing, count in ((one, mix.first_count), (two, mix.second_count)):
                    for op in timing.micro_ops:
                        key = frozenset(op.ports)
                        loads[key] = loads.get(key, 0.0) + count * op.cycles
                issue = (mix.first_count + mix.second_count) / hw.issue_width.value
                found[mix] = steady(max(port_bound(loads).cycles, issue))
        mixes[group.name] = found
    memory = MemoryReading(Reading(64.0, 64 * spread, 9), steady(5.0), steady(3.0))
    caches = tuple(
        CacheReading(
            CacheGeometry(level, 48 << (10 + 5 * (level - 1)), 64, 1),
            24 << 10,
            MemoryReading(memory.read_bytes_per_cycle, steady(5.0 * level), memory.clock_ghz),
            usable_share=Reading(0.625, 0.0, 3) if level == 2 else None,
        )
        for level in (1, 2)
    )
    dram = DramReading(1 << 28, steady(15.0), steady(30.0), steady(100.0), 2)
    return Survey(host, "g++ 12.2", TODAY, readings, mixes, caches, dram, steady(3.0), steady(1.2), 512)


@pytest.fixture(scope="module")
def base() -> HardwareModel:
    return load_hardware("granite_rapids")


@pytest.fixture(scope="module")
def survey(base: HardwareModel) -> Survey:
    return survey_like(base)


def test_the_descriptor_is_complete_valid_and_matches(base: HardwareModel, survey: Survey, tmp_path: Path) -> None:
    result = calibrated(base, survey, "mine")
    file = tmp_path / "mine.yaml"
    file.write_text(result.text, encoding="utf-8")
    hw = load_hardware(file)
    assert hw == result.hardware
    assert match_host(hw, survey.host)[0]
    assert [cache.usable_share and cache.usable_share.value for cache in hw.caches] == [None, 0.625]
    assert (hw.cores, [cache.size_bytes.kind for cache in hw.caches]) == (2, ["vendor", "vendor"])
    source = hw.sources[hw.clock_ghz.source]
    assert all(part in source.title for part in ("An imagined core", "g++ 12.2", "2026-11-21"))
    for probe in survey.instructions:
        timing = hw.timing(probe.key, probe.width_bits)
        assert timing is not None
        figure = timing.reciprocal_throughput_cycles
        assert (figure.kind, figure.samples, figure.date) == ("measured", 9, TODAY)
        assert figure.spread is not None
        assert (timing.latency_cycles is not None) >= probe.has_latency
    assert hw.memory.read_gb_per_s_all_cores is not None
    assert hw.memory.read_gb_per_s_all_cores.value == 30.0
    assert {level.level for level in native_levels(base)} == {level.level for level in native_levels(hw)}
    assert result.unsteady == ()


def test_what_was_not_measured_is_assumed_and_says_whose_it_is(base: HardwareModel, survey: Survey) -> None:
    hw = calibrated(base, survey, "mine").hardware
    assumed = {name: figure for name, figure in figures(hw) if figure.kind == "assumed"}
    energy = {f"energy.{entry.operation}.energy_pj" for entry in base.energy}
    assert assumed.keys() == {"issue_width", "reorder_buffer_entries", "scheduler_entries"} | energy
    assert all("of granite_rapids" in (figure.note or "") for figure in assumed.values())
    branch = hw.instructions["jcc"].widths[0]
    assert (branch.reciprocal_throughput_cycles.kind, branch.ports_kind) == ("assumed", "assumed")
    listed = {(name, bits) for name, entry in base.instructions.items() for bits in entry.widths}
    assert unmeasured(listed | {("vpermb", 1024), ("vpermb", 2048)}, survey) == ("jcc", "vpermb at 1024, 2048")


def test_the_window_of_a_core_is_measured(base: HardwareModel, survey: Survey) -> None:
    window = Window(
        issue_width=steady(6.0),
        reorder_buffer_entries=steady(252.0),
        scheduler_entries=None,
        vector_forwarding_cycles=steady(10.0),
        scalar_forwarding_cycles=Reading(0.0, 0.0, 9),
        mispredict_cycles=steady(17.0),
    )
    result = calibrated(base, replace(survey, window=window), "mine")
    hw = result.hardware
    assert (hw.issue_width.value, hw.issue_width.kind) == (6.0, "measured")
    assert (hw.reorder_buffer_entries.value, hw.reorder_buffer_entries.kind) == (252.0, "measured")
    assert hw.scheduler_entries.kind == "assumed"
    assert hw.store_forwarding is not None
    assert (hw.store_forwarding.vector_cycles.value, hw.store_forwarding.scalar_cycles.value) == (10.0, 0.0)
    assert hw.branches is None  # how far back the predictor looks is not measured
    assert result.unsteady == ()


def test_a_base_of_this_processor_keeps_its_kinds(base: HardwareModel, survey: Survey) -> None:
    match = base.matches[0].model_copy(update={"models": (151,)})
    own = calibrated(base.model_copy(update={"matches": (match,)}), survey, "mine").hardware
    assert own.reorder_buffer_entries == base.reorder_buffer_entries
    assert own.instructions["vpdpbusd"].widths[512].ports_source == "uops_info"


def test_a_map_that_explains_the_rates_is_kept(base: HardwareModel, survey: Survey) -> None:
    result = calibrated(base, survey, "mine")
    assert all("and is kept" in verdict for verdict in result.verdicts)
    kept = result.hardware.instructions["vpermb"].widths[512]
    assert [op.ports for op in kept.micro_ops] == [("p5",)]
    assert kept.ports_kind == "derived"


def test_a_map_that_does_not_is_replaced_and_marked_derived(survey: Survey) -> None:
    result = calibrated(load_hardware("avx2"), survey, "mine")
    assert ["replaced by an inferred one" in verdict for verdict in result.verdicts] == [True] * 3
    instructions = result.hardware.instructions

    def ports(name: str, width: int) -> set[str]:
        timing = instructions[name].widths[width]
        assert timing.ports_kind == "derived"
        return set(timing.micro_ops[0].ports)

    # On 256 bits: multiply p0, p1; shuffle p1, p5; permute p5; on 512 bits multiply p0, p5 and permute p5.
    assert len(ports("vpaddd", 256)) == 3
    assert len(ports("vpmaddwd", 256) & ports("vpshufb", 256)) == 1
    assert ports("vpermd", 256) == ports("vpshufb", 256) - ports("vpmaddwd", 256)
    assert ports("vpermd", 512) == ports("vpermd", 256)
    assert ports("vpermd", 512) < ports("vpmaddwd", 512)
    assert (len(ports("load", 256)), len(ports("load", 512)), len(ports("store", 256))) == (3, 2, 2)


def test_what_the_host_lacks_is_left_out(base: HardwareModel) -> None:
    survey = survey_like(base)
    narrow = host_from_cpuinfo(CPUINFO.replace(FLAGS, "avx avx2 fma bmi2").replace("avx512_vpopcntdq", ""), cores=2,
                               memory_bytes=8 << 30)  # fmt: skip
    probes = set(available_probes(narrow.features))
    readings = {probe: reading for probe, reading in survey.instructions.items() if probe in probes}
    hw = calibrated(base, Survey(**{**vars(survey), "host": narrow, "instructions": readings}), "mine").hardware
    assert [simd.width_bits for simd in hw.simd] == [128, 256]
    assert "vpdpbusd" not in hw.instructions
    assert not any("vpdpbusd" in recipe.instructions for recipe in hw.recipes.values())
    assert match_host(hw, narrow)[0]


def test_unsteady_figures_are_named(base: HardwareModel) -> None:
    result = calibrated(base, survey_like(base, spread=0.05), "mine")
    assert result.unsteady == ("caches.L1.read_bytes_per_cycle", "caches.L2.read_bytes_per_cycle")


def test_readings_that_contradict_one_another_are_a_user_error(base: HardwareModel, survey: Survey) -> None:
    slow_l1 = CacheReading(
        survey.caches[0].geometry, 1024, MemoryReading(steady(1.0), steady(50.0), steady(3.0))
    )  # fmt: skip
    broken = Survey(**{**vars(survey), "caches": (slow_l1, survey.caches[1])})
    with pytest.raises(UserError, match="too busy"):
        calibrated(base, broken, "mine")


def test_update_changes_measured_figures_and_nothing_else(base: HardwareModel, survey: Survey, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = calibrated(base, survey, "mine").text.replace("cores: 2", "cores: 2  # half of them", 1)
    file.write_text(text, encoding="utf-8")
    before = load_hardware(file)
    changes = {change.figure: change for change in update(file, survey_like(base, factor=2.0))}
    latency = changes["instructions.vpaddd.widths.512.latency_cycles"]
    assert latency.old is not None
    assert latency.new == pytest.approx(2 * latency.old)
    assert latency.percent == pytest.approx(100)
    assert latency.beyond_spread
    assert changes["clock_ghz"].percent == pytest.approx(0)
    assert not changes["clock_ghz"].beyond_spread
    after = load_hardware(file)
    vpaddd = after.instructions["vpaddd"].widths[512]
    assert vpaddd.latency_cycles is not None
    assert vpaddd.latency_cycles.value == latency.new
    assert vpaddd.micro_ops == before.instructions["vpaddd"].widths[512].micro_ops
    assert after.recipes == before.recipes
    kept = file.read_text(encoding="utf-8")
    assert "# half of them" in kept
    assert kept.startswith(text.splitlines()[0])
    changed = sum(a != b for a, b in zip(text.splitlines(), kept.splitlines(), strict=True))
    assert changed == sum(change.old != change.new for change in changes.values())


def test_update_of_a_file_that_extends_another_writes_only_the_figures(
    base: HardwareModel, survey: Survey, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    match = "{vendor: GenuineIntel, family: 6, models: [151]}"
    file.write_text(f"extends: granite_rapids\nname: mine  # mine\nmatches: [{match}]\n", encoding="utf-8")
    assert own_descriptor(file, survey.host).name == "mine"
    changes = update(file, survey_like(base, factor=2.0))
    assert {change.figure for change in changes} >= {"clock_ghz", "caches.L2.latency_cycles", "overhead.call_ns"}
    after = load_hardware(file)
    assert (after.clock_ghz.value, after.clock_ghz.kind, after.caches[1].latency_cycles.value) == (3.0, "measured", 10)
    assert after.caches[2] == base.caches[2]
    assert after.sources[after.clock_ghz.source].title.startswith("Microbenchmarks of soniq-dse")
    text = file.read_text(encoding="utf-8")
    assert text.startswith("extends: granite_rapids\nname: mine  # mine\n")
    assert "recipes" not in text


def test_update_adds_the_latency_that_a_listed_instruction_lacks(
    base: HardwareModel, survey: Survey, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    match = "{vendor: GenuineIntel, family: 6, models: [151]}"
    lacks = "instructions: {vpaddd: {widths: {512: {latency_cycles: null}}}}"
    file.write_text(f"extends: granite_rapids\nname: mine\nmatches: [{match}]\n{lacks}\n", encoding="utf-8")
    changes = {change.figure: change for change in update(file, survey)}
    added = changes["instructions.vpaddd.widths.512.latency_cycles"]
    assert (added.old, added.old_kind, added.percent, added.beyond_spread) == (None, "absent", None, True)
    latency = load_hardware(file).instructions["vpaddd"].widths[512].latency_cycles
    assert latency is not None
    assert latency.value == added.new


def test_a_descriptor_of_another_machine_is_not_updated(survey: Survey) -> None:
    with pytest.raises(UserError, match="expected a descriptor of this machine"):
        own_descriptor(find_descriptor("avx512"), survey.host)


def test_an_invalid_result_leaves_the_file(base: HardwareModel, survey: Survey, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(calibrated(base, survey, "mine").text, encoding="utf-8")
    before = file.read_bytes()
    broken = Survey(**{**vars(survey), "clock_ghz": steady(3600.0)})
    with pytest.raises(UserError, match="clock_ghz"):
        update(file, broken)
    assert (file.read_bytes(), [path.name for path in tmp_path.iterdir()]) == (before, ["mine.yaml"])


def test_caches_are_read_as_the_system_tells_them(tmp_path: Path) -> None:
    rows = [("1", "Data", "48K", "0"), ("1", "Instruction", "64K", "0"), ("2", "Unified", "2M", "0-1,4")]
    for index, (level, kind, size, shared) in enumerate(rows):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
            (folder / name).write_text(text + "\n")
        (folder / "coherency_line_size").write_text("64\n")
    found = geometry.cache_geometry(tmp_path)
    assert found == (CacheGeometry(1, 48 << 10, 64, 1), CacheGeometry(2, 2 << 20, 64, 3))
    (tmp_path / "index2" / "size").write_text("unknown")
    assert geometry.cache_geometry(tmp_path) == ()
    assert geometry.cache_geometry(tmp_path / "nowhere") == ()


def test_working_sets_lie_between_two_caches() -> None:
    caches = [CacheGeometry(1, 48 << 10, 64, 1), CacheGeometry(2, 2 << 20, 64, 1), CacheGeometry(3, 480 << 20, 64, 2)]
    assert working_sets(caches) == [24 << 10, 192 << 10, 8 << 20]
    tight = [CacheGeometry(1, 32 << 10, 64, 1), CacheGeometry(2, 48 << 10, 64, 1)]
    assert working_sets(tight) == [16 << 10, 40 << 10]
    assert dram_working_set(64 << 30, 480 << 20) == 1 << 30
    assert dram_working_set(64 << 30, 1 << 20) == 1 << 28
    assert dram_working_set(512 << 20, 1 << 20) is None


def test_copies_of_a_mix_are_spread_evenly() -> None:
    a, b = Probe("vpaddd", "binary", 256), Probe("vpshufb", "binary", 256)
    assert [probe.mnemonic for probe in in_turns(a, 3, b, 2)] == ["vpaddd", "vpshufb", "vpaddd", "vpshufb", "vpaddd"]


def test_what_is_done_while_renaming_invents_no_ports(base: HardwareModel, survey: Survey) -> None:
    fast = InstructionReading(steady(0.17), steady(0.18))
    readings = {p: fast if p.key in ("lea", "movzx") else r for p, r in survey.instructions.items()}
    hw = calibrated(base, Survey(**{**vars(survey), "instructions": readings}), "mine").hardware
    assert {port.name for port in hw.ports} == {port.name for port in base.ports}
    assert hw.instructions["movzx"].widths[0].micro_ops == hw.instructions["add"].widths[0].micro_ops
