"""``soniq-dse hw``: list, show, check, start and measure hardware descriptors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soniq_dse.cli._common import console, json_option, print_json, table, write_new
from soniq_dse.cli.palette import set_option
from soniq_dse.errors import UserError

if TYPE_CHECKING:
    from soniq_dse.hardware.probes import Probe
    from soniq_dse.hardware.survey import Survey
    from soniq_dse.records.cost import Host
    from soniq_dse.records.hardware import HardwareModel


@click.group(epilog="Example:  soniq-dse hw show avx512")
def command() -> None:
    """List, show, check, start and measure hardware descriptors.

    A descriptor is one YAML file that says what a machine can do, each figure with its kind and source. NAME is a path,
    or a name looked up in the current folder and then among the shipped descriptors.
    """


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the descriptors of the current folder and the shipped ones.

    Only the head of each file is read; `hw validate` checks all of it.

    Example:  soniq-dse hw list
    """
    from soniq_dse.hardware.find import list_descriptors

    rows = [_list_entry(path) for path in list_descriptors()]
    if as_json:
        print_json(rows)
        return
    columns = dict.fromkeys(("name", "title", "isa"), "left")
    columns |= dict.fromkeys(("SIMD bits", "cores", "clock GHz"), "right") | {"this host": "left"}
    console().print(table("", columns, [_list_row(row) for row in rows]))


def _list_row(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["name"], f"not valid: see soniq-dse hw validate {row['file']}", *["-"] * 5]
    widths, matches = "/".join(map(str, row["simd_width_bits"])) or "-", "yes" if row["matches_host"] else "no"
    return [row["name"], row["title"], row["isa"], widths, f"{row['cores']:g}", f"{row['clock_ghz']:g}", matches]


def _list_entry(path: Path) -> dict[str, Any]:
    from soniq_dse.hardware.document import DescriptorError
    from soniq_dse.hardware.gpus import detected_gpus, match_gpu
    from soniq_dse.hardware.host import detect_host, match_host
    from soniq_dse.hardware.overview import GpuHead, read_head

    try:
        head = read_head(path)
    except DescriptorError as error:
        return {"file": str(path), "name": path.stem, "error": str(error)}
    entry = {"file": str(path), "name": path.stem, "title": head.title, "clock_ghz": head.clock_ghz.value}
    if isinstance(head, GpuHead):
        return entry | {
            "isa": head.architecture,
            "simd_width_bits": [],
            "cores": head.multiprocessors.value,
            "matches_host": match_gpu(head.name, head.matches, detected_gpus())[0],
        }
    return entry | {
        "isa": head.isa,
        "simd_width_bits": sorted(simd.width_bits for simd in head.simd),
        "cores": head.cores,
        "matches_host": match_host(head, detect_host())[0],
    }


