"""``soniq-dse export``: one trained design as a file of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soniq_dse.cli._common import json_option, print_json
from soniq_dse.errors import UserError, unknown_name

if TYPE_CHECKING:
    from soniq_dse.records.choice import Choices
    from soniq_dse.runtime.pack import PackedNetwork

PACKED, COMPILED = ".soniq", ".zip"
CHECKED_SAMPLES = 4


@click.command(epilog="Example:  soniq-dse export digits-avx512 w1a1+w4a4@2 --to net.soniq")
@click.argument("run")
@click.argument("design")
@click.option("--to", "target", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="File to write: NAME.soniq (packed network), .onnx (QDQ), .pt2 (PyTorch), .zip (C++).")  # fmt: skip
@click.option("--hw", "hw_name", metavar="NAME", help="Machine that C++ is written for: path or name of a descriptor.  "
              "[default: this one]")  # fmt: skip
@click.option("--portable", is_flag=True, help="Plain C++ for any processor.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=Path("reports") / "runs",
              show_default=True, help="Folder of runs.")  # fmt: skip
@json_option
def command(
    run: str, design: str, target: Path, hw_name: str | None, portable: bool, root: Path, as_json: bool
) -> None:
    """Write DESIGN of RUN as one file that any machine can run.

    RUN and DESIGN are names as the run's table shows them; of a front over machines, DESIGN is MACHINE/DESIGN where the
    machines differ in it. The packed network holds the weights at their true bits; its
    kernels are chosen where it is run: soniq-dse run NAME.soniq --data DATA. A file for another program is run by it
    at once, on random samples, and compared with the golden arithmetic. Exit code 1 where
    they differ, but for Transformers, whose norms and attention other programs sum in their own order.
    """
    from soniq_dse import registry
    from soniq_dse.cli._designs import find_in_run
    from soniq_dse.cli._find_run import find_run
    from soniq_dse.export.lowering import ROUNDED
    from soniq_dse.runtime.pack import PackedNetwork

    suffixes = (PACKED, *(f".{name}" for name in registry.names("export")))
    if target.suffix not in suffixes:
        raise unknown_name("format (the suffix of --to)", target.suffix, suffixes)
    if (hw_name or portable) and target.suffix != COMPILED:
        raise UserError(f"{'--portable' if portable else '--hw'}: expected with NAME{COMPILED}, got {target.name}")
    if hw_name and portable:
        raise UserError("--portable: expected without --hw, got both")
    source = find_in_run(find_run(run, root), design)
    packed = PackedNetwork.load(source)
    if target.exists() and target.samefile(source):
        raise UserError(f"to: expected another file than the run's own, got {target}")
    notes, difference = _write(packed, target, hw_name, portable)
    size_bytes = target.stat().st_size
    if as_json:
        found = {"design": source.stem, "path": str(target), "size_bytes": size_bytes}
        print_json(found | {"notes": notes, "largest_difference": difference})
    else:
        click.echo(f"{target}: {source.stem}, {size_bytes} bytes ({packed.size_bytes} of them weights and scales)")
        for note in notes:
            click.echo(f"note: {note}")
        if difference is not None:
            compared = "equal" if difference == 0 else f"differ by up to {difference:.3g} from"
            click.echo(f"outputs of {CHECKED_SAMPLES} random samples {compared} those of the golden arithmetic")
    if difference and not set(ROUNDED) & {node.op for node in packed.network.nodes}:
        sys.exit(1)


def _write(
    packed: PackedNetwork, target: Path, hw_name: str | None, portable: bool
) -> tuple[tuple[str, ...], float | None]:
    """Write the file: what its reader should know of it, and by how much its outputs differ from the golden ones; None
    for a packed network, which ``run`` checks, and for what this processor cannot run."""
    import numpy as np

    from soniq_dse import registry
    from soniq_dse.export import Base, Design
    from soniq_dse.formats.network import evaluate
    from soniq_dse.hardware.host import detect_host, missing_features
    from soniq_dse.records.choice import Choices

    if target.suffix == PACKED:
        packed.save(target)
        return (), None
    exporter: Base = registry.load("export", target.suffix[1:])()
    features, choices = _compiled_for(packed, hw_name, portable) if target.suffix == COMPILED else ((), Choices())
    notes = exporter.write(Design(packed.network, packed.arrays, features, choices), target)
    if missing_features(features, detect_host()):
        return (*notes, "not run: this is another processor"), None
    rng, shape = np.random.default_rng(0), (CHECKED_SAMPLES, *packed.in_shape)
    is_text = packed.n_tokens is not None
    x = rng.integers(0, packed.n_tokens, shape) if is_text else rng.standard_normal(shape).astype(np.float32)
    difference = np.abs(exporter.outputs(target, x) - evaluate(packed.network, packed.arrays, x)).max()
    return notes, float(difference)


def _compiled_for(packed: PackedNetwork, hw_name: str | None, portable: bool) -> tuple[tuple[str, ...], Choices]:
    """The features that compiled code may use, and the kernels that the cost model chooses for them."""
    from soniq_dse.cost.network import choose_kernels
    from soniq_dse.hardware.host import default_descriptor, detect_host, match_host
    from soniq_dse.hardware.load import load_hardware
    from soniq_dse.records.choice import Choices
    from soniq_dse.runtime.autotune import tuned_choices

    if portable:
        return (), Choices()
    host = detect_host()
    hardware = load_hardware(hw_name or default_descriptor(host)[0])
    is_host = match_host(hardware, host)[0]
    features = host.features if is_host or hw_name is None else hardware.features
    if not is_host and hw_name is None:
        return features, Choices()
    known = tuned_choices() if is_host else Choices()
    return features, choose_kernels(hardware, packed.shapes(1), known=known)
