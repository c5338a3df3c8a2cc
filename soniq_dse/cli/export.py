"""``soniq-dse export``: one trained design as a file of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soniq_dse.cli._common import json_option, print_json
from soniq_dse.errors import UserError, unknown_name

if TYPE_CHECKING:
    from soniq_dse.runtime.pack import PackedNetwork

PACKED = ".soniq"
CHECKED_SAMPLES = 4


@click.command(epilog="Example:  soniq-dse export digits-avx512 w1a1+w4a4@2 --to net.soniq")
@click.argument("run")
@click.argument("design")
@click.option("--to", "target", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="File to write: NAME.soniq, the packed network, or NAME.onnx, ONNX QDQ.")  # fmt: skip
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=Path("reports") / "runs",
              show_default=True, help="Folder of runs.")  # fmt: skip
@json_option
def command(run: str, design: str, target: Path, root: Path, as_json: bool) -> None:
    """Write DESIGN of RUN as one file that any machine can run.

    RUN and DESIGN are names as the run's table shows them. The packed network holds the weights at their true bits; its
    kernels are chosen where it is run: soniq-dse run NAME.soniq --data DATA. A file for another program is run by it
    at once, on random samples, and compared with the golden arithmetic. Exit code 1 where they differ.
    """
    from soniq_dse import registry
    from soniq_dse.cli.run import find_design
    from soniq_dse.cli.runs import find_run
    from soniq_dse.runtime.pack import PackedNetwork

    suffixes = (PACKED, *(f".{name}" for name in registry.names("export")))
    if target.suffix not in suffixes:
        raise unknown_name("format (the suffix of --to)", target.suffix, suffixes)
    folder = find_run(run, root)
    source = find_design(f"{folder.name}/{design}", folder.parent)
    packed = PackedNetwork.load(source)
    if target.exists() and target.samefile(source):
        raise UserError(f"to: expected another file than the run's own, got {target}")
    notes, difference = _write(packed, target)
    size_bytes = target.stat().st_size
    if as_json:
        found = {"design": source.stem, "path": str(target), "size_bytes": size_bytes}
        print_json(found | ({} if difference is None else {"notes": notes, "largest_difference": difference}))
    else:
        click.echo(f"{target}: {source.stem}, {size_bytes} bytes ({packed.size_bytes} of them weights and scales)")
        for note in notes:
            click.echo(f"note: {note}")
        if difference is not None:
            compared = "equal" if difference == 0 else f"differ by up to {difference:.3g} from"
            click.echo(f"outputs of {CHECKED_SAMPLES} random samples {compared} those of the golden arithmetic")
    if difference:
        sys.exit(1)


def _write(packed: PackedNetwork, target: Path) -> tuple[tuple[str, ...], float | None]:
    """Write the file: what its reader should know of it, and by how much its outputs differ from the golden ones; None
    for a packed network, which ``run`` checks."""
    import numpy as np

    from soniq_dse import registry
    from soniq_dse.export import Base, Design
    from soniq_dse.formats.network import evaluate

    if target.suffix == PACKED:
        packed.save(target)
        return (), None
    exporter: Base = registry.load("export", target.suffix[1:])()
    notes = exporter.write(Design(packed.network, packed.arrays), target)
    x = np.random.default_rng(0).standard_normal((CHECKED_SAMPLES, *packed.in_shape)).astype(np.float32)
    difference = np.abs(exporter.outputs(target, x) - evaluate(packed.network, packed.arrays, x)).max()
    return notes, float(difference)
