from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from report_factory import toy_report

from soniq_dse.records.cost import Host
from soniq_dse.records.front import DesignPoint, Objective, ParetoFront, Report, TaskInfo
from soniq_dse.report.build import build_report
from soniq_dse.report.page import all_panels


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "front-json.md").read_text(encoding="utf-8")


def test_the_page_names_every_field_of_front_json(page: str) -> None:
    named = set(re.findall(r"`([a-z_0-9]+)`", page))
    for record in (ParetoFront, Host, TaskInfo, Objective, DesignPoint):
        assert set(record.model_fields) <= named
    assert {"details", "summary", "skipped", "notes"} <= set(Report.model_fields) & named


def test_the_example_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = toy_report()
    build_report(report, tmp_path)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "front-json.md", "exec"), {})
    best = max((p for p in report.front.points if p.role == "design"), key=lambda p: p.metric_val)
    assert capsys.readouterr().out.strip() == best.name


def test_the_named_files_are_the_files(page: str, tmp_path: Path) -> None:
    build_report(toy_report(1), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= set(re.findall(r"`([a-z]+\.[a-z]+)`", page))
    assert json.loads((tmp_path / "front.json").read_text(encoding="utf-8"))["schema_version"] == 1


def test_the_page_on_reading_it_names_every_panel(repository: Path) -> None:
    page = (repository / "docs" / "read-the-report.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \| ", page, re.MULTILINE)
    assert [row for row in rows if row != "panel"] == [panel.title for panel in all_panels()]
