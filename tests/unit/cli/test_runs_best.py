"""``soniq-dse runs best``: the most accurate design within limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from report_factory import toy_report

from soniq_dse.cli.runs import command
from soniq_dse.errors import UserError
from soniq_dse.report.build import build_report

REPORT = toy_report(40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(REPORT, tmp_path_factory.mktemp("run")).parent


def output(folder: Path, *words: str) -> str:
    result = CliRunner().invoke(command, ["best", str(folder), *words], catch_exceptions=False, standalone_mode=False)
    return result.output.strip()


def test_every_limit_holds_and_the_best_is_taken(folder: Path) -> None:
    designs = [point for point in REPORT.front.points if point.role == "design"]
    within = [p for p in designs if (p.latency_measured_us or 0) <= 12 and p.size_bytes <= 20 * 1024]
    assert 0 < len(within) < len(designs)
    found = json.loads(output(folder, "--max-us", "12", "--max-kib", "20", "--json"))
    assert found["within"] == len(within)
    assert found["best"]["metric_val"] == max(point.metric_val for point in within)
    assert output(folder, "--max-us", "12", "--max-kib", "20", "--name") == found["best"]["name"]
    assert output(folder, "--max-us", "12", "--max-kib", "20").startswith(f"{found['best']['name']}: accuracy ")


def test_what_no_design_keeps_names_the_least(folder: Path) -> None:
    least = min(p.latency_measured_us or 0 for p in REPORT.front.points if p.role == "design")
    with pytest.raises(UserError, match=rf"--max-us: .*at most 0.1, got none; the least is {least:.3g}") as caught:
        output(folder, "--max-us", "0.1")
    assert caught.value.exit_code == 1
    with pytest.raises(UserError, match=r"--max-uj: .*holds no such figure"):
        output(folder, "--max-uj", "5")
