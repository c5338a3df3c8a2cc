"""The convention of every benchmark: ``--json``, ``--quick``, goals met or not, a kept result, a Markdown table.

A benchmark gives ``Result`` (goals and rows). A full run is kept as ``reports/benchmarks/NAME.json`` and written as
``docs/benchmarks/NAME.md``; a quick run measures what fits in a minute and fills the other goals from the kept result.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from soniq_dse.hardware.host import detect_host

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Goal:
    """A numbered goal. ``at_most`` or ``at_least`` bounds ``value``; a value of None is unmeasured, and so not met."""

    id: str
    name: str
    unit: str
    value: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    measured: str | None = None

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


@dataclass(frozen=True)
class Result:
    """Goals and the rows of the table (dicts with the same keys, units in the keys)."""

    goals: Sequence[Goal]
    rows: Sequence[dict[str, Any]]
    notes: Sequence[str] = field(default=())


def _kept(name: str) -> dict[str, Any]:
    path = ROOT / "reports" / "benchmarks" / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _with_kept(goal: Goal, kept: dict[str, Any]) -> Goal:
    """A goal this run did not measure takes the kept value, with its date and host."""
    if goal.value is not None:
        return Goal(**{**asdict(goal), "measured": goal.measured or "now"})
    for old in kept.get("goals", []):
        if old["id"] == goal.id and old["value"] is not None:
            measured = f"{kept['date']} on {kept['host']['processor']}"
            return Goal(**{**asdict(goal), "value": old["value"], "measured": measured})
    return goal


def _markdown(name: str, title: str, document: dict[str, Any]) -> str:
    lines = [
        f"# {title}",
        "",
        f"`python -m benchmarks.{name}` on {document['date']}, {document['host']['processor']}.",
        "",
    ]
    lines += ["| goal | what | value | goal | met |", "|---|---|---:|---:|---|"]
    for goal in document["goals"]:
        value = "not measured" if goal["value"] is None else f"{goal['value']:.4g} {goal['unit']}"
        lines.append(f"| {goal['id']} | {goal['name']} | {value} | {goal['goal']} | {'yes' if goal['met'] else 'no'} |")
    if document["rows"]:
        keys = list(document["rows"][0])
        lines += ["", "| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
        for row in document["rows"]:
            cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in (row.get(key, "") for key in keys)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *document["notes"], ""])


def main(name: str, title: str, measure: Callable[[bool], Result]) -> None:
    """Run ``measure(quick)`` by the convention; ``name`` is the file's."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=title)
    parser.add_argument(
        "--quick", action="store_true", help="end within a minute; other goals come from the kept result"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")
    arguments = parser.parse_args()
    result = measure(arguments.quick)
    kept = _kept(name)
    goals = [_with_kept(goal, kept) for goal in result.goals]
    document = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "host": detect_host().to_json_value(),
        "goals": [
            {
                "id": g.id,
                "name": g.name,
                "value": g.value,
                "unit": g.unit,
                "goal": g.goal,
                "met": g.met,
                "measured": g.measured,
            }
            for g in goals
        ],
        "rows": list(result.rows),
        "notes": list(result.notes),
    }
    text = _markdown(name, title, document)
    if not arguments.quick:
        for path, content in (
            (ROOT / "reports" / "benchmarks" / f"{name}.json", json.dumps(document, indent=1) + "\n"),
            (ROOT / "docs" / "benchmarks" / f"{name}.md", text),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    sys.stdout.write(json.dumps(document, indent=1) + "\n" if arguments.json else text)
