"""The convention of every benchmark: ``--json``, ``--quick``, goals met or not, kept results, a Markdown page.

A benchmark gives ``Result`` (goals and rows). A full run, the median of several passes, is kept for its processor as
``reports/benchmarks/NAME/PROCESSOR.json``; ``docs/benchmarks/NAME.md`` shows what is kept of all processors. A quick
run measures what fits in a minute and fills the other goals from what is kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from soniq_dse.hardware.host import detect_host

ROOT = Path(__file__).resolve().parent.parent
KEPT, PAGES = ROOT / "reports" / "benchmarks", ROOT / "docs" / "benchmarks"

Row = dict[str, Any]
Document = dict[str, Any]
Tables = Callable[[Sequence[Row]], Mapping[str, Sequence[Row]]]
"""Rows as measured -> tables for the page, by heading."""


@dataclass(frozen=True)
class Goal:
    """A numbered goal. ``at_most`` or ``at_least`` bounds ``value``; a value of None is unmeasured, and so not met.

    ``spread``: the lowest and the highest value of the passes that ``value`` is the median of.
    """

    id: str
    name: str
    unit: str
    value: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    measured: str | None = None
    spread: tuple[float, float] | None = None

    @property
    def met(self) -> bool:
        """True only for a measured value within its bound."""
        if self.value is None or self.measured is None:
            return False
        return not (
            (self.at_most is not None and self.value > self.at_most)
            or (self.at_least is not None and self.value < self.at_least)
        )

    @property
    def goal(self) -> str:
        """The bound in words."""
        return f"<= {self.at_most:g}" if self.at_most is not None else f">= {self.at_least:g}"

    def to_json_value(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "id": self.id, "name": self.name, "value": self.value, "spread": self.spread, "unit": self.unit,
            "goal": self.goal, "met": self.met, "measured": self.measured,
        }  # fmt: skip


@dataclass(frozen=True)
class Result:
    """Goals and the rows of the table (dicts with the same keys, units in the keys)."""

    goals: Sequence[Goal]
    rows: Sequence[Row]
    notes: Sequence[str] = field(default=())


def processor_slug(host: Mapping[str, Any]) -> str:
    """``AMD EPYC`` of family 25, model 1 -> ``amd-epyc-25-1``: virtual machines share names, hardly ever all three."""
    name = re.sub(r"\((R|TM)\)|\bCPU\b|\bProcessor\b|@.*", " ", host["processor"], flags=re.IGNORECASE)
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "-".join([*words, str(host["family"]), str(host["model"])])


def kept_documents(name: str, folder: Path = KEPT) -> list[Document]:
    """What is kept of a benchmark, a document per processor, the newest first."""
    found = [json.loads(path.read_text()) for path in sorted((folder / name).glob("*.json"))]
    return sorted(found, key=lambda document: str(document["date"]), reverse=True)


def kept_here(name: str) -> Document | None:
    """What is kept of a benchmark for this processor."""
    path = KEPT / name / f"{processor_slug(detect_host().to_json_value())}.json"
    return dict(json.loads(path.read_text())) if path.exists() else None


def keep(name: str, title: str, result: Result, tables: Tables | None = None) -> None:
    """Keep a result before the end of a run, for one that measures for long."""
    _keep(name, title, _document(name, result, 1, quick=False), tables)


def combined(passes: Sequence[Result]) -> Result:
    """The median of several passes: of each goal with its spread, of each number in each row; words: the commonest."""
    if len(passes) == 1:
        return passes[0]
    goals = [_median_goal(same) for same in zip(*(one.goals for one in passes), strict=True)]
    rows = [_median_row(same) for same in zip(*(one.rows for one in passes), strict=True)]
    return Result(goals, rows, passes[-1].notes)


def _median_goal(same: Sequence[Goal]) -> Goal:
    values = [goal.value for goal in same if goal.value is not None]
    if not values:
        return same[0]
    return replace(same[0], value=statistics.median(values), spread=(min(values), max(values)))


def _median_row(same: Sequence[Row]) -> Row:
    def middle(values: list[Any]) -> Any:
        if all(isinstance(value, int | float) for value in values):
            return statistics.median(values)
        return Counter(values).most_common(1)[0][0]

    return {key: middle([row[key] for row in same]) for key in same[0]}


def with_kept(goal: Goal, kept: Sequence[Document], here: str) -> Goal:
    """A goal that this run did not measure takes a kept value, this processor's first, with date and host."""
    if goal.value is not None:
        return replace(goal, measured=goal.measured or "now")
    for document in sorted(kept, key=lambda document: processor_slug(document["host"]) != here):
        for old in document["goals"]:
            if old["id"] == goal.id and old["value"] is not None:
                measured = f"{document['date']} on {document['host']['processor']}"
                return replace(goal, value=old["value"], spread=old.get("spread"), measured=measured)
    return goal


