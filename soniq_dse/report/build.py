"""The report of a run: one offline page, its numbers as JSON and CSV, and a static figure, all from one ``Report``."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from soniq_dse.records.base import Record
from soniq_dse.records.front import DesignPoint, Report
from soniq_dse.report.agreement_figure import agreement_svg
from soniq_dse.report.design_figure import design_svg
from soniq_dse.report.figure import front_svg
from soniq_dse.report.page import render_page
from soniq_dse.report.summary import summarise


def build_report(report: Report, folder: Path) -> Path:
    """Write ``report.html``, ``report.json``, ``front.json``, ``designs.csv`` and the figures into ``folder``.

    Figures are ``front.svg``, ``agreement.svg`` where something was measured, ``design.svg`` where a design was found.
    ``folder`` is made where it is missing; equal reports give equal bytes. ``report.summary`` is derived anew.

    Returns:
        The path of ``report.html``.
    """
    report = report.model_copy(update={"summary": summarise(report)})
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    _write(folder / "report.json", _json(report))
    _write(folder / "front.json", _json(report.front))
    _write(folder / "designs.csv", designs_csv(report))
    for name, figure in (("front", front_svg), ("agreement", agreement_svg), ("design", design_svg)):
        svg, path = figure(report), folder / f"{name}.svg"
        if svg is None:
            path.unlink(missing_ok=True)  # an earlier report had it
        else:
            _write(path, svg)
    _write(page, render_page(report))
    return page


def designs_csv(report: Report) -> str:
    """The points as flat rows: every field of ``DesignPoint``, then the command that reproduces the design."""
    commands = {detail.id: detail.command for detail in report.details}
    columns = list(DesignPoint.model_fields)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns, "command"])
    for point in report.front.points:
        values = point.to_json_value()
        cells = ["true" if values[c] is True else "false" if values[c] is False else values[c] for c in columns]
        writer.writerow([*cells, commands.get(point.id, "")])
    return out.getvalue()


def _json(record: Record) -> str:
    return record.model_dump_json(indent=1) + "\n"


def _write(path: Path, text: str) -> None:
    """Write whole or not at all: a reader never meets half a file."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)
