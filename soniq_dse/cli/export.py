"""``soniq-dse export``: one trained design as a file of its own."""

from __future__ import annotations

from pathlib import Path

import click

from soniq_dse.cli._common import json_option, print_json
from soniq_dse.errors import UserError, unknown_name

SUFFIXES = (".soniq",)


@click.command(epilog="Example:  soniq-dse export digits-avx512 w1a1+w4a4@2 --to net.soniq")
@click.argument("run")
@click.argument("design")
@click.option("--to", "target", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="File to write: NAME.soniq, the packed network.")  # fmt: skip
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=Path("reports") / "runs",
              show_default=True, help="Folder of runs.")  # fmt: skip
@json_option
def command(run: str, design: str, target: Path, root: Path, as_json: bool) -> None:
    """Write DESIGN of RUN as one file that any machine can run.

    RUN and DESIGN are names as the run's table shows them. The packed network holds the weights at their true bits; its
    kernels are chosen where it is run: soniq-dse run NAME.soniq --data DATA.
    """
    from soniq_dse.cli.run import find_design
    from soniq_dse.cli.runs import find_run
    from soniq_dse.runtime.pack import PackedNetwork

    if target.suffix not in SUFFIXES:
        raise unknown_name("format (the suffix of --to)", target.suffix, SUFFIXES)
    folder = find_run(run, root)
    source = find_design(f"{folder.name}/{design}", folder.parent)
    packed = PackedNetwork.load(source)
    if target.exists() and target.samefile(source):
        raise UserError(f"to: expected another file than the run's own, got {target}")
    packed.save(target)
    size_bytes = target.stat().st_size
    if as_json:
        print_json({"design": source.stem, "path": str(target), "size_bytes": size_bytes})
    else:
        click.echo(f"{target}: {source.stem}, {size_bytes} bytes ({packed.size_bytes} of them weights and scales)")
