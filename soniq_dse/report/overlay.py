"""Reports of one task on several machines -> one report."""

from __future__ import annotations

from collections.abc import Sequence

from soniq_dse.errors import UserError
from soniq_dse.records.front import OtherRun, Report

COMPARED = ("model", "data", "metric", "metric_unit", "direction")
"""What two runs must share, of ``TaskInfo``, so that their points lie in one figure."""


def overlay(report: Report, others: Sequence[Report]) -> Report:
    """``report`` with the points of ``others`` beside its own; what it had beside it before is left.

    Machines of equal name are told apart by a number: ``avx512``, ``avx512 (2)``.

    Raises:
        UserError: another run is of another task.
    """
    names, runs = {report.hardware: 1}, []
    for other in others:
        for field in COMPARED:
            expected, got = getattr(report.front.task, field), getattr(other.front.task, field)
            if expected != got:
                raise UserError(f"run on {other.hardware}: expected {field} {expected} as in the report, got {got}")
        names[other.hardware] = names.get(other.hardware, 0) + 1
        count = names[other.hardware]
        runs.append(
            OtherRun(
                machine=other.hardware if count == 1 else f"{other.hardware} ({count})",
                hardware_title=other.hardware_title,
                hardware_matches_host=other.hardware_matches_host,
                created=other.created,
                command=other.command,
                points=other.front.points,
                details=other.details,
            )
        )
    return report.model_copy(update={"others": tuple(runs)})
