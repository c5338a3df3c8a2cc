"""``soniq-dse compare``: the front over finished runs, of one machine or several."""

from __future__ import annotations

import os
from pathlib import Path

import click

from soniq_dse.cli._common import json_option, print_json


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write a page of all runs to.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=Path("reports") / "runs",
              show_default=True, help="Folder of runs.")  # fmt: skip
@json_option
def command(runs: tuple[str, ...], out: Path | None, root: Path, as_json: bool) -> None:
    """Show the front over several finished RUNs of one task, by predicted latency.

    Example:  soniq-dse compare digits-avx512 digits-avx2
    """
    from soniq_dse.cli._find_run import find_run, load_report
    from soniq_dse.cli.runs import print_joint
    from soniq_dse.report.build import build_report
    from soniq_dse.report.overlay import joint

    if len(set(runs)) < 2:
        raise click.UsageError("expected two runs or more; soniq-dse runs list names them")
    folders = list({folder.resolve(): folder for folder in (find_run(run, root) for run in runs)}.values())
    if len(folders) < 2:
        raise click.UsageError(f"expected two runs or more, got {folders[0]} under several names")
    names = [folder.name for folder in folders]
    named = {name if names.count(name) == 1 else str(path): path for name, path in zip(names, folders, strict=True)}
    from_page = [] if out is None else [os.path.relpath(folder, out) for folder in folders]
    report = joint({name: load_report(folder) for name, folder in named.items()}, from_page)
    page = None if out is None else build_report(report, out)
    if as_json:
        front = [point.to_json_value() for point in report.joint]
        print_json({"front": front, "page": None if page is None else str(page)})
        return
    print_joint(report)
    if page is not None:
        click.echo(f"report: {page}")
