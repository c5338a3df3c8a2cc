"""``soniq-dse hw``: tables for readers, JSON for scripts, exit codes."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from soniq_dse.cli.hw import command
from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.hardware.find import shipped_descriptors


def hw(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_list_holds_here_and_shipped_and_marks_what_is_not_valid(repository: Path) -> None:
    Path("here.yaml").write_text(
        (repository / "tests/data/hw/minimal.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    Path("wrong.yaml").write_text("schema_version: 1\nname: wrong\n", encoding="utf-8")
    rows = {row["name"]: row for row in json.loads(hw("list", "--json").stdout)}
    assert set(rows) == {"here", "wrong"} | {path.stem for path in shipped_descriptors()}
    assert rows["here"]["simd_width_bits"] == [128, 256]
    assert rows["here"]["matches_host"] is False
    assert "title" in rows["wrong"]["error"]
    table = hw("list").stdout
    assert "A small imagined machine" in table
    assert "not valid: see soniq-dse hw validate wrong.yaml" in table


def test_show_gives_every_figure_with_kind_and_source_and_the_native_levels() -> None:
    text = hw("show", "avx512").stdout
    assert all(
        part in text for part in ("clock_ghz", "vpdpbusd", "w1a1", "caches.L2.size_bytes", "Sources", "measured")
    )
    shown = json.loads(hw("show", "avx512", "--json").stdout)
    assert {"w1a1", "w8a8"} <= {level["name"] for level in shown["native_levels"]}
    assert shown["hardware"]["name"] == "avx512"


def test_validate_gives_all_errors_of_all_files_and_2() -> None:
    Path("good.yaml").write_text("extends: avx2\n", encoding="utf-8")
    Path("bad1.yaml").write_text("extends: avx2\ncores: x\nclock_mhz: 3\n", encoding="utf-8")
    done = hw("validate", "good.yaml", "bad1.yaml", "nowhere")
    assert done.exit_code == 2
    assert "good.yaml: valid" in done.output
    assert all(part in done.output for part in ("bad1.yaml:2:8 cores", "bad1.yaml:3:1 clock_mhz", "'nowhere'"))
    assert hw("validate", "good.yaml").exit_code == 0
    result = json.loads(hw("validate", "bad1.yaml", "--json").stdout)
    assert [(problem["line"], problem["column"]) for problem in result[0]["problems"]] == [(2, 8), (3, 1)]


def test_init_writes_a_valid_file_once() -> None:
    done = hw("init", "mine.yaml", "--from", "avx2")
    assert done.exit_code == 0, done.output
    assert hw("validate", "mine.yaml").exit_code == 0
    before = Path("mine.yaml").read_bytes()
    again = hw("init", "mine.yaml")
    assert isinstance(again.exception, UserError)
    assert "expected a new file" in str(again.exception)
    assert Path("mine.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["mine.txt", "two words.yaml", "no/such/folder.yaml"])
def test_init_refuses_names_that_cannot_be_machines(name: str) -> None:
    done = hw("init", name, "--from", "avx2")
    assert isinstance(done.exception, UserError)
    assert "expected" in str(done.exception)


def test_calibrate_refuses_before_it_measures() -> None:
    Path("mine.yaml").write_text("extends: avx2\n", encoding="utf-8")
    for arguments, words in (
        (["--out", "mine.yaml"], "expected a new file"),
        (["--out", "two words.yaml"], "expected a file like"),
        (["--out", "new.yaml", "--update", "mine.yaml"], "expected it alone"),
    ):
        done = hw("calibrate", *arguments)
        assert isinstance(done.exception, UserError)
        assert words in str(done.exception)
    assert Path("mine.yaml").read_text(encoding="utf-8") == "extends: avx2\n"


def test_calibrate_without_a_processor_or_compiler_of_its_kind_ends_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    no_compiler = hw("calibrate", "--out", "mine.yaml").exception
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    other = hw("calibrate", "--out", "mine.yaml").exception
    for error in (no_compiler, other):
        assert isinstance(error, MissingCapabilityError)
        assert error.exit_code == 3
    assert "aarch64" in str(other)
    assert not Path("mine.yaml").exists()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="microbenchmarks are written for x86-64")
def test_calibrate_measures_this_host_and_updates_the_file() -> None:
    done = hw("calibrate", "--quick", "--out", "mine.yaml", "--json")
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["hardware"]["clock_ghz"]["kind"] == "measured"
    assert hw("validate", "mine.yaml").exit_code == 0
    assert json.loads(hw("show", "./mine.yaml", "--json").stdout)["matches_host"] is True
    again = hw("calibrate", "--quick", "--update", "mine.yaml")
    assert again.exit_code == 0, again.output
    assert "clock_ghz" in again.stdout
    assert "change %" in again.stdout
