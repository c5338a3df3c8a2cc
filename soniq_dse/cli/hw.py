"""``soniq-dse hw``: list, show, check and start hardware descriptors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from soniq_dse.cli._common import console, json_option, print_json, table
from soniq_dse.errors import UserError


@click.group()
def command() -> None:
    """List, show, check and start hardware descriptors.

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
    widths, matches = "/".join(map(str, row["simd_width_bits"])), "yes" if row["matches_host"] else "no"
    return [row["name"], row["title"], row["isa"], widths, str(row["cores"]), f"{row['clock_ghz']:g}", matches]


def _list_entry(path: Path) -> dict[str, Any]:
    from soniq_dse.hardware.document import DescriptorError
    from soniq_dse.hardware.host import detect_host, match_host
    from soniq_dse.hardware.overview import read_head

    try:
        head = read_head(path)
    except DescriptorError as error:
        return {"file": str(path), "name": path.stem, "error": str(error)}
    return {
        "file": str(path),
        "name": path.stem,
        "title": head.title,
        "isa": head.isa,
        "simd_width_bits": sorted(simd.width_bits for simd in head.simd),
        "cores": head.cores,
        "clock_ghz": head.clock_ghz.value,
        "matches_host": match_host(head, detect_host())[0],
    }


@command.command("show")
@click.argument("name")
@json_option
def show_command(name: str, as_json: bool) -> None:
    """Show a machine: its figures with kind and source, and the bit-widths that it computes natively.

    Example:  soniq-dse hw show avx512
    """
    from soniq_dse.hardware.host import detect_host, match_host
    from soniq_dse.hardware.levels import native_levels
    from soniq_dse.hardware.load import load_hardware
    from soniq_dse.hardware.render import sheets

    hw = load_hardware(name)
    levels = native_levels(hw)
    matches, reason = match_host(hw, detect_host())
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
    out.print(
        f"{hw.title}\n{hw.name} · {hw.isa} · {hw.cores} cores · {', '.join(hw.features)}\n{reason}\n", markup=False
    )
    for sheet in sheets(hw, levels):
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
    from soniq_dse.hardware.load import load_hardware

    problems: list[dict[str, Any]] = []
    try:
        load_hardware(file)
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
    try:
        with new.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UserError(f"{new}: expected a new file, got one that exists; choose another name") from error
    except OSError as error:
        raise UserError(f"{new}: expected a writable place, got: {error.strerror}") from error
    if as_json:
        print_json({"file": str(new), "from": str(path), "reason": reason})
        return
    click.echo(str(new))
    click.echo(f"{reason}\nnext: soniq-dse hw show {new}", err=True)
