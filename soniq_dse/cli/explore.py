"""``soniq-dse explore``: the main job."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from soniq_dse.cli._common import console, json_option, pricing, print_json, table
from soniq_dse.cli._run_file import RunFile, multiplied, read

if TYPE_CHECKING:
    from soniq_dse.explore import Forecast, Notify, Options, Outcome, Plan

LINE_SECONDS = 15.0
"""Without a terminal, a line of progress at most this often."""
INT = click.IntRange(min=1)


def _epochs(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[int, int, int] | None:
    """``12,4,8``: three positive integers."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(
            f"expected three numbers of epochs like 12,4,8 (start, noise, fine-tuning), got {text!r}"
        )
    return int(parts[0]), int(parts[1]), int(parts[2])


def _parts(text: str | None) -> tuple[str, ...]:
    """``a,b``: each once; none where nothing is said."""
    parts = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if text is not None and not parts:
        raise click.BadParameter(f"expected at least one value, got {text!r}")
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise click.BadParameter(f"expected each value once, got {twice!r} more often")
    return parts


def _numbers(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...]:
    """``30,50``: positive numbers."""
    try:
        values = tuple(map(float, _parts(text)))
    except ValueError:
        values = (math.nan,)
    if not all(0 < value < math.inf for value in values):
        raise click.BadParameter(f"expected positive numbers like 30,50, got {text!r}")
    return values


def _palettes(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...]:
    """``w2a2,w1a1+w4a4@2.0``: what the names mean is checked later."""
    return _parts(text)


def _widths(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...]:
    """``1,0.5``: which widths make sense is checked later."""
    try:
        return tuple(map(float, _parts(text)))
    except ValueError:
        raise click.BadParameter(f"expected numbers like 1,0.5, got {text!r}") from None


