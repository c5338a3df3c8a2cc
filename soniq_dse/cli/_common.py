"""What the commands share: ``--json``, the two streams, tables."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print machine-readable JSON on standard output.")


def print_json(value: Any) -> None:
    """JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def console(*, stderr: bool = False) -> Any:
    """A rich console; colour and width follow the terminal, ``NO_COLOR`` and ``TERM``."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else 140)


def table(title: str, columns: dict[str, str], rows: list[list[str]]) -> Any:
    """A rich table: ``columns`` maps a heading to its justification (left or right)."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    result = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for heading, justify in columns.items():
        result.add_column(heading, justify="right" if justify == "right" else "left")
    for row in rows:
        result.add_row(*[escape(cell) for cell in row])
    return result
