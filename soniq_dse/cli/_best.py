"""``soniq-dse runs best``: the most accurate design of a run within limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soniq_dse.cli._common import json_option, print_json
from soniq_dse.cli._find_run import find_run, load_report
from soniq_dse.errors import UserError

if TYPE_CHECKING:
    from soniq_dse.records.front import DesignPoint, Report, TaskInfo

LIMIT = click.FloatRange(min=0, min_open=True)


class NoneWithinError(UserError):
    """No design keeps to the limits."""

    exit_code = 1


def best_of(points: list[DesignPoint], direction: str) -> DesignPoint:
    """The best by validation; of equals the fastest, then the smallest."""
    sign = -1 if direction == "max" else 1
    return min(points, key=lambda p: (sign * p.metric_val, latency_us(p) or 0.0, p.size_bytes))


def latency_us(point: DesignPoint) -> float | None:
    """Measured where it was measured, else predicted."""
    return point.latency_measured_us or point.latency_predicted_us


@click.command("best")
@click.argument("run")
@click.option("--max-us", type=LIMIT, metavar="US", help="Latency: measured where it was, else predicted.")
@click.option("--max-kib", type=LIMIT, metavar="KIB", help="Size of weights and scales.")
@click.option("--max-uj", type=LIMIT, metavar="UJ", help="Predicted energy per call.")
@click.option("--name", "name_only", is_flag=True, help="Print the design's name alone, for scripts.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=Path("reports") / "runs",
              show_default=True, help="Folder of runs.")  # fmt: skip
@json_option
def best_command(
    run: str,
    max_us: float | None,
    max_kib: float | None,
    max_uj: float | None,
    name_only: bool,
    root: Path,
    as_json: bool,
) -> None:
    """Name the most accurate design of a finished RUN within limits.

    The validation split chooses; of equals the fastest is taken. References (FP32, INT8) are not chosen. Exit code 1
    where no design keeps to the limits. Of a front over machines, it is the best on any by
    predicted latency, named MACHINE/DESIGN.

    Example:  soniq-dse runs best digits-avx512 --max-us 20
    """
    report = load_report(find_run(run, root))
    points = [point for point in _over_machines(report) if point.role == "design"]
    if not points:
        raise NoneWithinError(f"{run}: expected a design, got a run without any")
    within = points
    for name, value, limit in (("us", latency_us, max_us), ("kib", _kib, max_kib), ("uj", _uj, max_uj)):
        within = _narrowed(within, name, value, limit)
    best = best_of(within, report.front.task.direction)
    if as_json:
        print_json({"within": len(within), "of": len(points), "best": best.to_json_value()})
    else:
        click.echo(best.name if name_only else _sentence(report, best, len(within), len(points)))


def _over_machines(report: Report) -> list[DesignPoint]:
    """All points; of a front over machines those of each, as ``MACHINE/DESIGN`` and by predicted latency alone, since
    one host measures at most one of them."""
    if not report.joint:
        return list(report.front.points)
    points = [(report.hardware, point) for point in report.front.points]
    points += [(other.machine, point) for other in report.others for point in other.points]
    return [
        point.model_copy(update={"name": f"{machine}/{point.name}", "latency_measured_us": None})
        for machine, point in points
    ]


def _narrowed(
    points: list[DesignPoint], name: str, value: Callable[[DesignPoint], float | None], limit: float | None
) -> list[DesignPoint]:
    if limit is None:
        return points
    known = [(found, point) for point in points if (found := value(point)) is not None]
    within = [point for found, point in known if found <= limit]
    if not within:
        least = f"the least is {min(found for found, _ in known):.3g}" if known else "the run holds no such figure"
        raise NoneWithinError(f"--max-{name}: expected a design of at most {limit:g}, got none; {least}")
    return within


def _kib(point: DesignPoint) -> float:
    return point.size_bytes / 1024


def _uj(point: DesignPoint) -> float | None:
    return point.energy_uj


def _sentence(report: Report, best: DesignPoint, n_within: int, n: int) -> str:
    task = report.front.task
    predicted = "" if best.latency_predicted_us is None else f"{best.latency_predicted_us:.1f} us predicted"
    measured = "" if best.latency_measured_us is None else f"{best.latency_measured_us:.1f} us measured"
    latencies = ", ".join(filter(None, (measured, predicted)))
    return (
        f"{best.name}: {task.metric} {_metric(task, best.metric_val)} on validation, "
        f"{_metric(task, best.metric_test)} on test; {latencies}; {_kib(best):.1f} KiB; "
        f"{n_within} of {n} designs keep to the limits"
    )


def _metric(task: TaskInfo, value: float) -> str:
    return f"{value:.2f} {task.metric_unit}".strip()
