"""``soniq-dse report``: a page from the numbers of a run, others laid over it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from report_factory import toy_report

from soniq_dse.cli.report import command
from soniq_dse.errors import UserError
from soniq_dse.report.build import build_report


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    report = toy_report(3)
    build_report(report, tmp_path / "here")
    build_report(report.model_copy(update={"hardware": "slow"}), tmp_path / "slow")
    task = report.front.task.model_copy(update={"data": "fashion"})
    build_report(
        report.model_copy(update={"front": report.front.model_copy(update={"task": task})}), tmp_path / "fashion"
    )
    return tmp_path


def test_another_run_is_laid_over_it(runs: Path) -> None:
    words = [str(runs / "here"), "--over", str(runs / "slow"), "--out", str(runs / "both"), "--json"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {"page": str(runs / "both" / "report.html")}
    both = json.loads((runs / "both" / "report.json").read_text(encoding="utf-8"))
    assert [run["machine"] for run in both["others"]] == ["slow"]
    assert json.loads((runs / "here" / "report.json").read_text(encoding="utf-8"))["others"] == []


def test_a_run_of_another_task_is_refused(runs: Path) -> None:
    with pytest.raises(UserError, match="expected data digits as in the report, got fashion"):
        CliRunner().invoke(
            command,
            [str(runs / "here"), "--over", str(runs / "fashion")],
            catch_exceptions=False,
            standalone_mode=False,
        )
