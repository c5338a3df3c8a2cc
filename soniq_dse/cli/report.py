"""``soniq-dse report``: build the page of a run again."""

from __future__ import annotations

from pathlib import Path

import click

from soniq_dse.cli._common import json_option, print_json
from soniq_dse.cli._find_run import ROOT, find_run, load_report


@click.command(epilog="Example:  soniq-dse report digits-avx512 --over digits-avx2")
@click.argument("run")
@click.option(
    "--over",
    multiple=True,
    metavar="RUN",
    help="Lay another run of the same task over it, on another machine; may repeat.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.  [default: the run's]"
)
@click.option(
    "--root", type=click.Path(file_okay=False, path_type=Path), default=ROOT, show_default=True, help="Folder of runs."
)
@json_option
def command(run: str, over: tuple[str, ...], out: Path | None, root: Path, as_json: bool) -> None:
    """Build the report page of a finished RUN (a folder, or a name below the folder of runs) from its report.json."""
    from soniq_dse.report.build import build_report
    from soniq_dse.report.overlay import overlay

    folder = find_run(run, root)
    others = [load_report(find_run(other, root)) for other in over]
    page = build_report(overlay(load_report(folder), others), out or folder)
    if as_json:
        print_json({"page": str(page)})
    else:
        click.echo(f"report: {page}")
