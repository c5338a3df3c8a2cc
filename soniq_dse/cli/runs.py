"""``soniq-dse runs``: finished and interrupted explorations."""

from __future__ import annotations

import fcntl
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soniq_dse.cli._best import best_command
from soniq_dse.cli._common import console, json_option, print_json, table
from soniq_dse.cli._find_run import ROOT, find_run, load_report
from soniq_dse.errors import UserError

if TYPE_CHECKING:
    from soniq_dse.records.front import DesignPoint, Report, RunInfo, SkippedDesign

root_option = click.option(
    "--root", type=click.Path(file_okay=False, path_type=Path), default=ROOT, show_default=True, help="Folder of runs."
)


@click.group(epilog="Example:  soniq-dse runs show digits-avx512")
def command() -> None:
    """List finished and interrupted explorations.

    RUN is a run's folder, or the name of one (or how it begins) below the folder of runs.
    """


command.add_command(best_command)


@command.command("list")
@root_option
@json_option
def list_command(root: Path, as_json: bool) -> None:
    """List the runs, newest first.

    Example:  soniq-dse runs list
    """
    folders = {path.parent for name in ("run", "report") for path in root.glob(f"*/{name}.json")}
    rows = sorted(_readable(folders), key=lambda row: row["started"], reverse=True)
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(f"no runs in {root}; soniq-dse explore makes one", err=True)
        return
    columns = dict.fromkeys(("run", "started", "model", "hardware", "state"), "left") | {"trainings": "right"}
    texts = [
        [*(str(row[key]) for key in ("name", "started", "model", "hardware", "state", "trainings"))] for row in rows
    ]
    console().print(table("", columns, texts))


@command.command("show")
@click.argument("run")
@root_option
@click.option("--all", "show_all", is_flag=True, help="Name what was left out too, with the reason.")
@json_option
def show_command(run: str, root: Path, show_all: bool, as_json: bool) -> None:
    """Show the designs of a finished RUN, or how far an unfinished one came.

    Example:  soniq-dse runs show digits-avx512
    """
    folder = find_run(run, root)
    if not (folder / "report.json").is_file():
        summary = _summary(folder)
        if as_json:
            print_json(summary)
            return
        click.echo(f"{folder}: {summary['state']}, {summary['trainings']} trainings")
        click.echo(f"to go on: {summary['command']}")
        return
    report = load_report(folder)
    if as_json:
        print_json({"folder": str(folder), "front": report.front.to_json_value()})
        return
    print_front(report)
    if report.joint:
        print_joint(report)
    if show_all:
        for names, reason in by_reason(report.skipped):
            click.echo(f"left out: {names}: {reason}")
    elif report.skipped:
        click.echo(f"{len(report.skipped)} left out; --all names them with the reason")
    click.echo(f"report: {folder / 'report.html'}")


def by_reason(skipped: Sequence[SkippedDesign]) -> list[tuple[str, str]]:
    """(names, reason), those of one reason together."""
    names: dict[str, list[str]] = {}
    for skip in skipped:
        names.setdefault(skip.reason, []).append(skip.name)
    return [(", ".join(found), reason) for reason, found in names.items()]


def front_table(report: Report) -> Any:
    """The designs by predicted latency, references first; those that no other dominates are marked."""
    task = report.front.task
    columns = {"": "left", "design": "left"}
    numbers = ("bits", f"val {task.metric_unit}", f"test {task.metric_unit}", "predicted us", "measured us", "KiB")
    columns |= dict.fromkeys(numbers, "right")
    with_budgets = any(point.budget is not None for point in report.front.points)
    columns |= {"of the budget": "right"} if with_budgets else {}
    order = {"fp32": 0, "int8": 1, "design": 2}
    points = sorted(report.front.points, key=lambda p: (order[p.role], -(p.latency_predicted_us or 0.0), p.name))
    result = table("", columns, [_row(point, with_budgets) for point in points])
    result.columns[1].no_wrap = True
    result.caption = (
        "bits: per weight; *: on the front, no design is at least as accurate and faster (references apart)"
    )
    result.caption_justify = "left"
    return result


def print_front(report: Report) -> None:
    """The table under its heading, on standard output."""
    points = report.front.points
    conditions = f", batch {points[0].batch}, threads {points[0].threads}" if points else ""
    click.echo(f"{report.title}: {report.front.task.metric} against latency{conditions}")
    console().print(front_table(report))
    measurements = [detail.measurement for detail in report.details if detail.measurement is not None]
    for reason in dict.fromkeys(found.skipped for found in measurements if found.skipped):
        click.echo(f"not measured: {reason}")


