"""Hosts read from cpuinfo, and which descriptor speaks of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from soniq_dse.hardware.host import (
    default_descriptor,
    detect_host,
    host_from_cpuinfo,
    match_host,
    missing_features,
    own_descriptor_command,
)
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.cost import Host
from soniq_dse.records.hardware import ProcessorMatch

INTEL = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 173
model name\t: Intel(R) Xeon(R) 6960P
stepping\t: 1
flags\t\t: fpu pni sse4_1 abm avx2 avx512f avx512_vnni avx512_vpopcntdq avx_vnni amx_int8 gfni

processor\t: 1
vendor_id\t: GenuineIntel
model\t\t: 999
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm asimddp i8mm
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""


def host(text: str) -> Host:
    return host_from_cpuinfo(text, cores=2, memory_bytes=1 << 30)


def test_features_of_the_kernel_are_spelt_as_compilers_spell_them() -> None:
    found = host(INTEL)
    assert (found.vendor, found.family, found.model, found.stepping) == ("GenuineIntel", 6, 173, 1)
    wanted = {
        "sse3",
        "sse4.1",
        "lzcnt",
        "avx2",
        "avx512f",
        "avx512vnni",
        "avx512vpopcntdq",
        "avxvnni",
        "amx-int8",
        "gfni",
    }
    assert wanted <= set(found.features)


def test_an_arm_host_is_known_by_implementer_and_part() -> None:
    found = host(ARM)
    assert (found.vendor, found.family, found.model) == ("0x41", 8, 0xD0C)
    assert {"neon", "dotprod", "i8mm"} <= set(found.features)


def test_a_host_that_tells_nothing_has_no_features() -> None:
    assert host("").features == ()
    assert host("garbage\n::::\nmodel : x\n").model == 0


def test_either_spelling_of_a_feature_is_found() -> None:
    features = ("avx512_vnni", "avx512vnni", "avx_vnni", "asimd", "")
    assert missing_features(features, host(INTEL)) == ("asimd",)


def test_a_match_needs_vendor_family_model_and_features(repository: Path) -> None:
    minimal = load_hardware(repository / "tests" / "data" / "hw" / "minimal.yaml")
    fitting = ProcessorMatch(vendor="GenuineIntel", family=6, models=(1, 173), features=("avx2",))
    variants = {
        True: fitting,
        "lacks sve": fitting.model_copy(update={"features": ("sve",)}),
        "other processors": fitting.model_copy(update={"models": (1,)}),
    }
    for wanted, match in variants.items():
        matches, reason = match_host(minimal.model_copy(update={"matches": (match,)}), host(INTEL))
        assert matches is (wanted is True)
        assert wanted is True or wanted in reason


def test_the_default_descriptor_matches_or_is_the_nearest_by_features() -> None:
    assert default_descriptor(host(ARM))[0].stem == "neon"
    plain = host(
        INTEL.replace("173", "5").replace(
            "avx512f avx512_vnni avx512_vpopcntdq avx_vnni amx_int8 gfni", "avx sse4_2 fma bmi2"
        )
    )
    path, reason = default_descriptor(plain)
    assert path.stem == "avx2"
    assert reason.startswith("predicted only: no shipped descriptor matches Intel(R) Xeon(R) 6960P")
    assert f"`{own_descriptor_command(plain)}`" in reason


@pytest.mark.parametrize(("isa", "verb"), [("x86_64", "calibrate --out"), ("aarch64", "init")])
def test_a_host_without_a_descriptor_learns_how_to_write_one(isa: str, verb: str) -> None:
    here = host(INTEL).model_copy(update={"system": f"Linux 6.1 {isa}"})
    assert own_descriptor_command(here) == f"soniq-dse hw {verb} mine.yaml"


def test_this_host_is_detected() -> None:
    found = detect_host()
    assert found.cores >= 1
    assert found.processor


@pytest.mark.parametrize("text", [INTEL, ARM])
def test_a_started_descriptor_is_valid_matches_the_host_and_admits_what_it_copied(tmp_path: Path, text: str) -> None:
    from soniq_dse.hardware.find import find_descriptor
    from soniq_dse.hardware.render import figures
    from soniq_dse.hardware.start import start_descriptor

    new = tmp_path / "mine.yaml"
    new.write_text(start_descriptor(new, find_descriptor("avx512"), host(text), "Mine"), encoding="utf-8")
    hw = load_hardware(new)
    assert (hw.name, hw.title, hw.cores, match_host(hw, host(text))[0]) == ("mine", "Mine", 2, True)
    assert {figure.kind for _, figure in figures(hw)} == {"assumed"}
    timings = [timing for instruction in hw.instructions.values() for timing in instruction.widths.values()]
    assert (
        {timing.reciprocal_throughput_cycles.kind for timing in timings}
        == {timing.ports_kind for timing in timings}
        == {"assumed"}
    )
    again = start_descriptor(tmp_path / "again.yaml", new, host(text))
    (tmp_path / "again.yaml").write_text(again, encoding="utf-8")
    assert load_hardware(tmp_path / "again.yaml").instructions == hw.instructions


def test_a_started_copy_of_a_matching_descriptor_keeps_its_kinds(tmp_path: Path, repository: Path) -> None:
    from soniq_dse.hardware.start import start_descriptor

    own = tmp_path / "own.yaml"
    match = "{vendor: GenuineIntel, family: 6, models: [173]}"
    own.write_text(f"extends: {repository}/tests/data/hw/minimal.yaml\nmatches: [{match}]\n", encoding="utf-8")
    new = tmp_path / "new.yaml"
    new.write_text(start_descriptor(new, own, host(INTEL)), encoding="utf-8")
    assert load_hardware(new).clock_ghz.kind == "vendor"
