"""Descriptors: what is read, what is refused, and that every error says where, what and what instead."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from soniq_dse.errors import UserError
from soniq_dse.hardware.find import find_descriptor, list_descriptors, shipped_descriptors
from soniq_dse.hardware.levels import native_levels
from soniq_dse.hardware.load import DescriptorError, load_hardware

Write = Callable[[str], Path]


@pytest.fixture
def minimal(repository: Path) -> str:
    return (repository / "tests" / "data" / "hw" / "minimal.yaml").read_text(encoding="utf-8")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "machine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def errors(path: Path) -> list[str]:
    with pytest.raises(DescriptorError) as caught:
        load_hardware(path)
    return [line.removeprefix(str(path)) for line in str(caught.value).splitlines()]


def place_of(text: str, needle: str) -> str:
    """``:line:column`` of ``needle`` (of what follows its ``^``) in ``text``, not counted by the reader under test."""
    before = text[: text.index(needle.replace("^", "")) + max(needle.find("^"), 0)]
    return f":{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def test_a_valid_descriptor_becomes_a_machine(write: Write, minimal: str) -> None:
    hw = load_hardware(write(minimal))
    assert (hw.name, hw.cores, hw.clock_ghz.value) == ("minimal", 4, 3.0)
    assert hw.timing("vpdpbusd", 256).latency_cycles.value == 5
    assert str(hw.timing("vpdpbusd", 256).latency_cycles.date) == "2026-01-31"


def test_numbers_in_any_notation_are_numbers_and_words_are_not_truth_values(write: Write, minimal: str) -> None:
    text = (
        minimal.replace("value: 1048576", "value: 1e6")
        .replace("cores: 4", "cores: 0x10")
        .replace("value: 3.0", "value: +3")
    )
    hw = load_hardware(write(text.replace("title: A small imagined machine", "title: no")))
    assert (hw.caches[1].size_bytes.value, hw.cores, hw.clock_ghz.value, hw.title) == (1e6, 16, 3.0, "no")


# (what to replace, by what, where the error is, what it says)
BROKEN = [
    (
        "clock_ghz:",
        "clock_mhz:",
        "clock_mhz:",
        r"clock_mhz: expected a known.*nearest valid choice: 'clock_ghz' \(divide by 1000\)",
    ),
    ("{value: 3.0", "{value: 3700", "3700", r"clock_ghz\.value: expected 0.05 to 10 GHz, got 3700; is it in MHz\?"),
    (
        "value: 3.0",
        "value: 3.7 GHz",
        "3.7 GHz",
        r"clock_ghz\.value: expected a number in GHz, got '3.7 GHz'; leave the unit out: 3.7",
    ),
    ("value: 3.0", "value: 3700 MHz", "3700 MHz", r"clock_ghz\.value: .*leave the unit out and divide by 1000"),
    (
        "{value: 3.0, kind: vendor, source: sheet}",
        "3.7",
        "3.7",
        r"clock_ghz: expected a figure \{value: NUMBER in GHz.*got 3\.7",
    ),
    ("kind: vendor", "kind: vender", "vender", r"clock_ghz\.kind: .*got 'vender'; nearest valid choice: 'vendor'"),
    (
        "source: sheet}\nsimd",
        "source: shet}\nsimd",
        "shet",
        r"clock_ghz\.source: .*got 'shet'; nearest valid choice: 'sheet'",
    ),
    ("cores: 4", "cores: 4.5", "4.5", r"cores: expected a whole number, got 4.5"),
    ("cores: 4", "cores: true", "true", r"cores: expected a whole number, got true"),
    ("cores: 4", "cores: '4'", "'4'", r"cores: expected a whole number, got '4'"),
    ("cores: 4", "cores: 123456789012345678901234567890", "1234567890", r"cores: expected 1 to 4096"),
    ("cores: 4", f"cores: {'9' * 5000}", "99999", r"cores: expected a whole number, got '999"),
    (
        "cores: 4",
        "cores: 4\ncores: 8",
        "cores: 8",
        r"cores: expected one entry of this name, got a second; the first is on line 10",
    ),
    ("value: 256,", "value: .nan,", ".nan", r"reorder_buffer_entries\.value: expected a finite number, got nan"),
    ("value: 256,", "value: -.inf,", "-.inf", r"reorder_buffer_entries\.value: expected a finite number, got -inf"),
    ("value: 256,", "value: 1e999,", "1e999", r"reorder_buffer_entries\.value: expected a finite number, got inf"),
    ("value: 256,", "value: no,", "no, kind", r"reorder_buffer_entries\.value: expected a number in entries, got 'no'"),
    (
        "value: 256,",
        "value: !!python/object/apply:os.getcwd [],",
        "!!python",
        r": expected plain values, got the tag '.*python.*remove",
    ),
    (
        "[{ports: [p0, p1]}]",
        "[{ports: [p0, p7]}]",
        "p7",
        r"instructions\.vpdpbusd\.widths\.256\.micro_ops\[0\]\.ports\[1\]: .*'p7'; nearest",
    ),
    (
        "vpdpbusd: 1,",
        "vpdpbus: 1,",
        "vpdpbus: 1",
        r"recipes\.w8a8\.instructions\.vpdpbus: .*nearest valid choice: 'vpdpbusd'",
    ),
    (
        "      128:\n",
        "      512:\n",
        "512:",
        r"instructions\.load\.widths\.512: expected a width_bits of simd, or 0 for scalar \(0, 128, 256\)",
    ),
    (
        "      128:\n",
        "      wide:\n",
        "wide:",
        r"instructions\.load\.widths\.wide: expected a whole number, got 'wide'",
    ),
    (
        "features: [avx2, avxvnni]",
        "features: [avx2, avx_vnni]",
        "[^avxvnni]",
        r"instructions\.vpdpbusd\.features\[0\]: .*'avxvnni'; nearest.*'avx_vnni'",
    ),
    (
        "{width_bits: 256",
        "{width_bits: 128",
        "{width_bits: ^128, features: [avx2], registers: 16}\nissue",
        r"simd\[1\]\.width_bits: expected each width_bits of simd once",
    ),
    (
        "{name: p1,",
        "{name: p0,",
        "{name: ^p0, role: vector}\n  - {name: p2",
        r"ports\[1\]\.name: expected each name of ports once, got 'p0' again",
    ),
    ("name: L2", "name: L3", "L3", r"caches\[1\]\.name: expected 'L2'.*got 'L3'"),
    (
        "value: 1048576",
        "value: 16384",
        "16384",
        r"caches\[1\]\.size_bytes\.value: expected more than the 32768.*got 16384",
    ),
    (
        "value: 14,",
        "value: 4,",
        "4, kind: measured, source: bench}\nmemory",
        r"caches\[1\]\.latency_cycles\.value: expected more than the 4 ",
    ),
    ("kind: cpu", "kind: npu", "npu", r"kind: expected one of cpu, gpu, got 'npu'"),
    ("schema_version: 1", "schema_version: 2", "2\nname", r"schema_version: expected one of 1, got 2"),
    ("name: minimal", "name: two words", "two words", r"name: expected a name of letters, digits"),
    ("k_group: 4", "k_group: 0", "0\n    lanes", r"recipes\.w8a8\.k_group: expected it to be greater than 0, got 0"),
    (
        "date: 2026-01-31",
        "date: 31.1.2026",
        "31.1.2026",
        r"latency_cycles\.date: expected a date like 2026-01-31, got '31.1.2026'",
    ),
    (
        "issue_width: {value: 6, kind: vendor, source: sheet}\n",
        "",
        "",
        r":1:1 issue_width: expected a figure.*got nothing: this field is required",
    ),
    (
        "    k_group: 4\n",
        "    k_group: 4\n    min_width_bits: 512\n",
        "512",
        r"recipes\.w8a8\.min_width_bits: expected at most the widest simd width 256",
    ),
    (
        "features: [avx2, avxvnni]",
        "features: &all [avx2, avxvnni]",
        "&all",
        r": expected plain values, got the anchor or alias 'all'",
    ),
    ("cores: 4", "cores:\t4\n\tclock: 3", "\tclock", r"expected YAML.*tabs"),
    ("ports:\n", "? [a, b]\n: 3\nports:\n", "[a, b]", r": expected a name as key, got a list"),
    ("cores: 4", "cores: 4\n---\nname: second", "---", r": expected one document, got a second one"),
]


@pytest.mark.parametrize(
    ("old", "new", "at", "message"), BROKEN, ids=[f"{index}-{case[1][:20]!r}" for index, case in enumerate(BROKEN)]
)
def test_an_error_says_where_what_and_what_instead(
    write: Write, minimal: str, old: str, new: str, at: str, message: str
) -> None:
    assert old in minimal
    text = minimal.replace(old, new, 1)
    found = errors(write(text))
    line = next((line for line in found if re.search(message, line)), None)
    assert line is not None, found
    if at:
        assert line.startswith(place_of(text, at)), (line, place_of(text, at))


def test_all_errors_come_at_once_in_the_order_of_the_file(write: Write, minimal: str) -> None:
    text = (
        minimal.replace("value: 3.0", "value: fast")
        .replace("cores: 4", "cores: no\ncores: 0")
        .replace("name: L2", "name: L9")
    )
    text = text.replace("{vpdpbusd: 1,", "{vpdpbus: 1,").replace("isa: x86_64", "isa: x86")
    found = errors(write(text))
    fields = [line.split(" ")[1].rstrip(":") for line in found]
    lines = [int(line.split(":")[1]) for line in found]
    assert set(fields) == {"isa", "cores", "clock_ghz.value", "recipes.w8a8.instructions.vpdpbus", "caches[1].name"}
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"  \n\n", "empty file"),
        (b"# only a comment\n", "only comments"),
        (b"- a\n- b\n", "expected a mapping of fields at the top, got a list"),
        (b"just text\n", "expected a mapping of fields at the top, got 'just text'"),
        (b"*alias\n", "expected a mapping of fields at the top, got an alias"),
        (b"\xff\xfe\x00binary\x00rubbish", "expected UTF-8 text, got byte 0xff"),
        (b"name: a\xe9b\n", ":1:8: expected UTF-8 text, got byte 0xe9"),
        (b"name: \x00\x01\x02\n", "expected YAML"),
        (b"a: " + b"[" * 500_000, "expected at most 24 levels of nesting"),
        (b"\n".join(b"  " * depth + b"a:" for depth in range(400)), "expected at most 24 levels of nesting"),
        (b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", ":1:4: expected plain values, got the anchor or alias 'a'"),
        (b"<<: *base\n", "expected plain values, got the anchor or alias 'base'"),
        (b"a: {b: c\n", "expected YAML"),
        (b"x" * 10_000_000, "expected at most 1024 KiB, got a bigger file"),
    ],
    ids=lambda value: repr(value[:16]) if isinstance(value, bytes) else None,
)  # fmt: skip
@pytest.mark.parametrize("parser", ["libyaml", "ruamel"])
def test_what_is_no_descriptor_is_refused_by_either_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str, parser: str
) -> None:
    if parser == "ruamel":
        monkeypatch.setitem(sys.modules, "yaml.cyaml", None)
    path = tmp_path / "rubbish.yaml"
    path.write_bytes(content)
    found = errors(path)
    assert len(found) == 1
    assert message in found[0]


def test_both_parsers_read_the_same_machine(write: Write, minimal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(minimal)
    by_libyaml = load_hardware(path)
    monkeypatch.setitem(sys.modules, "yaml.cyaml", None)
    assert load_hardware(path) == by_libyaml


def test_a_folder_an_unknown_name_and_an_unreadable_file_are_refused(tmp_path: Path) -> None:
    assert "got a folder" in errors(tmp_path)[0]
    with pytest.raises(UserError, match="got 'avx51'; nearest valid choice: 'avx512'"):
        load_hardware("avx51")
    for odd in ("", "a" * 5000, "a\x00b", "no/such/file.yaml", "~"):
        with pytest.raises(UserError, match="expected"):
            load_hardware(odd)
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    with pytest.raises(UserError):
        load_hardware(loop)


def test_extends_merges_mappings_replaces_lists_and_null_removes(tmp_path: Path, minimal: str) -> None:
    (tmp_path / "base.yaml").write_text(minimal, encoding="utf-8")
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: base\nname: child\nclock_ghz: {value: 4}\nmatches: []\nenergy: null\nrecipes: {w8a8: {k_group: 8}}\n",
        encoding="utf-8",
    )
    hw, base = load_hardware(child), load_hardware(tmp_path / "base.yaml")
    assert (hw.name, hw.clock_ghz.value, hw.clock_ghz.kind) == ("child", 4, "vendor")
    assert (hw.matches, hw.energy, hw.recipes["w8a8"].k_group) == ((), (), 8)
    assert hw.instructions == base.instructions


def test_errors_of_an_extended_descriptor_point_into_the_file_they_are_in(tmp_path: Path, minimal: str) -> None:
    base, child = tmp_path / "base.yaml", tmp_path / "child.yaml"
    broken = minimal.replace("value: 1048576", "value: 16384")
    base.write_text(broken, encoding="utf-8")
    child.write_text("extends: base\nissue_width: {value: 6000}\n", encoding="utf-8")
    with pytest.raises(DescriptorError) as caught:
        load_hardware(child)
    lines = str(caught.value).splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"{base}{place_of(broken, '16384')}", f"{child}:2:22"]


def test_extends_in_a_circle_names_the_chain(tmp_path: Path) -> None:
    for name, parent in (("a", "b"), ("b", "c"), ("c", "a"), ("itself", "itself")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {parent}\n", encoding="utf-8")
    with pytest.raises(DescriptorError, match=r"c\.yaml:1:10 extends: .*the cycle a -> b -> c -> a$"):
        load_hardware(tmp_path / "a.yaml")
    with pytest.raises(DescriptorError, match="the cycle itself -> itself"):
        load_hardware(tmp_path / "itself.yaml")
    (tmp_path / "orphan.yaml").write_text("extends: avx51\n", encoding="utf-8")
    with pytest.raises(DescriptorError, match=r"orphan\.yaml:1:10 extends: .*'avx51'; nearest valid choice: 'avx512'"):
        load_hardware(tmp_path / "orphan.yaml")
    (tmp_path / "odd.yaml").write_text("extends: [a]\n", encoding="utf-8")
    with pytest.raises(DescriptorError, match="expected the name of a descriptor"):
        load_hardware(tmp_path / "odd.yaml")


def test_a_descriptor_may_extend_the_shipped_one_of_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "avx2.yaml"
    path.write_text("extends: avx2\ntitle: Mine\n", encoding="utf-8")
    assert load_hardware(path).title == "Mine"


def test_names_are_looked_up_here_first_and_then_among_the_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minimal: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = {path.stem: path for path in shipped_descriptors()}
    assert find_descriptor("avx512") == find_descriptor("avx512.yaml") == shipped["avx512"]
    (tmp_path / "avx512.yaml").write_text(minimal, encoding="utf-8")
    (tmp_path / "other-tool.yaml").write_text("services: {}\n", encoding="utf-8")
    assert load_hardware("avx512").name == load_hardware("./avx512.yaml").name == "minimal"
    listed = list_descriptors()
    assert [path.name for path in listed].count("avx512.yaml") == 1
    assert len(listed) == len(shipped_descriptors())
    assert "other-tool.yaml" not in [path.name for path in listed]


def test_an_instruction_added_to_the_yaml_adds_a_native_level(tmp_path: Path, repository: Path) -> None:
    base = repository / "tests" / "data" / "hw" / "minimal.yaml"
    assert {(level.level.name, level.width_bits) for level in native_levels(load_hardware(base))} == {("w8a8", 256)}
    cycles = "reciprocal_throughput_cycles: {value: 1, kind: assumed, source: guess}"
    timing = f"{{{cycles}, micro_ops: [{{ports: [p1]}}], ports_kind: assumed, ports_source: guess}}"
    step = "weight_bits: 1, activation_bits: 1, instructions: {vpopcntq: 1, load: 1}, macs_per_width_bit: 1"
    recipe = f"{{{step}, k_group: 64, lanes_per_width_bit: 0.015625, kind: assumed, source: guess}}"
    more = tmp_path / "more.yaml"
    more.write_text(
        f"extends: {base}\ninstructions:\n  vpopcntq: {{widths: {{256: {timing}}}}}\n"
        f"  vpdpbusd: {{widths: {{128: {timing}}}}}\n"
        f"recipes: {{popcount: {recipe}}}\n",
        encoding="utf-8",
    )
    found = {(level.level.name, level.width_bits): level for level in native_levels(load_hardware(more))}
    assert set(found) == {("w8a8", 256), ("w8a8", 128), ("w1a1", 256)}
    # One popcount on p1 and one load on p2 a step, both of one cycle: 256 products in 1 cycle.
    assert found[("w1a1", 256)].macs_per_cycle == pytest.approx(256)
    assert "vpopcntq" in found[("w1a1", 256)].reason