def _needs(ctx: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """``isa:avx512``, ``GPU=1``: resources and how much of each, 1 where nothing is said."""
    found = {}
    for text in texts:
        name, equals, amount = text.partition("=")
        try:
            found[name] = float(amount) if equals else 1.0
        except ValueError:
            found[name] = math.nan
        if not name or not 0 < found[name] < math.inf:
            raise click.BadParameter(f"expected a resource such as isa:avx512 or GPU=1, got {text!r}")
    return tuple(found.items())


def _run_file(ctx: click.Context, option: click.Parameter, path: Path | None) -> RunFile | None:
    """What the file says becomes the defaults of the flags."""
    if path is None:
        return None
    found = read(path, ctx)
    ctx.default_map = {**(ctx.default_map or {}), **found.defaults}
    return found


@click.command(
    epilog="Run the same command again after an interruption (Ctrl-C, kill, power): it goes on where it stopped.\n\n"
    "Example:  soniq-dse explore --hw avx512 --model digits_cnn --seeds 3"
)
@click.option("--hw", multiple=True, metavar="NAME", help="Machine: a descriptor's path or name; several give a run "
              "each and a front over all.  [default: the shipped one that matches this processor]")  # fmt: skip
@click.option("--vary", multiple=True, metavar="FIELD=N,...", help="Machines that differ in a field, such as "
              "simd_width_bits=256,512, predicted only; fields as in estimate --set.")  # fmt: skip
@click.option("--model", metavar="NAME", default="digits_cnn", show_default=True, help="A name or pkg.mod:build.")
@click.option("--data", metavar="NAME", help="NAME, NAME:FOLDER or pkg.mod:loaders.  [default: the model's own]")
@click.option("--palettes", callback=_palettes, metavar="PALETTE[@BITS],...", help="Only these, such as "
              "w2a2,w1a1+w4a4@2.0 (2.0 bits per weight) or w1a1+w4a4@30us.  [default: those worth exploring]",
              )  # fmt: skip
@click.option("--budget-us", callback=_numbers, metavar="US,...", help="Budgets in predicted latency of the network, "
              "such as 30,50, for palettes of several levels; in place of those in bits.")  # fmt: skip
@click.option("--budget-uj", callback=_numbers, metavar="UJ,...", help="Budgets in predicted dynamic energy per call, "
              "in microjoules; likewise.")  # fmt: skip
@click.option("--pin", "pins", multiple=True, metavar="MODULE=LEVEL", help="Keep what a layer reads at a level, as "
              "head=w4a4; as often as you like.")  # fmt: skip
@click.option("--first-last", metavar="LEVEL|none", help="Level of what the first and the last layer read; none: the "
              "palette's.  [default: w8a8]")  # fmt: skip
@click.option("--widths", callback=_widths, metavar="WIDTH,...", help="Multiples of the model's channels, such as "
              "1,0.5.  [default: the model's own; 1 with --palettes]")  # fmt: skip
@click.option("--seeds", type=INT, metavar="N", default=1, show_default=True, help="Trainings per design; 5 give "
              "error bars.")  # fmt: skip
@click.option("--epochs", callback=_epochs, metavar="START,NOISE,TUNE", help="Epochs of the FP32 start, of training "
              "under noise, which chooses each channel's level, and of fine-tuning.  [default: the model's own]",
              )  # fmt: skip
@click.option("--recipe", metavar="FIELD=VALUE", multiple=True, help="How to train, such as augment=shift_flip or "
              "ema_decay=0.99; may be given again.  [default: the model's own; docs/training.md]")  # fmt: skip
@click.option("--allocator", metavar="NAME", default="soniq", show_default=True, help="What assigns levels to "
              "channels.")  # fmt: skip
@click.option("--search", metavar="NAME", help="Which designs are trained: exhaustive (all), combined, random, "
              "proxy_milp, halving, nsga2 or tpe.  [default: exhaustive; combined with --search-budget]")  # fmt: skip
@click.option("--search-budget", "search_epochs", type=INT, metavar="EPOCHS", help="Epochs (noise and fine-tuning) "
              "that the search may spend.  [default: a tenth of those of all designs, unless exhaustive]")  # fmt: skip
@click.option("--granularity", type=click.Choice(("class", "free", "layer")), default="class", show_default=True,
              help="What has a level of its own: a channel of tensors that adds join, a channel of each of them, or "
              "all that a layer reads.")  # fmt: skip
@click.option("--limit", type=INT, metavar="N", help="At most so many examples of each split, for a quick try.")
@click.option("--batch", type=INT, metavar="N", default=1, show_default=True, help="Inputs per call whose latency "
              "counts.")  # fmt: skip
@click.option("--threads", type=INT, metavar="N", default=1, show_default=True, help="Threads per call whose latency "
              "counts.")  # fmt: skip
@click.option("--jobs", type=INT, metavar="N", help="Trainings at once.  [default: one per core, of the cluster with "
              "--executor ray]")  # fmt: skip
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              default=3600.0, show_default=True, help="Seconds after which one training is stopped.")  # fmt: skip
@click.option("--memory-limit", "memory_mib", type=INT, metavar="MIB", help="Memory above which one training is "
              "stopped.  [default: none]")  # fmt: skip
@click.option("--executor", type=click.Choice(["process", "here", "ray"]), default="process", show_default=True,
              help="Each training in a process of its own, or all in this one (no limits, for a debugger), or on the "
              "nodes of a Ray cluster: docs/cluster.md.")  # fmt: skip
@click.option("--need", "needs", callback=_needs, multiple=True, metavar="NAME[=N]", help="With --executor ray: what a "
              "training's node must have free, such as isa:avx512 or GPU=1; may be given again.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the run's files.  "
              "[default: reports/runs/...]")  # fmt: skip
@click.option("--store", type=click.Path(file_okay=False, path_type=Path), help="Folder of finished results, to be "
              "shared by runs.  [default: in the run's folder]")  # fmt: skip
@click.option("--measure/--no-measure", default=True, help="Time the designs on this processor.  [default: measure]")
@click.option("--autotune", is_flag=True, help="Measure once which kernel is the fastest for each part of a layer; "
              "later runs use what was found.")  # fmt: skip
