"""Reports of one task on several machines -> one report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from soniq_dse import pareto
from soniq_dse.errors import UserError
from soniq_dse.records.front import JointPoint, OtherRun, Report
from soniq_dse.report.points import metric_bar

COMPARED = ("model", "data", "metric", "metric_unit", "direction")
"""What two runs must share, of ``TaskInfo``, so that their points lie in one figure."""


def joint(reports: Mapping[str, Report], folders: Sequence[str] = ()) -> Report:
    """One report of runs by the name of their machine, the first one's with the others beside it, and the front over
    all of them by predicted latency. ``folders``: where each run is, from where the report will be.

    Raises:
        UserError: they are of different tasks.
    """
    names = list(reports)
    first, *others = (report.model_copy(update={"hardware": name}) for name, report in reports.items())
    laid = overlay(first, others)
    front = tuple(_joint_front(reports))
    counts = ", ".join(f"{sum(point.machine == name for point in front)} on {name}" for name in names)
    note = f"Front over {len(names)} machines, by predicted latency: {counts}."
    return laid.model_copy(update={"joint": front, "folders": tuple(folders), "notes": (note, *laid.notes)})


def _joint_front(reports: Mapping[str, Report]) -> Iterator[JointPoint]:
    found = [(name, p) for name, report in reports.items() for p in report.front.points if p.role == "design"]
    found.sort(key=lambda entry: entry[1].latency_predicted_us or 0.0)
    fastest = {(point.id, point.metric_val): name for name, point in reversed(found)}
    found = [(name, p) for name, p in found if fastest[p.id, p.metric_val] == name]  # one training: its error is shared
    values = [(point.metric_val, point.latency_predicted_us) for _, point in found]
    bars = [(metric_bar(point), None) for _, point in found]
    directions: tuple[pareto.Direction, pareto.Direction] = (next(iter(reports.values())).front.task.direction, "min")
    for (name, point), standing in zip(found, pareto.standings(values, directions, bars), strict=True):
        if standing != "dominated":
            yield JointPoint(machine=name, id=point.id, certain=standing == "front")


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
                raise UserError(f"run {other.hardware}: expected {field} {expected} as in the report, got {got}")
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
    return report.model_copy(update={"others": tuple(runs), "joint": (), "folders": ()})
