"""Runs of several machines in one report."""

from __future__ import annotations

import pytest
from report_factory import toy_report

from soniq_dse.errors import UserError
from soniq_dse.report.overlay import overlay

REPORT = toy_report(4)


def test_the_points_of_others_lie_beside() -> None:
    other = REPORT.model_copy(update={"hardware": "slow", "hardware_title": "A slow machine"})
    found = overlay(REPORT, [other, REPORT, other])
    assert [run.machine for run in found.others] == ["slow", "toy (2)", "slow (2)"]
    assert found.others[0].points == other.front.points
    assert found.others[0].details == other.details
    assert found.front == REPORT.front


def test_an_earlier_overlay_is_left() -> None:
    assert overlay(overlay(REPORT, [REPORT]), []) == REPORT


def test_another_task_is_an_error() -> None:
    task = REPORT.front.task.model_copy(update={"model": "resnet"})
    other = REPORT.model_copy(update={"front": REPORT.front.model_copy(update={"task": task}), "hardware": "slow"})
    with pytest.raises(UserError, match="run on slow: expected model digits_cnn as in the report, got resnet"):
        overlay(REPORT, [other])
