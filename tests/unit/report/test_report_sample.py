"""The kept sample: it can be read, and its figures are those that its numbers give."""

from __future__ import annotations

from pathlib import Path

import pytest

from soniq_dse.records.front import Report
from soniq_dse.report.build import build_report


@pytest.fixture
def sample(repository: Path) -> Path:
    return repository / "reports" / "sample"


def test_its_figures_are_those_of_its_numbers(sample: Path, tmp_path: Path) -> None:
    build_report(Report.from_json((sample / "report.json").read_bytes()), tmp_path)
    figures = sorted(path.name for path in sample.glob("*.svg"))
    assert figures == ["agreement.svg", "design.svg", "front.svg"]
    for name in figures:
        assert (tmp_path / name).read_bytes() == (sample / name).read_bytes(), f"stale: soniq-dse report {sample}"