def page(name: str, title: str, documents: Sequence[Document], tables: Tables | None = None) -> str:
    """The Markdown page: goals of all processors side by side, then a section for each."""
    lines = [f"# {title}", "", f"`python -m benchmarks.{name}`; kept results, each of the processor at its head.", ""]
    lines += _goal_table(documents)
    for document in documents:
        passes = document.get("passes", 1)
        how = f"median of {passes} passes" if passes > 1 else "one pass"
        lines += ["", f"## {_host_name(document)}", "", f"{document['date']}, {how}."]
        named = {"": document["rows"]} if tables is None else tables(document["rows"])
        for heading, rows in named.items():
            lines += ["", *([f"### {heading}", ""] if heading else []), *_table(rows)]
        lines += ["", *document["notes"]] if document["notes"] else []
    return "\n".join([*lines, ""])


def _host_name(document: Document) -> str:
    host = document["host"]
    return f"{host['processor']}, family {host['family']} model {host['model']}"


def _goal_table(documents: Sequence[Document]) -> list[str]:
    goals: dict[str, Row] = {}
    for document in documents:
        for goal in document["goals"]:
            row = goals.setdefault(
                goal["id"], {"goal": goal["id"], "what": goal["name"], "unit": goal["unit"], "bound": goal["goal"]}
            )
            row[_host_name(document)] = _shown(goal)
    for row in goals.values():
        met = any(goal["met"] for document in documents for goal in document["goals"] if goal["id"] == row["goal"])
        row["met"] = "yes" if met else "no"
    order = ["goal", "what", "unit", "bound", *map(_host_name, documents), "met"]
    return _table([{key: row.get(key, "") for key in order} for row in goals.values()])


def _shown(goal: Row) -> str:
    if goal["value"] is None:
        return "not measured"
    spread = goal.get("spread")
    return f"{goal['value']:.4g}" + (f" ({spread[0]:.4g} to {spread[1]:.4g})" if spread else "")


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    keys = list(rows[0])
    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    for row in rows:
        cells = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in map(row.get, keys)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def write_page(name: str, title: str, tables: Tables | None = None) -> None:
    """Write the page of a benchmark from what is kept."""
    PAGES.mkdir(parents=True, exist_ok=True)
    (PAGES / f"{name}.md").write_text(page(name, title, kept_documents(name), tables))


def main(
    name: str, title: str, measure: Callable[[bool], Result], *, passes: int = 1, tables: Tables | None = None
) -> None:
    """Run ``measure(quick)`` by the convention; ``name`` is the file's, ``passes`` those of a full run."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=title)
    parser.add_argument("--quick", action="store_true", help="end within a minute; other goals come from kept results")
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")
    parser.add_argument("--passes", type=int, default=passes, help=f"of a full run, which keeps medians ({passes})")
    parser.add_argument("--page", action="store_true", help="measure nothing; write the page from the kept results")
    arguments = parser.parse_args()
    if arguments.page:
        write_page(name, title, tables)
        return
    n_passes = 1 if arguments.quick else max(1, arguments.passes)
    done: list[Result] = []
    for _ in range(n_passes):
        done.append(measure(arguments.quick))
        document = _document(name, combined(done), len(done), quick=arguments.quick)
        if not arguments.quick:  # an interrupted run keeps the passes that it finished
            _keep(name, title, document, tables)
    text = page(name, title, [document], tables)
    sys.stdout.write(json.dumps(document, indent=1) + "\n" if arguments.json else text)


def _document(name: str, result: Result, passes: int, *, quick: bool) -> Document:
    host = detect_host().to_json_value()
    kept = kept_documents(name) if quick else []  # what is kept of a processor was measured on it
    goals = [with_kept(goal, kept, processor_slug(host)) for goal in result.goals]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "host": host,
        "passes": passes,
        "goals": [goal.to_json_value() for goal in goals],
        "rows": list(result.rows),
        "notes": list(result.notes),
    }


def _keep(name: str, title: str, document: Document, tables: Tables | None) -> None:
    path = KEPT / name / f"{processor_slug(document['host'])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    write_page(name, title, tables)
