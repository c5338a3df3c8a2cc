"""``soniq-dse compare``: the front over several runs."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from report_factory import toy_report

from soniq_dse.cli import runs
from soniq_dse.cli.compare import command
from soniq_dse.report.build import build_report

REPORT = toy_report(6)


def output(*words: str) -> str:
    result = CliRunner().invoke(command, [*words], catch_exceptions=False, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


def test_the_front_over_two_runs(tmp_path: Path) -> None:
    def faster(latency_us: float | None) -> float:
        return (latency_us or 0.0) / 2

    points = tuple(
        p.model_copy(update={"latency_predicted_us": faster(p.latency_predicted_us)}) for p in REPORT.front.points
    )
    other = REPORT.model_copy(update={"front": REPORT.front.model_copy(update={"points": points})})
    for name, report in (("slow", REPORT), ("fast", other)):
        build_report(report, tmp_path / name)
    asked = [str(tmp_path / "slow"), "fast", "--root", str(tmp_path)]
    found = json.loads(output(*asked, "--out", str(tmp_path / "both"), "--json"))
    assert {point["machine"] for point in found["front"]} == {"fast"}
    assert Path(found["page"]).is_file()
    assert "front over 2 machines" in output(*asked)
    listed = CliRunner().invoke(runs.command, ["list", "--root", str(tmp_path), "--json"], catch_exceptions=False)
    (row,) = (row for row in json.loads(listed.stdout) if row["name"] == "both")
    assert (row["hardware"], row["trainings"]) == ("slow, fast", "over 2 runs")
    words = ["best", "both", "--root", str(tmp_path), "--name"]
    assert CliRunner().invoke(runs.command, words, catch_exceptions=False).stdout.startswith("fast/")


def test_one_run_is_none_to_compare(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="two runs or more"):
        output("digits", "digits")
    build_report(REPORT, tmp_path / "one")
    with pytest.raises(click.UsageError, match=r"two runs or more, got .*one under several names"):
        output(str(tmp_path / "one"), "one/", "--root", str(tmp_path))


def test_runs_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    for place in "ab":
        build_report(REPORT, tmp_path / place / "run")
    assert "front over 2 machines" in output(str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run"))
