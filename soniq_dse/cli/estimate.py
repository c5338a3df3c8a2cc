"""``soniq-dse estimate``: predicted latency of a model on a machine, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from soniq_dse.cli._common import console, json_option, pricing, print_json, table
from soniq_dse.cli.palette import hw_option, machine, model_option, set_option

if TYPE_CHECKING:
    from soniq_dse.records.choice import Choices
    from soniq_dse.records.cost import Estimate, LayerEstimate
    from soniq_dse.records.design import Assignment
    from soniq_dse.records.gpu import Machine
    from soniq_dse.records.workload import Workload


@click.command()
@hw_option
@model_option
@click.option(
    "--palette",
    metavar="LEVELS",
    help="Levels joined by +, such as w1a1+w4a4: each takes an equal part of every layer's channels. Default: fp32.",
)
@set_option
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Inputs per run.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Cores that share each layer.")
@click.option("--why", is_flag=True, help="Say for every part of a layer why its kernel, and what the next best costs.")
@click.option(
    "--core",
    default="pipeline",
    show_default=True,
    metavar="MODEL",
    help="Model of the core: incore (bounds of the loops) or pipeline (whole calls cycle by cycle; seconds at first).",
)
@click.option(
    "--timeline",
    metavar="KERNEL|LAYER",
    help="Follow the loop of a kernel, or of the one that a layer runs on, through the core, cycle by cycle.",
)
@click.option("--html", "page", metavar="FILE", type=click.Path(dir_okay=False), help="Write the timeline as a page.")
@json_option
def command(
    hw_name: str | None,
    model: str,
    palette: str | None,
    settings: tuple[str, ...],
    batch: int,
    threads: int,
    why: bool,
    core: str,
    timeline: str | None,
    page: str | None,
    as_json: bool,
) -> None:
    """Predict the latency of a model on a machine, layer by layer, and what bounds each.

    Nothing is measured: the estimate follows from the descriptor and the kernels kept with it. With --set it follows a
    machine that does not exist: what no kernel has (a wider vector, a hypothetical instruction) is priced by recipe.

    Example:  soniq-dse estimate --hw avx512.yaml --model digits_cnn --palette w1a1+w4a4 --set simd_width_bits=1024
    """
    from soniq_dse.cost.network import estimate
    from soniq_dse.errors import UserError
    from soniq_dse.records.gpu import GpuModel
    from soniq_dse.workloads import load_workload

    hardware = machine(hw_name, settings)
    if timeline and isinstance(hardware, GpuModel):
        raise UserError(f"--timeline: expected a descriptor of kind cpu, got kind gpu ({hardware.title})")
    if timeline and _is_kernel(timeline):
        _print_timeline(hardware, timeline, page)
        return
    workload = load_workload(model)
    assignment = _even_assignment(workload, palette) if palette else None
    choices = _tuned(hardware, threads)
    with pricing():
        found = estimate(hardware, workload, assignment, batch=batch, threads=threads, model=core, choices=choices)
    if timeline:
        _print_timeline(hardware, _kernel_of(found, timeline), page)
        return
    if as_json:
        print_json(found.to_json_value() | {"workload": model, "palette": palette, "what_if": list(settings)})
        return
    _print(found, f"{model} at {palette or 'fp32'} on {hardware.name}")
    if settings:
        click.echo(f"Not measured: what if {hardware.name} had {', '.join(settings)}.")
    if why:
        for layer in found.per_layer:
            for choice in layer.choices:
                click.echo(f"{layer.name}: {choice.shape.name}: {choice.reason}")


def _is_kernel(name: str) -> bool:
    from soniq_dse.kernels.catalog import catalog

    return any(spec.symbol == name for spec in catalog())


def _kernel_of(found: Estimate, layer: str) -> str:
    """The kernel that a layer runs on."""
    from soniq_dse.errors import UserError, nearest

    of_layer = {one.name: one.kernels[0] for one in found.per_layer if one.kernels and _is_kernel(one.kernels[0])}
    if layer not in of_layer:
        raise UserError(
            f"--timeline {layer}: expected a kernel of the catalog, or a layer that runs on one"
            f"{nearest(layer, of_layer) if of_layer else ': at fp32 there is none, give --palette'}"
        )
    return of_layer[layer]


def _print_timeline(hardware: Machine, symbol: str, page: str | None) -> None:
    """The loop of a kernel in steady state, as text or as a page."""
    from pathlib import Path

    from soniq_dse.cost.timeline import as_html, as_text, rows_of
    from soniq_dse.errors import UserError
    from soniq_dse.kernels.loops import kept_loop
    from soniq_dse.records.gpu import GpuModel

    assert not isinstance(hardware, GpuModel)  # the command has refused it
    loop = kept_loop(symbol)
    if loop is None:
        raise UserError(f"--timeline {symbol}: expected a kernel whose loop is kept, got one without")
    rows, title = rows_of(loop, hardware), f"{symbol} on {hardware.name}"
    if page is None:
        click.echo(as_text(rows, title, len(loop.instructions)))
        return
    Path(page).write_text(as_html(rows, title, len(loop.instructions)), encoding="utf-8")
    click.echo(f"Wrote {page}")


def _tuned(hardware: Machine, threads: int) -> Choices:
    """What autotuning found on this processor, where the descriptor speaks of it: the runtime uses these kernels."""
    from soniq_dse.hardware.host import detect_host, match_host
    from soniq_dse.records.choice import Choices
    from soniq_dse.records.gpu import GpuModel
    from soniq_dse.runtime.autotune import tuned_choices

    if isinstance(hardware, GpuModel):
        return Choices()
    return tuned_choices(threads=threads) if match_host(hardware, detect_host())[0] else Choices()


def _even_assignment(workload: Workload, palette: str) -> Assignment:
    from soniq_dse.cost.bounds import even_assignment
    from soniq_dse.errors import UserError
    from soniq_dse.records.palette import Palette

    try:
        return even_assignment(workload, Palette.parse(palette))
    except ValueError as error:
        raise UserError(f"palette {palette!r}: {error}") from error


def _print(found: Estimate, title: str) -> None:
    columns = {"layer": "left", "op": "left", "us": "right", "bound": "left"}
    columns |= {"uJ": "right"} if found.energy_uj is not None else {}
    columns |= dict.fromkeys(("compute", "memory", "packing", "epilogue", "overhead", "padding"), "right")
    columns |= {"kernels": "left"}
    console().print(table(title, columns, [_row(layer, found) for layer in found.per_layer]))
    console().print(
        f"{found.latency_us:.4g} us, between {found.low_us:.4g} and {found.high_us:.4g}; batch {found.batch}, "
        f"threads {found.threads}, bound by {found.bound}"
    )
    console().print(f"Interval: {found.interval}")
    if found.energy_uj is None:
        console().print("Energy: the descriptor lacks figures for it.")
        return
    parts: dict[str, float] = {}
    for term in (term for layer in found.per_layer for term in layer.energy or ()):
        parts[term.name] = parts.get(term.name, 0.0) + term.energy_uj
    shares = ", ".join(f"{name} {energy_uj:.4g}" for name, energy_uj in parts.items())
    console().print(f"Energy: {found.energy_uj:.4g} uJ ({shares}); dynamic, from derived figures, not measured.")


def _row(layer: LayerEstimate, found: Estimate) -> list[str]:
    terms: dict[str, Any] = {term.name: term.cycles for term in layer.terms}
    us_per_cycle = found.latency_us / found.cycles if found.cycles else 0.0
    shown = [
        f"{terms.get(name, 0.0) * us_per_cycle:.2f}"
        for name in ("compute", "memory", "packing", "epilogue", "overhead")
    ]
    padding = f"{100 * layer.padding_waste:.0f} %"
    kernels = ", ".join(layer.kernels) or "-"
    energy = [] if found.energy_uj is None else [f"{sum(term.energy_uj for term in layer.energy or ()):.3g}"]
    return [layer.name, layer.op, f"{layer.latency_us:.2f}", layer.bound, *energy, *shown, padding, kernels]
