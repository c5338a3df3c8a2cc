"""The machine that the predictions were made by: every figure with its kind and source."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from markupsafe import Markup

from soniq_dse.hardware.gpus import gpu_figures, gpu_levels, gpu_sheets
from soniq_dse.hardware.levels import native_levels
from soniq_dse.hardware.render import Sheet, figures, sheets
from soniq_dse.records.front import Report
from soniq_dse.records.gpu import GpuModel
from soniq_dse.records.hardware import FigureKind, HardwareModel
from soniq_dse.report.panels import Base

OPEN = "Figures"
"""The table that is not folded."""


_WHAT_IF = Markup("""<div id="what-if-part"><h3>What if it were another</h3>
<p class="help">How predicted latency would change if one figure of the machine did, kernels chosen anew. By the bounds
  of the loops: what a figure is worth, not a latency to be measured. <code>explore --what-if FIELD=NUMBER</code> asks
  more.</p>
<div class="scroll" tabindex="0" role="region" aria-label="What if"><table id="what-if"></table></div></div>
""")


class HardwarePanel(Base):
    """The tables are static; what the selected design would gain follows the selection."""

    title: ClassVar[str] = "The machine, as described"
    help: ClassVar[str] = (
        "What the predictions rest on. Each figure is measured, published by the vendor, derived from others, or "
        "assumed; its source is named."
    )
    order: ClassVar[int] = 80
    fields: ClassVar[tuple[str, ...]] = ("front", "machine", "what_if")

    def fragment(self, report: Report) -> Markup:
        """The tables of ``hw show``, all but one folded."""
        machine = report.machine
        if machine is None:
            return Markup('<p class="empty-note">{}</p>').format("This report was made without its descriptor.")
        if isinstance(machine, GpuModel):
            kinds, tables = _gpu_kinds(machine), gpu_sheets(machine, gpu_levels(machine))
        else:
            kinds, tables = _kinds(machine), sheets(machine, native_levels(machine))
        words = Markup('<p id="hardware-words">{}</p>').format(kinds)
        found = sorted(tables, key=lambda sheet: sheet.title != OPEN)
        return Markup("\n").join([words, _WHAT_IF, *(_table(sheet) for sheet in found)])


def _kinds(machine: HardwareModel) -> str:
    timed = [timing for instruction in machine.instructions.values() for timing in instruction.widths.values()]
    of_machine = Counter(figure.kind for _, figure in figures(machine))
    of_instructions = Counter(timing.reciprocal_throughput_cycles.kind for timing in timed)
    return (
        f"{machine.title} ({machine.name}): figures of the machine: {_words(of_machine)}; "
        f"timings of instructions: {_words(of_instructions)}."
    )


def _gpu_kinds(gpu: GpuModel) -> str:
    return f"{gpu.title} ({gpu.name}): figures: {_words(Counter(figure.kind for _, figure in gpu_figures(gpu)))}."


def _words(kinds: Counter[FigureKind]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())


def _table(sheet: Sheet) -> Markup:
    sides = ["number" if side == "right" else "words" for side in sheet.columns.values()]
    head = Markup().join(
        Markup('<th scope="col" class="{}">{}</th>').format(side, heading)
        for side, heading in zip(sides, sheet.columns, strict=True)
    )
    rows = Markup("\n").join(
        Markup("<tr>{}</tr>").format(
            Markup().join(
                Markup('<td class="{}">{}</td>').format(side, cell) for side, cell in zip(sides, row, strict=True)
            )
        )
        for row in sheet.rows
    )
    return Markup(
        "<details{}><summary>{} ({})</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="{}"><table class="sheet"><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div></details>"
    ).format(Markup(" open" if sheet.title == OPEN else ""), sheet.title, len(sheet.rows), sheet.title, head, rows)
