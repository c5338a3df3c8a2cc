"""``design.svg``: bits and predicted time of every layer of one design as a static picture.

Equal reports give equal bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from soniq_dse.records.cost import LayerEstimate
from soniq_dse.records.design import Assignment
from soniq_dse.records.front import DesignDetail, Report
from soniq_dse.report.svg import INK, SOFT, drawing, escaped, text

WIDTH, LEFT, MAP, BAR, ROW, TOP = 930, 150, 330, 250, 26, 92
BITS = {1: "#cdeab5", 2: "#57bfc6", 3: "#2f8fc0", 4: "#2258a5", 8: "#14224f"}
TERMS = {
    "compute": "#0072b2",
    "memory": "#e69f00",
    "packing": "#56b4e9",
    "epilogue": "#009e73",
    "overhead": "#9a9a9a",
}
BAR_LEFT = LEFT + MAP + 40


def design_svg(report: Report) -> str | None:
    """The design that ``report.summary`` finds; None where there is none, or nothing is known of its layers."""
    identity = report.summary.finding_id if report.summary else None
    detail = next((found for found in report.details if found.id == identity), None)
    if detail is None or detail.estimate is None or not detail.assignments:
        return None
    name = next(point.name for point in report.front.points if point.id == identity)
    layers = [layer for layer in detail.estimate.per_layer if layer.macs]
    height = TOP + ROW * len(layers) + 16
    parts = [
        text(16, 26, name, size=16, weight=600),
        text(16, 46, f"{detail.estimate.latency_us:.4g} µs predicted, {report.hardware_title}", colour=SOFT),
        *_keys(detail),
        *_rows(report, detail.assignments[0], layers),
    ]
    return drawing(f"Bits and time of every layer: {name}", WIDTH, height, parts)


def _keys(detail: DesignDetail) -> Iterator[str]:
    assignment = detail.assignments[0]
    palettes = [assignment.palette, *assignment.pinned.values()]
    bits = sorted({level.weight_bits for palette in palettes for level in palette.levels})
    for i, n in enumerate(bits):
        yield f'<rect x="{LEFT + 62 * i}" y="{TOP - 28}" width="12" height="12" fill="{_shade(n)}"/>'
        yield text(LEFT + 62 * i + 17, TOP - 18, f"{n} bit{'s' if n > 1 else ''}", colour=SOFT)
    for i, (name, colour) in enumerate(TERMS.items()):
        yield f'<rect x="{BAR_LEFT + 78 * i}" y="{TOP - 28}" width="12" height="12" fill="{colour}"/>'
        yield text(BAR_LEFT + 78 * i + 17, TOP - 18, name, colour=SOFT)


def _rows(report: Report, assignment: Assignment, layers: list[LayerEstimate]) -> Iterator[str]:
    read = {layer: tensors.name for tensors in report.workload.tensor_classes for layer in tensors.consumers}
    longest = max((layer.latency_us for layer in layers), default=1.0) or 1.0
    for row, layer in enumerate(layers):
        y = TOP + ROW * row
        yield text(LEFT - 10, y + 14, layer.name if len(layer.name) <= 18 else f"{layer.name[:17]}…", anchor="end")
        tensors = read.get(layer.name)
        if tensors in assignment.level_of_channel:
            yield from _map(assignment, tensors, y)
        yield from _bar(layer, y, BAR * layer.latency_us / longest)


def _map(assignment: Assignment, tensors: str, y: int) -> Iterator[str]:
    """One strip of input channels, neighbours of one level joined."""
    levels, palette = assignment.level_of_channel[tensors], assignment.palette_of(tensors).levels
    at, width = float(LEFT), MAP / len(levels)
    for level, run in itertools.groupby(levels):
        count = len(list(run))
        yield (
            f'<rect x="{at:.2f}" y="{y}" width="{width * count:.2f}" height="{ROW - 7}" '
            f'fill="{_shade(palette[level].weight_bits)}"><title>{escaped(palette[level].name)}, {count}</title></rect>'
        )
        at += width * count


def _bar(layer: LayerEstimate, y: int, width: float) -> Iterator[str]:
    total, at = sum(term.cycles for term in layer.terms) or 1.0, float(BAR_LEFT)
    for term in layer.terms:
        part = width * term.cycles / total
        yield f'<rect x="{at:.2f}" y="{y}" width="{part:.2f}" height="{ROW - 7}" fill="{TERMS[term.name]}"/>'
        at += part
    yield text(at + 6, y + 14, f"{layer.latency_us:.3g} µs, {layer.bound}", colour=INK)


def _shade(bits: int) -> str:
    return BITS[bits] if bits in BITS else BITS[8]
