from __future__ import annotations

import base64
import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_factory import toy_report

from soniq_dse.records.front import DesignPoint, ParetoFront, Report
from soniq_dse.report.build import build_report

FILES = {"report.html", "report.json", "front.json", "designs.csv", "front.svg", "agreement.svg", "design.svg"}
HOSTILE = "<script>alert(1)</script>\u2028&\"'"


def page_data(folder: Path) -> Any:
    """The data that a page carries."""
    html = (folder / "report.html").read_text(encoding="utf-8")
    found = re.search(r'id="report-data">([A-Za-z0-9+/=]*)</script>', html)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def subset(part: Any, whole: Any) -> bool:
    """Whether every leaf of ``part`` is at the same place of ``whole``."""
    if isinstance(part, dict):
        return all(key in whole and subset(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(subset(a, b) for a, b in zip(part, whole, strict=True))
    return part == whole and type(part) is type(whole)


def test_it_writes_every_file_and_gives_the_page(tmp_path: Path) -> None:
    page = build_report(toy_report(), tmp_path / "new" / "folder")
    assert page == tmp_path / "new" / "folder" / "report.html"
    assert {path.name for path in page.parent.iterdir()} == FILES


def test_the_json_files_are_the_records(tmp_path: Path) -> None:
    report = toy_report()
    build_report(report, tmp_path)
    read = Report.from_json((tmp_path / "report.json").read_bytes())
    assert read.summary is not None
    assert read.model_copy(update={"summary": None}) == report
    assert ParetoFront.from_json((tmp_path / "front.json").read_bytes()) == report.front


@pytest.mark.parametrize(
    "report", [toy_report(), toy_report(0, references=False), toy_report(measured=False, n_seeds=1)]
)
def test_every_number_of_the_page_is_in_report_json(report: Report, tmp_path: Path) -> None:
    build_report(report, tmp_path)
    data = page_data(tmp_path)
    assert set(data) == {"report", "marks", "bounds"}
    assert subset(data["report"], json.loads((tmp_path / "report.json").read_text(encoding="utf-8")))
    assert all(isinstance(value, str) for mark in data["marks"].values() for value in mark.values())


def test_equal_reports_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build_report(toy_report(), tmp_path / name)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_summary_that_came_with_the_report_is_derived_anew(tmp_path: Path) -> None:
    report = toy_report()
    build_report(report, tmp_path / "first")
    again = Report.from_json((tmp_path / "first" / "report.json").read_bytes())
    build_report(again, tmp_path / "second")
    assert (tmp_path / "first" / "report.html").read_bytes() == (tmp_path / "second" / "report.html").read_bytes()


def test_the_csv_has_a_row_per_point_and_the_command(tmp_path: Path) -> None:
    report = toy_report(3, measured=False, names={1: 'a,"b"'})
    build_report(report, tmp_path)
    with (tmp_path / "designs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*DesignPoint.model_fields, "command"]
    assert [row["name"] for row in rows] == [point.name for point in report.front.points]
    assert rows[1]["command"] == report.details[1].command
    assert float(rows[0]["metric_val"]) == report.front.points[0].metric_val
    assert rows[0]["latency_measured_us"] == ""
    assert rows[0]["dominated"] == ("true" if report.front.points[0].dominated else "false")


def test_strings_of_the_report_are_escaped(tmp_path: Path) -> None:
    report = toy_report(title=HOSTILE, names={0: HOSTILE}).model_copy(
        update={"command": HOSTILE, "notes": (HOSTILE,), "created": HOSTILE, "hardware_title": HOSTILE}
    )
    build_report(report, tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "alert(1)</script>" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert page_data(tmp_path)["report"]["front"]["points"][0]["name"] == HOSTILE.strip()
    assert "alert(1)</script>" not in (tmp_path / "front.svg").read_text(encoding="utf-8")


def test_the_policy_admits_the_pages_own_scripts_and_nothing_else(tmp_path: Path) -> None:
    html = build_report(toy_report(1), tmp_path).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    directives = {part.split()[0]: part.split()[1:] for part in policy[1].split(";")}
    assert directives["default-src"] == ["'none'"]
    assert "connect-src" not in directives
    assert len(directives["script-src"]) == 2
    assert all(value.startswith("'sha256-") for value in directives["script-src"])
    assert not re.search(r'(?:src|href)="(?!data:,|#)', html)


def test_plotly_is_in_the_page_once_and_names_its_licence(tmp_path: Path) -> None:
    html = build_report(toy_report(1), tmp_path).read_text(encoding="utf-8")
    assert html.count('id="plotly">') == 1
    assert re.search(r"plotly\.js v[\d.]+\s.*MIT", html, re.DOTALL)


@pytest.mark.slow
def test_two_thousand_designs_stay_under_8_mb(tmp_path: Path) -> None:
    page = build_report(toy_report(2000, n_seeds=1), tmp_path)
    assert page.stat().st_size < 8_000_000
