"""The command line: one module per command, loaded when it is called, so that ``--help`` stays fast.

To add one: a file here with a click command called ``command``, and its line in ``COMMANDS``.
Standard output carries data, standard error progress and messages. Exit codes: 0 ok, 1 finished but something failed or
missed its goal, 2 usage or invalid file, 3 missing capability, 130 interrupted and resumable.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import click

from soniq_dse.errors import UserError

COMMANDS = {
    "explore": "Train designs for a machine's precision palettes and draw accuracy against latency.",
    "hw": "List, show, check, start and measure hardware descriptors.",
    "palette": "List the precision palettes worth exploring on a machine.",
    "estimate": "Predict the latency of a model on a machine, layer by layer.",
    "crosscheck": "Set predictions beside measurements on this machine.",
    "run": "Run one trained design on this CPU and check it against the golden arithmetic.",
    "export": "Write one trained design as a file of its own.",
    "runs": "List explorations, show one, name its best design within limits.",
    "compare": "Draw the front over finished runs, of one machine or several.",
    "report": "Build the report page of a run again.",
    "explain": "Say where the figures of a design come from, and why each layer takes its time.",
    "doctor": "Say what this machine can do, and how to mend what it cannot.",
    "completion": "Print the shell completion script.",
}
"""Command -> the line of the overview."""


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command's module, imported now."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"soniq_dse.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Unknown commands end with the nearest known one."""
        from soniq_dse.errors import nearest

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"expected a command, got {args[0]!r}{nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """A reader that has seen enough (``| head``) is no failure: click would exit with 1."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "SONIQ_DSE",
        "max_content_width": 100,
    },
    epilog="Example:  soniq-dse explore --hw avx512.yaml     (data on stdout, progress on stderr)",
)
@click.version_option(package_name="soniq-dse", prog_name="soniq-dse")
def cli() -> None:
    """Explore ultra-low-precision neural networks for a machine: accuracy against latency, predicted and measured."""


def main() -> None:
    """Entry point: user errors in one line, never a traceback; ``SONIQ_DSE_DEBUG=1`` shows it."""
    try:
        code: Any = cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):  # click makes the one of the other
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed again, it would break into the ending
        click.echo("interrupted; what is finished is kept: run the same command again to go on", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except UserError as error:
        if os.environ.get("SONIQ_DSE_DEBUG"):
            raise
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except OSError as error:  # a disk that is full, a folder that may not be written
        if os.environ.get("SONIQ_DSE_DEBUG"):
            raise
        place = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {place}expected to read or write there, got: {error.strerror or error}", err=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