@click.option("--what-if", multiple=True, metavar="FIELD=NUMBER", help="A question about the machine that the report "
              "shall answer for every design, such as ports.load=3; may be given again.")  # fmt: skip
@click.option("--fresh", is_flag=True, help="Do everything again, whatever an earlier run finished.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be done, what is left out and why, and how long it takes."
)
@click.option("--run-file", type=click.Path(dir_okay=False, path_type=Path), is_eager=True, callback=_run_file,
              metavar="FILE", help="YAML with these flags by name, and lists of machines, allocators and budgets, each "
              "with each; flags override it.")  # fmt: skip
@json_option
def command(dry_run: bool, as_json: bool, run_file: RunFile | None, **asked: Any) -> None:
    """Train designs for a machine's precision palettes and draw accuracy against latency.

    Trains every palette worth exploring with SONIQ, predicts and measures the latency of each design, and writes a
    report page with the Pareto front. Exit code 1: finished, but some designs failed (they are named).
    """
    from soniq_dse.explore import Options, explore

    if asked["needs"] and asked["executor"] != "ray":
        raise click.BadParameter("expected --executor ray beside it: it is of cluster nodes", param_hint="--need")
    asked["jobs"] = asked["jobs"] or _cores(on_cluster=asked["executor"] == "ray" and not dry_run)
    ctx = click.get_current_context()
    given = {name for name in asked if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    runs = multiplied(asked, run_file, given)
    plans = _planned([Options(**one) for one in runs.options])
    if dry_run:
        _print_plans(plans, as_json)
        return
    outcomes = []
    for plan in plans:
        with _progress(plan, quiet=as_json) as notify:
            outcomes.append(explore(plan, notify, shlex.join(["soniq-dse", *sys.argv[1:]])))
    _print_outcomes(outcomes, as_json)
    if runs.joint is not None:
        _print_joint(plans, outcomes, runs.joint, quiet=as_json)
    for outcome in outcomes:
        for name, reason in outcome.failures.items():
            click.echo(f"failed: {name}: {reason}", err=True)
    if any(outcome.failures for outcome in outcomes):
        raise SystemExit(1)


def _planned(options: Sequence[Options]) -> list[Plan]:
    """The plans; a machine that cannot be is refused before any is priced, and who waits is told how long."""
    from soniq_dse.explore import machine_of, make_plan

    plans: list[Plan] = []
    for one in options:
        machine_of(one.hw, one.settings)
    for one in options:
        started = time.monotonic()
        with pricing():
            plans.append(make_plan(one))
        if len(plans) == 1 < len(options):
            left = _left((time.monotonic() - started) * (len(options) - 1))
            click.echo(f"planning {len(options)} runs: {left} at most", err=True)
    return plans


def _print_joint(plans: Sequence[Plan], outcomes: Sequence[Outcome], folder: Path, *, quiet: bool) -> None:
    """Write the page of all runs, and show which designs on which machines no other dominates."""
    from soniq_dse.cli.runs import print_joint
    from soniq_dse.report.build import build_report
    from soniq_dse.report.overlay import joint

    reports = {plan.title: outcome.report for plan, outcome in zip(plans, outcomes, strict=True)}
    report = joint(reports, [os.path.relpath(outcome.folder, folder) for outcome in outcomes])
    page = build_report(report, folder)
    if not quiet:
        print_joint(report)
        click.echo(f"report: {page}")


def _cores(*, on_cluster: bool) -> int:
    if on_cluster:
        from soniq_dse.explore import cluster_cores

        with pricing():
            return cluster_cores()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress(plan: Plan, *, quiet: bool) -> Iterator[Notify]:
    """A bar on a terminal, a line now and then elsewhere, nothing with ``--json``."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(plan) as notify:
            yield notify
    else:
        _say_start(plan)
        yield _lines()


def _say_start(plan: Plan) -> None:
    where = "on a node that is one, if any" if plan.options.executor == "ray" else "predicted only"
    machine = plan.hardware.title if plan.host_mismatch is None else f"{plan.hardware.title} ({where})"
    n_trainings = len(plan.baselines) + len(plan.candidates)
    searched = "" if plan.search_epochs is None else f" at most, {_searched(plan)}"
    click.echo(f"{plan.task_info.model} on {machine}: {n_trainings} trainings{searched}, into {plan.folder}", err=True)


def _searched(plan: Plan) -> str:
    return f"searched by {plan.search} within {plan.search_epochs} epochs"


@contextmanager
def _bar(plan: Plan) -> Iterator[Notify]:
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    _say_start(plan)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=1.0, left="")

        def notify(progress: Any) -> None:
            bar.update(task, completed=progress.share, left=_left(progress.seconds_left), description=progress.phase)
            if progress.line:
                bar.console.print(escape(progress.line), soft_wrap=True)

        yield notify


def _lines() -> Notify:
    last = time.monotonic()

    def notify(progress: Any) -> None:
        nonlocal last
        if progress.line:
            click.echo(f"[{progress.share:4.0%}] {progress.line}", err=True)
        elif time.monotonic() - last > LINE_SECONDS:
            click.echo(f"[{progress.share:4.0%}] {progress.phase} {_left(progress.seconds_left)}".rstrip(), err=True)
        else:
            return
        last = time.monotonic()

    return notify


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min left" if hours else f"{minutes}:{rest:02d} left"


def _print_plans(plans: Sequence[Plan], as_json: bool) -> None:
    from soniq_dse.explore import forecast

    ahead = [forecast(plan) for plan in plans]
    if as_json:
        found = [_plan_json(plan, one) for plan, one in zip(plans, ahead, strict=True)]
        print_json(found[0] if len(found) == 1 else found)
        return
    for plan, one in zip(plans, ahead, strict=True):
        _print_plan(plan, one)
    if len(plans) > 1:
        n_trainings, left = sum(len(one.trainings) for one in ahead), _left(sum(one.seconds for one in ahead))
        shared = "; what runs share is trained once" if len({plan.store_folder for plan in plans}) == 1 else ""
        click.echo(f"{len(plans)} runs, {n_trainings} trainings, at most {left.removesuffix(' left')}{shared}")


def _plan_json(plan: Plan, ahead: Forecast) -> dict[str, Any]:
    return {
        "folder": str(plan.folder),
        "hardware": plan.hardware.name,
        "trainings": [name for name, _ in ahead.trainings],
        "missing": ahead.missing,
        "skipped": [skip.to_json_value() for skip in plan.skipped],
        "seconds": round(ahead.seconds, 1),
        "jobs": plan.options.jobs,
        "search": plan.search,
        "search_epochs": plan.search_epochs,
    }


def _print_plan(plan: Plan, ahead: Forecast) -> None:
    from soniq_dse.cli.runs import by_reason

    reasons = {choice.palette.name: choice.reason for choice in plan.choices}
    rows = [
        [name, "finished" if is_finished else "to do", reasons.get(re.split("[@,]|-x", name)[0], "reference")]
        for name, is_finished in ahead.trainings
    ]
    title = f"{len(rows)} trainings, {len(ahead.missing)} still to do"
    if plan.search_epochs is not None:
        title += f"; {_searched(plan)}"
    console().print(table(title, {"training": "left", "state": "left", "why": "left"}, rows))
    if plan.skipped:
        skipped = [[names, reason] for names, reason in by_reason(plan.skipped)]
        console().print(table("left out", {"palette": "left", "why": "left"}, skipped))
    about = _left(ahead.seconds).removesuffix(" left")
    click.echo(f"about {about} (minutes:seconds) with {plan.options.jobs} at once; into {plan.folder}")


def _print_outcomes(outcomes: Sequence[Outcome], as_json: bool) -> None:
    from soniq_dse.cli.runs import print_front

    if as_json:
        found = [{"folder": str(one.folder), "page": str(one.page), "failures": one.failures,
                  "front": one.report.front.to_json_value()} for one in outcomes]  # fmt: skip
        print_json(found[0] if len(found) == 1 else found)
        return
    for outcome in outcomes:
        print_front(outcome.report)
        click.echo(f"report: {outcome.page}")