@command.command("show")
@click.argument("name")
@set_option
@json_option
def show_command(name: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Show a machine: its figures with kind and source, and the bit-widths that it computes natively.

    Example:  soniq-dse hw show avx512
    """
    from soniq_dse.hardware.gpus import detected_gpus, gpu_levels, gpu_sheets, match_gpu
    from soniq_dse.hardware.host import detect_host, match_host
    from soniq_dse.hardware.levels import native_levels
    from soniq_dse.hardware.load import load_machine
    from soniq_dse.hardware.render import sheets
    from soniq_dse.hardware.whatif import what_if
    from soniq_dse.records.gpu import GpuModel

    hw = load_machine(name)
    if isinstance(hw, GpuModel):
        hw = what_if(hw, settings)
        levels, (matches, reason) = gpu_levels(hw), match_gpu(hw.name, hw.matches, detected_gpus())
        tables = gpu_sheets(hw, levels)
        heading = f"{hw.architecture} · {hw.multiprocessors.value:g} multiprocessors"
    else:
        hw = what_if(hw, settings)
        levels, (matches, reason) = native_levels(hw), match_host(hw, detect_host())
        tables = sheets(hw, levels)
        heading = f"{hw.isa} · {hw.cores} cores · {', '.join(hw.features)}"
    if as_json:
        print_json(
            {
                "hardware": hw.to_json_value(),
                "native_levels": [level.to_json_value() | {"name": level.level.name} for level in levels],
                "matches_host": matches,
                "matches_host_reason": reason,
            }
        )
        return
    out = console()
    out.print(f"{hw.title}\n{hw.name} · {heading}\n{reason}\n", markup=False)
    for sheet in tables:
        out.print(table(sheet.title, sheet.columns, sheet.rows))


@command.command("validate")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@json_option
@click.pass_context
def validate_command(context: click.Context, files: tuple[str, ...], as_json: bool) -> None:
    """Check descriptors; every error of every file with its line. Exit code 2 where one is not valid.

    Example:  soniq-dse hw validate mine.yaml
    """
    results = [_validated(file) for file in files]
    if as_json:
        print_json(results)
    else:
        for result in results:
            if result["valid"]:
                click.echo(f"{result['file']}: valid")
            for problem in result["problems"]:
                click.echo(problem["text"], err=True)
    context.exit(0 if all(result["valid"] for result in results) else 2)


def _validated(file: str) -> dict[str, Any]:
    from soniq_dse.hardware.document import DescriptorError
    from soniq_dse.hardware.load import load_machine

    problems: list[dict[str, Any]] = []
    try:
        load_machine(file)
    except DescriptorError as error:
        problems = [
            {**problem.place._asdict(), "field": problem.field, "message": problem.message, "text": str(problem)}
            for problem in error.problems
        ]
    except UserError as error:
        problems = [{"file": file, "line": 0, "column": 0, "field": "", "message": str(error), "text": str(error)}]
    return {"file": file, "valid": not problems, "problems": problems}


@command.command("init")
@click.argument("new", metavar="NEW.yaml", type=click.Path(path_type=Path))
@click.option(
    "--from", "source", metavar="NAME", help="Descriptor to copy. Default: the shipped one nearest to this host."
)
@click.option("--title", help="Title of the machine. Default: this processor's name.")
@json_option
def init_command(new: Path, source: str | None, title: str | None, as_json: bool) -> None:
    """Start a descriptor for this machine: a valid, commented copy of the nearest one.

    Figures that were copied from another machine are marked `kind: assumed`. An existing file is never overwritten.

    Example:  soniq-dse hw init mine.yaml --from avx2
    """
    from soniq_dse.hardware.find import find_descriptor
    from soniq_dse.hardware.host import default_descriptor, detect_host
    from soniq_dse.hardware.start import start_descriptor

    host = detect_host()
    path, reason = (find_descriptor(source), f"copied from {source}") if source else default_descriptor(host)
    text = start_descriptor(new, path, host, title)
    write_new(new, text)
    if as_json:
        print_json({"file": str(new), "from": str(path), "reason": reason})
        return
    click.echo(str(new))
    click.echo(f"{reason}\nnext: soniq-dse hw show {new}", err=True)


@command.command("calibrate")
@click.option("--out", metavar="NEW.yaml", type=click.Path(path_type=Path), help="New file for the descriptor.")
@click.option(
    "--update", "old", metavar="FILE", type=click.Path(path_type=Path), help="Measure the figures of a file again."
)
@click.option(
    "--from", "source", metavar="NAME", help="Base for what cannot be measured. Default: the nearest shipped one."
)
@click.option("--quick", is_flag=True, help="Read less often: about half the time, more noise.")
@json_option
def calibrate_command(out: Path | None, old: Path | None, source: str | None, quick: bool, as_json: bool) -> None:
    """Measure this machine: instructions, pipes, caches, memory, clock. Takes less than a minute.

    Writes a complete descriptor with samples, spread, date, processor and compiler behind every measured figure, to
    standard output without --out. --update changes only the measured figures of a descriptor and prints a table of
    them. Figures that never became steady are named: then let the machine rest and measure again.

    Exit code 3: no x86-64 processor, or no C++ compiler.

    Example:  soniq-dse hw calibrate --out mine.yaml
    """
    if old is not None:
        if out is not None or source is not None:
            raise UserError("--update: expected it alone, got --out or --from too; --update keeps the file's own base")
        _update(old, quick=quick, as_json=as_json)
        return
    _calibrate(out, source, quick=quick, as_json=as_json)


def _calibrate(out: Path | None, source: str | None, *, quick: bool, as_json: bool) -> None:
    from soniq_dse.hardware.calibrate import calibrated
    from soniq_dse.hardware.find import find_descriptor
    from soniq_dse.hardware.host import default_descriptor, machine
    from soniq_dse.hardware.load import load_hardware
    from soniq_dse.hardware.survey import take_survey
    from soniq_dse.hardware.writing import check_name, replace_file

    if out is not None:
        check_name(out)
        if out.exists():
            raise UserError(f"{out}: expected a new file, got one that exists; --update {out} measures it again")
    host, probes = _measurable()
    base = load_hardware(find_descriptor(source) if source else default_descriptor(host)[0])
    if base.isa != machine():
        raise UserError(f"--from {source}: expected a descriptor for {machine()}, got one for {base.isa}")
    survey = take_survey(host, probes, _progress, quick=quick)
    result = calibrated(base, survey, out.stem if out else "this_host")
    if out is not None:
        replace_file(out, result.text)
    for verdict in result.verdicts:
        click.echo(verdict, err=True)
    left = _unmeasured(base, survey)
    _warn(result.unsteady, left)
    if as_json:
        print_json(
            {
                "file": str(out) if out else None,
                "from": base.name,
                "hardware": result.hardware.to_json_value(),
                "ports": list(result.verdicts),
                "unsteady": list(result.unsteady),
                "not_measured": list(left),
            }
        )
    elif out is None:
        click.echo(result.text, nl=False)
    else:
        click.echo(str(out))
        click.echo(f"next: soniq-dse explore --hw ./{out}", err=True)


def _update(file: Path, *, quick: bool, as_json: bool) -> None:
    from soniq_dse.hardware.calibrate import unsteady_figures
    from soniq_dse.hardware.recalibrate import own_descriptor, update
    from soniq_dse.hardware.survey import take_survey

    host, probes = _measurable()
    own_descriptor(file, host)
    survey = take_survey(host, probes, _progress, quick=quick, with_mixes=False)
    changes = update(file, survey)
    unsteady = unsteady_figures(survey)
    _warn(unsteady, ())
    if as_json:
        rows = [
            {
                "figure": c.figure, "old": c.old, "old_kind": c.old_kind, "new": c.new, "change_percent": c.percent,
                "beyond_spread": c.beyond_spread,
            }
            for c in changes
        ]  # fmt: skip
        print_json({"file": str(file), "changes": rows, "unsteady": list(unsteady)})
        return
    columns = {"figure": "left", "old": "right", "was": "left", "new": "right", "change %": "right", "": "left"}
    cells = [
        [
            c.figure, "-" if c.old is None else f"{c.old:g}", c.old_kind, f"{c.new:g}",
            "-" if c.percent is None else f"{c.percent:+.1f}", "beyond the spread" if c.beyond_spread else "",
        ]
        for c in sorted(changes, key=lambda c: -abs(c.percent or 0))
    ]  # fmt: skip
    console().print(table(f"{file}: {len(changes)} figures measured", columns, cells))


def _measurable() -> tuple[Host, tuple[Probe, ...]]:
    """This host and what can be measured on it; says what is missing before anything takes time."""
    from soniq_dse.hardware.host import detect_host
    from soniq_dse.hardware.microbench import available_probes
    from soniq_dse.native.compiler import host_compiler

    host = detect_host()
    probes = available_probes(host.features)
    host_compiler()
    return host, probes


def _progress(text: str) -> None:
    click.echo(text, err=True)


def _unmeasured(base: HardwareModel, survey: Survey) -> tuple[str, ...]:
    """What kernels that run here emit and the base lists, and no microbenchmark covers: ``vpermb at 256, 512``.

    Vector moves count as loads and stores.
    """
    from soniq_dse.hardware.calibrate import unmeasured
    from soniq_dse.hardware.host import missing_features
    from soniq_dse.kernels.catalog import catalog
    from soniq_dse.kernels.loops import kept_loop

    listed = {
        (name, bits)
        for name, entry in base.instructions.items()
        for bits in entry.widths
        if not missing_features(entry.features, survey.host) and bits <= survey.width_bits
    }
    kernels = [spec.symbol for spec in catalog() if spec.features and not missing_features(spec.features, survey.host)]
    emitted = {(ins.mnemonic, ins.width_bits) for loop in map(kept_loop, kernels) if loop for ins in loop.instructions}
    vectors = {(name, bits) for name, bits in emitted if bits and not re.match(r"v(mov|p?broadcast)", name)}
    return unmeasured(vectors | listed, survey)


def _warn(unsteady: Sequence[str], left: Sequence[str]) -> None:
    if unsteady:
        click.echo(
            f"warning: the spread of {len(unsteady)} figures stayed above 2 %: {', '.join(unsteady)}; "
            "the machine is busy: let it rest and measure again with --update",
            err=True,
        )
    if left:
        click.echo(
            f"no microbenchmark for {', '.join(left)}: taken from the base descriptor where it has them", err=True
        )
