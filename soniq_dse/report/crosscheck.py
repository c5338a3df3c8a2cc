"""The page of a crosscheck: predicted against measured, the error by regime, the worst cases with their reasons."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from soniq_dse.records.crosscheck import Crosscheck, CrosscheckRow
from soniq_dse.report.page import offline_page, package_text
from soniq_dse.report.reading import date_text
from soniq_dse.report.timelines import timelines_html

WORST = 12
"""Rows that the table of the worst shows."""


def build_crosscheck(record: Crosscheck, folder: Path) -> Path:
    """Write ``crosscheck.html``, ``crosscheck.json`` and ``crosscheck.csv`` into ``folder``.

    Equal records give equal bytes.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record.to_json_value(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    page = folder / "crosscheck.html"
    for path, content in (
        (folder / "crosscheck.json", text),
        (folder / "crosscheck.csv", rows_csv(record)),
        (page, crosscheck_page(record)),
    ):
        part = path.with_name(f"{path.name}.part")
        part.write_text(content, encoding="utf-8", newline="\n")
        part.replace(path)
    return page


def crosscheck_page(record: Crosscheck) -> str:
    """The page as text."""
    return offline_page(
        "crosscheck.html",
        script=package_text("crosscheck.js"),
        data=json.dumps(record.to_json_value(), separators=(",", ":"), ensure_ascii=False, allow_nan=False),
        record=record,
        predicted=date_text(record.predicted_at),
        measured=date_text(record.measured_at) if record.measured_at else "",
        finding=finding(record),
        worst=worst_rows(record),
        timelines=timelines_html(record.timelines),
    )


def finding(record: Crosscheck) -> str:
    """The sentence at the top."""
    summary = record.summary
    if record.not_measured is not None or summary.mape_percent is None:
        return f"{summary.n_rows} predictions, not measured: {record.not_measured or 'nothing could be'}."
    missed = [goal.id for goal in record.goals if not goal.met]
    goals = f"; goals missed: {', '.join(missed)}" if missed else "; all goals met"
    return (
        f"{summary.n_measured} of {summary.n_rows} measured; layers are predicted {summary.mape_percent:.1f} % off on "
        f"average, {summary.worst_percent:.0f} % at worst ({summary.worst_name}){goals}."
    )


def worst_rows(record: Crosscheck) -> list[CrosscheckRow]:
    """The measured rows that are farthest off, worst first."""
    measured = [row for row in record.rows if row.error_percent is not None]
    return sorted(measured, key=lambda row: -abs(row.error_percent or 0.0))[:WORST]


def rows_csv(record: Crosscheck) -> str:
    """All rows, a column a field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = list(CrosscheckRow.model_fields)
    writer.writerow(columns)
    for row in record.rows:
        values = row.to_json_value()
        writer.writerow([" ".join(v) if isinstance(v := values[column], list) else v for column in columns])
    return out.getvalue()
