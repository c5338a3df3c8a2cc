"""``soniq-dse palette``: the precision palettes worth exploring on a machine, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soniq_dse.cli._common import console, json_option, print_json, table, write_new

if TYPE_CHECKING:
    from soniq_dse.records.gpu import Machine
    from soniq_dse.records.palette import LevelCost, PaletteChoice

hw_option = click.option("--hw", "hw_name", metavar="NAME", help="Descriptor: a path or a name. Default: this host's.")
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=NUMBER",
    help="What if a field of the descriptor were another number, such as simd_width_bits=1024, ports.load=3, "
    "memory.read_gb_per_s_one_core=12. Repeatable; nothing is measured.",
)
model_option = click.option(
    "--model", default="digits_cnn", show_default=True, metavar="NAME", help="Model whose layers are costed."
)


@click.group(epilog="Example:  soniq-dse palette list --hw avx512 --all")
def command() -> None:
    """List the precision palettes worth exploring on a machine.

    A level such as w2a4 is a weight width and an activation width in bits; a palette mixes one to three of them.
    """


@command.command("list")
@hw_option
@model_option
@set_option
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1), help="Palettes to explore at most.")
@click.option("--all", "show_all", is_flag=True, help="Show those left out too, with the reason.")
@json_option
def list_command(
    hw_name: str | None, model: str, settings: tuple[str, ...], limit: int, show_all: bool, as_json: bool
) -> None:
    """List palettes: what is explored by default, its budgets in bits per weight, and why.

    Example:  soniq-dse palette list --hw avx512.yaml --model digits_cnn
    """
    from soniq_dse.palettes import propose_palettes

    hardware, costs = costed(hw_name, model, settings)
    choices = propose_palettes(hardware, costs, limit=limit)
    if as_json:
        print_json(
            {
                "hardware": hardware.name,
                "what_if": list(settings),
                "model": model,
                "levels": [cost.to_json_value() | {"name": cost.level.name} for cost in costs],
                "palettes": [choice.to_json_value() for choice in choices],
            }
        )
        return
    console().print(_levels_table(hardware, model, costs))
    shown = [choice for choice in choices if choice.explored or show_all]
    console().print(_palettes_table(shown, f"{sum(c.explored for c in choices)} palettes explored by default"))
    left_out = len(choices) - len(shown)
    if left_out:
        console().print(f"{left_out} left out; --all shows them with the reason.")


@command.command("show")
@click.argument("name")
@hw_option
@model_option
@json_option
def show_command(name: str, hw_name: str | None, model: str, as_json: bool) -> None:
    """Show one palette on a machine: whether it is explored, why, and what its levels cost.

    Example:  soniq-dse palette show w1a1+w4a4 --hw avx512
    """
    from soniq_dse.errors import UserError, unknown_name
    from soniq_dse.palettes import propose_palettes
    from soniq_dse.records.palette import Palette

    try:
        wanted = Palette.parse(name)
    except ValueError as error:
        raise UserError(f"palette {name!r}: {error}") from error
    hardware, costs = costed(hw_name, model)
    native = {cost.level: cost for cost in costs}
    for level in wanted.levels:
        if level not in native:
            raise unknown_name(f"palette {name!r}: level of {hardware.name}", level.name, [v.name for v in native])
    choices = propose_palettes(hardware, costs)
    choice = next((c for c in choices if c.palette.levels == wanted.levels), None)
    mine = [native[level] for level in wanted.levels]
    if as_json:
        print_json(
            {
                "name": wanted.name,
                "hardware": hardware.name,
                "model": model,
                "levels": [cost.to_json_value() | {"name": cost.level.name} for cost in mine],
                "choice": choice.to_json_value() if choice else None,
            }
        )
        return
    console().print(_levels_table(hardware, model, mine))
    if choice is None:
        console().print(
            "Not among the palettes thought of: a step between its levels saves nothing, or it has too many."
        )
    else:
        console().print(_palettes_table([choice], ""))


@command.command("init")
@click.argument("new", metavar="NEW.yaml", type=click.Path(path_type=Path))
@hw_option
@model_option
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1), help="Palettes to write at most.")
@json_option
def init_command(new: Path, hw_name: str | None, model: str, limit: int, as_json: bool) -> None:
    """Start a run file with the palettes explored by default, to be edited.

    Every line says why; the others are there too, switched off. An existing file is never overwritten.

    Example:  soniq-dse palette init space.yaml --hw avx512
    """
    from soniq_dse.palettes import propose_palettes

    hardware, costs = costed(hw_name, model)
    choices = propose_palettes(hardware, costs, limit=limit)
    write_new(new, "\n".join(_run_file(hw_name or hardware.name, model, choices)) + "\n")
    if as_json:
        print_json({"file": str(new), "palettes": [choice.name for choice in choices if choice.explored]})
        return
    click.echo(str(new))
    click.echo(f"next: soniq-dse explore --run-file {new} --dry-run", err=True)


def _run_file(hw_name: str, model: str, choices: Sequence[PaletteChoice]) -> Iterator[str]:
    yield "# soniq-dse explore --run-file FILE; keys are its flags. LEVELS@BITS sets a budget in bits per weight."
    yield from (f"machines: [{json.dumps(hw_name)}]", f"model: {json.dumps(model)}", "palettes:")
    for choice in sorted(choices, key=lambda choice: not choice.explored):
        for budget in choice.budgets_bits_per_weight or (None,):
            name = choice.name if budget is None else f"{choice.name}@{budget:g}"
            line = f"- {name}  # {' '.join(choice.reason.split())}"
            yield f"  {line}" if choice.explored else f"  # {line}"


def costed(hw_name: str | None, model: str, settings: Sequence[str] = ()) -> tuple[Machine, tuple[LevelCost, ...]]:
    """The machine (default: the one that describes this host) and what its native levels cost over the model."""
    from soniq_dse.cost.network import level_costs
    from soniq_dse.workloads import load_workload

    hardware = machine(hw_name, settings)
    return hardware, level_costs(hardware, load_workload(model))


def machine(hw_name: str | None, settings: Sequence[str] = ()) -> Machine:
    """The machine ``hw_name`` with ``settings``; None: the descriptor that speaks of this host, or stands for it."""
    from soniq_dse.hardware.load import load_machine
    from soniq_dse.hardware.whatif import what_if

    return what_if(load_machine(_descriptor(hw_name)), settings)


def _descriptor(hw_name: str | None) -> str | Path:
    from soniq_dse.hardware.host import default_descriptor, detect_host

    return default_descriptor(detect_host())[0] if hw_name is None else hw_name


def _levels_table(hardware: Machine, model: str, costs: tuple[LevelCost, ...] | list[LevelCost]) -> Any:
    columns = {"level": "left", "kilocycles": "right", "MAC/cycle": "right", "why": "left"}
    rows = [
        [cost.level.name, f"{cost.cycles / 1000:.1f}", f"{1 / cost.cycles_per_mac:.1f}", cost.reason] for cost in costs
    ]
    return table(f"Native levels of {hardware.name} over {model} (predicted)", columns, rows)


def _palettes_table(choices: list[PaletteChoice], title: str) -> Any:
    columns = {"palette": "left", "bits per weight": "left", "explored": "left", "why": "left"}
    rows = [
        [
            choice.name,
            ", ".join(f"{budget:g}" for budget in choice.budgets_bits_per_weight) or "-",
            "yes" if choice.explored else "no",
            choice.reason,
        ]
        for choice in choices
    ]
    return table(title, columns, rows)