def print_joint(report: Report) -> None:
    """The front over all machines of a report, on standard output."""
    task = report.front.task
    points = {(report.hardware, point.id): point for point in report.front.points}
    points |= {(other.machine, point.id): point for other in report.others for point in other.points}
    columns = {"machine": "left", "": "left", "design": "left", "bits": "right", f"val {task.metric_unit}": "right",
               f"test {task.metric_unit}": "right", "predicted us": "right", "measured us": "right"}  # fmt: skip
    rows = []
    for found in report.joint:
        _, *cells = _row(points[found.machine, found.id], with_budget=False)
        rows.append([found.machine, "*" if found.certain else "?", *cells[:-1]])
    result = table(f"front over {1 + len(report.others)} machines, by predicted latency", columns, rows)
    result.caption = "*: none on any machine is at least as accurate and faster; ?: one is, within the error of seeds"
    result.caption_justify = "left"
    console().print(result)


def _row(point: DesignPoint, with_budget: bool) -> list[str]:
    def latency(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    error = "" if point.metric_se is None else f" ±{point.metric_se:.2f}"
    return [
        "*" if point.role == "design" and not point.dominated else "",
        point.name,
        f"{point.bits_per_weight:.2f}",
        f"{point.metric_val:.2f}{error}",
        f"{point.metric_test:.2f}",
        latency(point.latency_predicted_us),
        latency(point.latency_measured_us),
        f"{point.size_bytes / 1024:.1f}",
        *([_budget(point)] if with_budget else []),
    ]


def _budget(point: DesignPoint) -> str:
    """What is left of a budget, or lacking: ``29.6 of 30 us (-1.3 %)``."""
    if point.budget is None or point.budget_used is None:
        return "-"
    difference = 100 * (point.budget_used / point.budget - 1)
    return f"{point.budget_used:.4g} of {point.budget:g} {point.budget_unit} ({difference:+.1f} %)"


def _readable(folders: Collection[Path]) -> Iterator[dict[str, Any]]:
    """What can be told of each run; one that is damaged is named, and hides no other."""
    for folder in sorted(folders):
        try:
            yield _summary(folder) if (folder / "run.json").exists() else _summary_of_page(folder)
        except UserError as error:
            click.echo(f"warning: {error}", err=True)


def _summary(folder: Path) -> dict[str, Any]:
    info = _info(folder)
    finished = (folder / "report.json").is_file()
    state = "running" if _is_locked(folder) else "finished" if finished else "interrupted"
    return {
        "name": folder.name,
        "folder": str(folder),
        "started": info.started,
        "model": info.model,
        "data": info.data,
        "hardware": info.hardware,
        "state": state,
        "trainings": f"{_n_trained(folder, info)} of {info.total}{_searched(info)}",
        "command": info.command,
    }


def _summary_of_page(folder: Path) -> dict[str, Any]:
    """Of a page without what its run set out to do: over several runs, or of one whose ``run.json`` is gone."""
    report = load_report(folder)
    machines = (report.hardware, *(other.machine for other in report.others))
    return {
        "name": folder.name,
        "folder": str(folder),
        "started": report.created,
        "model": report.front.task.model,
        "data": report.front.task.data,
        "hardware": ", ".join(machines),
        "state": "front" if report.others else "finished",
        "trainings": f"over {len(machines)} runs" if report.others else "no run.json",
        "command": report.command,
    }


def _searched(info: RunInfo) -> str:
    return "" if info.search_epochs is None else f" (search: {info.search}, {info.search_epochs} epochs)"


def _info(folder: Path) -> RunInfo:
    from pydantic import ValidationError

    from soniq_dse.records.front import RunInfo

    path = folder / "run.json"
    try:
        return RunInfo.from_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{path}: expected what a run set out to do, got a file that is damaged or cannot be read; finished "
            "trainings are kept: the command of this run writes it again"
        ) from error


def _n_trained(folder: Path, info: RunInfo) -> int:
    records = (Path(info.store) if info.store else folder / "store") / "records"
    paths = [records / "baseline" / f"{key}.json" for key in info.baselines]
    paths += [records / "design" / f"{key}.json" for key in info.designs]
    return sum(path.is_file() for path in paths)


def _is_locked(folder: Path) -> bool:
    """Whether a process is at this run now."""
    try:
        with open(folder / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
