"""Where the numbers come from: host, versions, command, and what is missing."""

from __future__ import annotations

from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.front import Report
from soniq_dse.report.panels import Base

_ROW = Markup("<dt>{}</dt><dd>{}</dd>\n")
_ITEM = Markup("<li>{}</li>\n")


class ProvenancePanel(Base):
    """Static: no script."""

    title: ClassVar[str] = "Where the numbers come from"
    help: ClassVar[str] = (
        "Host, versions and command of this run, what was not measured, and which designs were left out."
    )
    order: ClassVar[int] = 90
    fields: ClassVar[tuple[str, ...]] = (
        "title",
        "created",
        "command",
        "hardware",
        "hardware_title",
        "hardware_matches_host",
        "front",
        "skipped",
        "notes",
        "hypervolume",
        "others",
    )

    def fragment(self, report: Report) -> Markup:
        """Definition lists and two lists of sentences."""
        kept = [f"{part.node} ({part.op}): {part.reason}" for part in report.workload.unsupported]
        parts = [
            Markup('<p class="help">Command</p><pre tabindex="0"><code>{}</code></pre>').format(report.command),
            Markup('<dl class="wide-list">{}</dl>').format(Markup().join(_ROW.format(*row) for row in _facts(report))),
            *(
                [_list("Runs laid over it", "", [f"{o.machine}: {o.command}" for o in report.others])]
                if report.others
                else []
            ),
            _list("What to know", "Everything was measured that could be.", list(report.notes)),
            _list("Designs left out", "None.", [f"{skipped.name}: {skipped.reason}" for skipped in report.skipped]),
            _list("Parts kept in floating point", "None.", kept),
            _list("Instruction sets of the host", "Not recorded.", list(report.front.host.features)),
        ]
        return Markup("\n").join(parts)


def _facts(report: Report) -> list[tuple[str, str]]:
    host, task = report.front.host, report.front.task
    match = "it is this host" if report.hardware_matches_host else "it is not this host: latencies are predictions only"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(host.versions.items()))
    sizes = f"{task.n_train:,} examples to train, {task.n_val:,} to choose, {task.n_test:,} to test"
    facts = [
        ("Machine described", f"{report.hardware_title} ({report.hardware}); {match}"),
        ("Host", f"{host.processor}, {host.cores} cores, {host.memory_bytes / 2**30:.1f} GiB"),
        ("Processor", f"{host.vendor}, family {host.family}, model {host.model}, stepping {host.stepping}"),
        ("System", f"{host.system}, Python {host.python}"),
        ("Versions", versions or "not recorded"),
        ("Task", f"{task.model} on {task.data}: {sizes}"),
    ]
    if report.hypervolume is not None:
        meaning = "the area that the front covers; larger is better where axes and reference point are equal"
        facts.append(("Hypervolume", f"{report.hypervolume:.6g} ({meaning})"))
    return facts


def _list(title: str, empty: str, lines: list[str]) -> Markup:
    if not lines:
        return Markup('<h3>{}</h3><p class="help">{}</p>').format(title, empty)
    items = Markup().join(_ITEM.format(line) for line in lines)
    count = f"{title} ({len(lines)})"
    if len(lines) <= 12:
        return Markup("<h3>{}</h3><ul>{}</ul>").format(title, items)
    return Markup("<h3>{}</h3><details><summary>{}</summary><ul>{}</ul></details>").format(title, count, items)
