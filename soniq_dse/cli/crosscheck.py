"""``soniq-dse crosscheck``: predictions beside measurements, and whether the goals of the cost model hold here."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soniq_dse.cli._common import console, json_option, print_json, table
from soniq_dse.cli.palette import hw_option, machine

if TYPE_CHECKING:
    from soniq_dse.records.crosscheck import Crosscheck, MeasuredLayers

NOT_HERE = 3
SHOWN = 10


@click.command(epilog="Example:  soniq-dse crosscheck --hw mine.yaml --layers layers.json")
@hw_option
@click.option("--layers", type=click.Path(path_type=Path), metavar="FILE",
              help="JSON array of layers (docs/schemas/layers.schema.json).  [default: a built-in set]")  # fmt: skip
@click.option("--networks", is_flag=True, help="Whole networks too: every model at several palettes, untrained.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Folder for predictions, page and numbers.  [default: reports/runs/crosscheck-NAME]")  # fmt: skip
@click.option("--keep", is_flag=True,
              help="Keep them in hwmodels/measured/NAME: later estimates take their intervals from there.")  # fmt: skip
@click.option("--budget-s", type=click.FloatRange(min=0, min_open=True), metavar="S",
              help="Begin no measurement after so many seconds.  [default: measure all]")  # fmt: skip
@json_option
def command(
    hw_name: str | None,
    layers: Path | None,
    networks: bool,
    out: Path | None,
    keep: bool,
    budget_s: float | None,
    as_json: bool,
) -> None:
    """Predict layers, then measure them on this machine, and say how far the two agree.

    Predictions are written to DIR/predictions.json before the first measurement, and every measurement to DIR as it is
    made: interrupt it whenever you like, the same command goes on. Where the descriptor speaks of another
    machine, there are predictions only; of a GPU that is not here, kept measurements are taken. Exit code 1 where a
    goal of the cost model is missed (it says which), 2 for a wrong file, 3 where this machine cannot run the kernels.
    """
    from soniq_dse.crosscheck import Options, built_in_layers, crosscheck, read_layers
    from soniq_dse.hardware.host import detect_host
    from soniq_dse.report.crosscheck import build_crosscheck, finding

    hw = machine(hw_name)
    chosen = built_in_layers() if layers is None else read_layers(layers, hw)
    folder = out or Path("reports") / "runs" / f"crosscheck-{hw.name}"
    command_line = shlex.join(["soniq-dse", *sys.argv[1:]])
    options = Options(folder, networks, command_line, math.inf if budget_s is None else budget_s)
    progress = console(stderr=True)
    with progress.status("predicting") as status:
        found = crosscheck(hw, chosen, detect_host(), options, status.update)
    record, page = found.record, build_crosscheck(found.record, folder)
    kept = _keep(found.kept) if keep and found.kept is not None else None
    if as_json:
        print_json(record.to_json_value() | {"page": str(page), "kept": kept and str(kept)})
    else:
        _show(record)
        click.echo(finding(record))
        click.echo(f"page: {page}" + (f"; measurements kept in {kept}" if kept else ""))
    missed = [f"{g.id} ({g.name}: {g.value:.3g} {g.unit}, goal {g.bound})" for g in record.goals if not g.met]
    if missed:
        click.echo(f"goals missed: {'; '.join(missed)}", err=True)
        sys.exit(1)
    if not found.host_can_run:
        click.echo(f"not measured: {record.not_measured}; this machine cannot run its kernels", err=True)
        sys.exit(NOT_HERE)


def _show(record: Crosscheck) -> None:
    """The rows farthest off, or the first ones where nothing was measured."""
    from soniq_dse.report.crosscheck import worst_rows

    worst = worst_rows(record)[:SHOWN]
    columns = {"name": "left", "predicted us": "right", "measured us": "right", "error": "right", "reason": "left"}
    rows = [
        [
            row.name,
            f"{row.predicted_us:.4g}",
            "-" if row.measured_us is None else f"{row.measured_us:.4g}",
            "-" if row.error_percent is None else f"{row.error_percent:+.1f} %",
            row.reason,
        ]
        for row in worst or record.rows[:SHOWN]
    ]
    what = "farthest off" if worst else "predicted only, not measured"
    console().print(table(f"{record.hardware}: {len(rows)} of {len(record.rows)} rows, {what}", columns, rows))


def _keep(kept: MeasuredLayers) -> Path:
    """Write the measurements where estimates look for them first: below the current folder."""
    path = Path("hwmodels") / "measured" / kept.hardware / "layers.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = kept.to_json_value()
    lines = ",\n".join(f"  {json.dumps(layer, ensure_ascii=False)}" for layer in fields.pop("layers"))
    head = json.dumps(fields, indent=1, ensure_ascii=False)[:-2]
    path.write_text(f'{head},\n "layers": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    return path
