"""What is refused before anything is done, and damaged files of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from explore_command import COMMAND, NAMES, PALETTES, designs_in, explore, soniq_dse


def test_dry_run_trains_nothing(copied: Path, tmp_path: Path) -> None:
    out, _ = explore(*PALETTES, "--out", str(tmp_path / "new"), "--dry-run", "--json")
    plan = json.loads(out)
    assert plan["trainings"] == [f"{name}, seed 0" for name in NAMES]
    assert plan["missing"] == plan["trainings"]
    assert plan["seconds"] > 0
    assert not (tmp_path / "new").exists()
    designs_in(copied)[0].unlink()
    (copied / "store" / "index.sqlite").unlink()
    out, _ = explore(*PALETTES, "--out", str(copied), "--dry-run", "--json")
    assert len(json.loads(out)["missing"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--palettes", "w2b2"], "palette 'w2b2': expected levels like w1a1+w4a4"),
        (["--palettes", "w9a9"], "expected 1 to 8 bits, got 'w9a9'; nearest valid choice: 'w8a8'"),
        (["--palettes", "w4a16"], "got 'w4a16'; nearest valid choice: 'w4a8'"),
        (["--palettes", "w1a1+w1a1"], "expected 1 to 4 levels, each once"),
        (["--palettes", "w2a2,w4"], "got the weight-only level w4; nearest valid choice: w4a8"),
        (["--palettes", "w2a2@few"], "expected a budget of 2 bits per weight behind the @, got 'few'"),
        (["--palettes", "w1a1+w2a2@99"], "expected a budget of 1 to 2 bits per weight behind the @, got '99'"),
        (["--palettes", "w1a1+w2a2@nan"], "nearest valid choice: 'w1a1+w2a2@2'"),
        (["--palettes", "w2a2+w4a4@-1"], "nearest valid choice: 'w2a2+w4a4@2'"),
        (["--palettes", "w1a1+w2a2@0us"], "expected a budget like @30us or @5uj behind the @, got '0'"),
        (["--palettes", "w1a1+w4a4@99us"], "us, what its levels take alone, got 99; nearest valid choice: 1."),
        (["--palettes", "w2a2@30us"], "expected a budget of 2 bits per weight behind the @, got '30us'"),
        (["--palettes", "w2a2", "--budget-us", "30"], "budget: expected a palette of several levels such as w1a1+w4a4"),
        (["--budget-uj", "3,x"], "expected positive numbers like 30,50, got '3,x'"),
        (["--pin", "nope=w4a4"], "pin: layer: expected a known name, got 'nope'; valid choices: 0, 3, 7"),
        (["--pin", "7"], "--pin: expected MODULE=LEVEL such as head=w4a4, got '7'"),
        (["--first-last", "w4"], "expected a level with activation bits, got w4; nearest valid choice: 'w4a8'"),
        (["--pin", "7=w4a4", "--pin", "7=w2a2"], "expected every module once, got 7 twice"),
        (["--first-last", "w9a9"], "--first-last: expected 1 to 8 bits, got 'w9a9'; nearest valid choice: 'w8a8'"),
        (["--epochs", "1,2"], "expected three numbers of epochs like 12,4,8"),
        (["--hw", "avx521"], "nearest valid choice: 'avx512'"),
        (["--allocator", "sonic"], "nearest valid choice: 'soniq'"),
        (["--model", "tiny_net:broken"], "no model today"),
        (["--model", "tiny_net:leaving"], "calling it failed: SystemExit: 4"),
        (
            ["--model", "tiny_net:with_silu"],
            "got silu at 2",
        ),
        (["--model", "tiny_net:one_output"], "one per class of"),
        (["--model", "digits_cmm"], "nearest valid choice: 'digits_cnn'"),
        (["--batch", "0"], "0 is not in the range"),
    ],
)
def test_refused_before_anything_is_done(arguments: list[str], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    out, err = explore(*arguments, "--out", str(folder), code=2)
    assert message in err
    assert out == ""
    assert not folder.exists()


def test_a_budget_of_energy_needs_its_figures(tmp_path: Path) -> None:
    asked = ["x60" if word == "avx512" else word for word in COMMAND]
    _, err = soniq_dse(*asked, "--palettes", "w1a1+w4a4@5uj", "--out", str(tmp_path / "run"), code=2)
    assert "expected a machine with figures of energy, got x60" in err


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\x00", b'{"schema_version": 1'])
def test_damaged_files_of_a_run_are_named_and_cost_nothing(content: bytes, copied: Path) -> None:
    root = ["--root", str(copied.parent)]
    shutil.copytree(copied, copied.parent / "other")
    (copied / "run.json").write_bytes(content)
    out, err = soniq_dse("runs", "list", *root, "--json")
    assert [row["name"] for row in json.loads(out)] == ["other"]
    assert "run.json: expected what a run set out to do" in err
    (copied / "report.json").write_bytes(content)
    for command in (("runs", "show"), ("report",)):
        _, err = soniq_dse(*command, str(copied), code=2)
        assert "report.json: expected a report of schema version 1" in err
    explore(*PALETTES, "--out", str(copied))
    assert len(json.loads(soniq_dse("runs", "list", *root, "--json")[0])) == 2


def test_report_where_nothing_can_be_written(copied: Path) -> None:
    _, err = soniq_dse("report", str(copied), "--out", "/proc/nowhere", code=2)
    assert "/proc/nowhere: expected to read or write there" in err
