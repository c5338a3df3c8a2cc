"""Runs of several machines in one report."""

from __future__ import annotations

import pytest
from report_factory import toy_report

from soniq_dse.errors import UserError
from soniq_dse.records.front import DesignPoint, Report
from soniq_dse.report.overlay import joint, overlay

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
    with pytest.raises(UserError, match="run slow: expected model digits_cnn as in the report, got resnet"):
        overlay(REPORT, [other])


def faster(latency: float, metric: float) -> Report:
    """``REPORT`` on a machine that takes ``latency`` times as long, with ``metric`` more."""

    def moved(point: DesignPoint) -> DesignPoint:
        us = (point.latency_predicted_us or 0.0) * latency
        return point.model_copy(update={"latency_predicted_us": us, "metric_val": point.metric_val + metric})

    points = tuple(map(moved, REPORT.front.points))
    return REPORT.model_copy(update={"front": REPORT.front.model_copy(update={"points": points})})


def test_the_joint_front_is_of_the_better_machine() -> None:
    found = joint({"base": REPORT, "fast": faster(0.5, 0.0), "slow": faster(2.0, 0.0)})
    assert found.hardware == "base"
    assert [run.machine for run in found.others] == ["fast", "slow"]
    own = {p.id for p in REPORT.front.points if p.role == "design" and not p.dominated}
    assert {(point.machine, point.id) for point in found.joint if point.certain} <= {("fast", point) for point in own}
    assert {point.machine for point in found.joint} == {"fast"}
    assert found.notes[0].startswith(
        f"Front over 3 machines, by predicted latency: 0 on base, {len(found.joint)} on fast"
    )


def test_the_joint_front_takes_the_ends_of_two_machines() -> None:
    fast, good = faster(0.01, -50.0), faster(100.0, 1.0)
    machines = [point.machine for point in joint({"fast": fast, "good": good}).joint]
    assert set(machines) == {"fast", "good"}
    assert machines == sorted(machines), "fastest first"
