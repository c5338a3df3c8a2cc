"""``soniq-dse explain``: where the figures of a design come from, why its kernels, why its time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from soniq_dse.cli._common import console, json_option, print_json, table
from soniq_dse.errors import UserError, unknown_name

if TYPE_CHECKING:
    from soniq_dse.records.cost import LayerEstimate
    from soniq_dse.records.front import DesignDetail, DesignPoint, Report


@click.command(epilog="Example:  soniq-dse explain digits-avx512 w2a2 conv1")
@click.argument("run")
@click.argument("design")
@click.argument("layer", required=False)
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=Path("reports") / "runs",
              show_default=True, help="Folder of runs.")  # fmt: skip
@json_option
def command(run: str, design: str, layer: str | None, root: Path, as_json: bool) -> None:
    """Say where the figures of DESIGN of RUN come from, and what each layer waits for; of LAYER, why its kernels.

    RUN and DESIGN are names as soniq-dse runs show prints them.
    """
    from soniq_dse.cli._find_run import find_run, load_report

    report = load_report(find_run(run, root))
    point = next((found for found in report.front.points if found.name == design), None)
    if point is None:
        raise unknown_name(f"design of {run}", design, [found.name for found in report.front.points])
    detail = next(found for found in report.details if found.id == point.id)
    layers = detail.estimate.per_layer if detail.estimate else ()
    if layer is None:
        found = {"point": point.to_json_value(), "origins": dict(_origins(report, point, detail))}
        if as_json:
            print_json(found | {"layers": [one.to_json_value() for one in layers]})
        else:
            _print_design(report, point, detail)
        return
    one = next((found for found in layers if found.name == layer), None)
    if one is None:
        if not layers:
            raise UserError(f"{design}: expected a design whose latency was predicted, got one without")
        raise unknown_name(f"layer of {design}", layer, [found.name for found in layers])
    if as_json:
        print_json(one.to_json_value() | {"measured_us": _measured_us(detail, one), "why": _reasons(one)})
    else:
        _print_layer(one, _measured_us(detail, one))


def _origins(report: Report, point: DesignPoint, detail: DesignDetail) -> list[tuple[str, str]]:
    """(figure, where it comes from)."""
    task, seeds = report.front.task, f"mean of {point.n_seeds} seeds" if point.n_seeds > 1 else "one seed"
    rows = [
        (f"{task.metric} {point.metric_val:.2f} / {point.metric_test:.2f} {task.metric_unit}",
         f"of the deployed integer network on {task.n_val} validation / {task.n_test} test examples of {task.data}, "
         f"{seeds}"),
        (f"{point.bits_per_weight:.2f} bits per weight",
         f"chosen in training from {point.palette}; pins apart" if detail.assignments else "the same everywhere"),
        (f"{point.size_bytes} bytes", "weights at their true bits, scales and biases"),
    ]  # fmt: skip
    if detail.estimate is not None:
        origin = f"descriptor {report.hardware} (SHA-256 {detail.estimate.hardware_sha256[:12]}), core model"
        rows.append((
            f"{detail.estimate.latency_us:.1f} us predicted, {detail.estimate.low_us:.1f} to "
            f"{detail.estimate.high_us:.1f}", f"{origin} {detail.estimate.model}; interval: {detail.estimate.interval}",
        ))  # fmt: skip
    measured = detail.measurement
    if measured is not None and measured.skipped is None and measured.median_us is not None:
        where = measured.host.processor if measured.host else "an unknown host"
        rows.append((
            f"{measured.median_us:.1f} us measured",
            f"median of {measured.samples} runs (median absolute deviation {measured.mad_us or 0:.2g} us) on {where}, "
            f"{measured.compiler}, batch {measured.batch}, threads {measured.threads}",
        ))  # fmt: skip
    elif measured is not None:
        rows.append(("not measured", str(measured.skipped)))
    if detail.agreement is not None and detail.agreement.reason:
        ratio = "" if detail.agreement.ratio is None else f" {detail.agreement.ratio:.2f}"
        rows.append((f"predicted / measured{ratio}", detail.agreement.reason))
    return rows


def _print_design(report: Report, point: DesignPoint, detail: DesignDetail) -> None:
    from soniq_dse.records.cost import BOUND_WORDS

    rows = [[figure, origin] for figure, origin in _origins(report, point, detail)]
    console().print(table(point.name, {"figure": "left", "where it comes from": "left"}, rows))
    click.echo(f"To make it again: {detail.command}")
    if detail.estimate is None:
        return
    columns = {"layer": "left", "predicted us": "right", "measured us": "right", "waits for": "left"}
    columns |= {"padding": "right", "kernels": "left"}
    console().print(
        table("", columns, [_layer_row(one, _measured_us(detail, one)) for one in detail.estimate.per_layer])
    )
    bound = detail.estimate.bound
    click.echo(f"The whole network waits most for {BOUND_WORDS[bound]} ({bound}).")


def _layer_row(layer: LayerEstimate, measured_us: float | None) -> list[str]:
    from soniq_dse.records.cost import BOUND_WORDS

    measured = "-" if measured_us is None else f"{measured_us:.2f}"
    padding = f"{100 * layer.padding_waste:.0f} %"
    kernels = ", ".join(layer.kernels) or layer.note or "-"
    return [layer.name, f"{layer.latency_us:.2f}", measured, BOUND_WORDS[layer.bound], padding, kernels]


def _print_layer(layer: LayerEstimate, measured_us: float | None) -> None:
    from soniq_dse.records.cost import BOUND_WORDS

    measured = "" if measured_us is None else f", {measured_us:.2f} us measured"
    click.echo(f"{layer.name} ({layer.op}): {layer.latency_us:.2f} us predicted{measured}")
    cycles = sum(term.cycles for term in layer.terms)
    for term in sorted(layer.terms, key=lambda term: -term.cycles):
        if term.cycles:
            click.echo(f"  {term.name}: {term.cycles:.0f} cycles, {100 * term.cycles / cycles:.0f} %")
    click.echo(f"its largest part waits for {BOUND_WORDS[layer.bound]} ({layer.bound})")
    if layer.macs:
        click.echo(f"{layer.macs} multiply-accumulates, {100 * layer.padding_waste:.0f} % of those done are padding")
    for reason in _reasons(layer):
        click.echo(reason)


def _reasons(layer: LayerEstimate) -> list[str]:
    """Why each part of the layer runs on its kernel."""
    return [f"{choice.shape.name}: {choice.reason}" for choice in layer.choices] or [
        layer.note or "no kernel: one pass"
    ]


def _measured_us(detail: DesignDetail, layer: LayerEstimate) -> float | None:
    return detail.measurement.per_layer_us.get(layer.name) if detail.measurement else None
