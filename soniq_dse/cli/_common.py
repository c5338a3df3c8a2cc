"""What the commands share: ``--json``, the two streams, tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from soniq_dse.errors import UserError

json_option = click.option("--json", "as_json", is_flag=True, help="Print machine-readable JSON on standard output.")


def print_json(value: Any) -> None:
    """JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def write_new(path: Path, text: str) -> None:
    """A file that was not there.

    Raises:
        UserError: it exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UserError(f"{path}: expected a new file, got one that exists; choose another name") from error
    except OSError as error:
        raise UserError(f"{path}: expected a writable place, got: {error.strerror}") from error


def console(*, stderr: bool = False) -> Any:
    """A rich console; colour and width follow the terminal, ``NO_COLOR`` and ``TERM``."""
    from rich.console import Console

    class PipedConsole(Console):
        def on_broken_pipe(self) -> None:
            """``| head`` closed the pipe: no failure, so not rich's exit code of 1."""
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    return PipedConsole(stderr=stderr, highlight=False, width=None if stream.isatty() else 140)


def pricing() -> Any:
    """A line on standard error, where that is a terminal, while kernels are simulated."""
    return console(stderr=True).status("pricing kernels cycle by cycle (seconds, the first time on a machine)")


def table(title: str, columns: dict[str, str], rows: list[list[str]]) -> Any:
    """A rich table: ``columns`` maps a heading to its justification (left or right)."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    result = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False, collapse_padding=True)
    for index, (heading, justify) in enumerate(columns.items()):
        if justify == "right":  # a number is never broken
            widest = max((len(row[index]) for row in rows), default=0)
            result.add_column(heading, justify="right", min_width=widest, overflow="fold")
        else:
            result.add_column(heading, justify="left", overflow="fold")
    for row in rows:
        result.add_row(*[escape(cell) for cell in row])
    return result
