"""A search within a budget on a tiny network: what is trained, what is said of the rest, and going on."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from soniq_dse.cli import main
from soniq_dse.records.front import Report, RunInfo

HERE = Path(__file__).parent
COMMAND = ["explore", "--hw", "avx512", "--model", "tiny_net:build", "--data", "tiny_net:task", "--epochs", "1,2,6"]
COMMAND += ["--no-measure", "--jobs", "2", "--palettes", "w1a1,w2a2,w4a4,w1a1+w4a4@2.0"]


def soniq_dse(*arguments: str, code: int = 0) -> str:
    """Standard output of the program, called in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["soniq-dse", *arguments])
        patch.chdir(HERE)
        patch.syspath_prepend(str(HERE))
        with pytest.raises(SystemExit) as left:
            main()
    assert left.value.code == code, err.getvalue()
    return out.getvalue()


def points_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "front.json").read_text())["points"]


def test_a_search_within_a_budget(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    soniq_dse(*COMMAND, "--search-budget", "16", "--out", str(folder))
    report = Report.from_json((folder / "report.json").read_bytes())
    designs = [point for point in report.front.points if point.role == "design"]
    assert len(designs) == 2  # of 8 epochs each
    assert [point.role for point in report.front.points if point.role != "design"] == ["fp32", "int8"]
    left_out = {skip.name: skip.reason for skip in report.skipped}
    assert len(left_out) == 2
    assert all("not trained: the search combined" in reason for reason in left_out.values())
    assert any("spent 16 of the 32 epochs" in note for note in report.notes)
    info = RunInfo.from_json((folder / "run.json").read_bytes())
    assert (info.search, info.search_epochs) == ("combined", 16)
    (shown,) = json.loads(soniq_dse("runs", "list", "--root", str(tmp_path), "--json"))
    assert shown["trainings"] == "4 of 6 (search: combined, 16 epochs)"

    before = {path: path.stat().st_mtime_ns for path in (folder / "store" / "records").glob("*/*.json")}
    points = points_of(folder)
    soniq_dse(*COMMAND, "--search-budget", "16", "--out", str(folder))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert points_of(folder) == points


@pytest.mark.slow
def test_what_another_search_of_the_store_trained_is_not_shown(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    soniq_dse(*COMMAND, "--search-budget", "16", "--out", str(folder))
    soniq_dse(*COMMAND, "--search", "halving", "--search-budget", "14", "--out", str(folder))
    report = Report.from_json((folder / "report.json").read_bytes())
    assert sum(point.role == "design" for point in report.front.points) == 1
    assert any("after 3 of 8 epochs" in skip.reason for skip in report.skipped)


def test_an_unknown_search_is_refused(tmp_path: Path) -> None:
    soniq_dse(*COMMAND, "--search", "tpee", "--out", str(tmp_path / "run"), code=2)
