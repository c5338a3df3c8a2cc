"""Loops on the simulated core as HTML: a lane an instruction, coloured by what it waits for."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from soniq_dse.records.cost import Timeline, TimelineRow

LEGEND = (
    ("q", "waits for operands"),
    ("w", "waits for a pipe"),
    ("x", "runs"),
    ("r", "done, waits for its turn to retire"),
)


def timelines_html(timelines: Sequence[Timeline]) -> Markup:
    """A folded table for each, below one legend; empty where there are none."""
    if not timelines:
        return Markup("")
    keys = Markup().join(
        Markup('<span class="key"><i class="swatch lane-{}"></i>{}</span>').format(kind, words)
        for kind, words in LEGEND
    )
    return Markup('<div class="legend">{}</div>{}').format(keys, Markup().join(map(_table, timelines)))


def _table(timeline: Timeline) -> Markup:
    end = max(row.retired for row in timeline.rows) + 1
    rows = Markup().join(
        Markup(
            '<tr><td class="number">{}</td><td><code>{}</code></td><td>{}</td><td>{}</td><td class="number">{}</td>'
            '<td class="lane-cell"><div class="lane">{}</div></td></tr>'
        ).format(i // timeline.n_per_pass + 1, row.text, row.port, row.waited, row.dispatched, _lane(row, end))
        for i, row in enumerate(timeline.rows)
    )
    heads = ("pass", "instruction", "pipe", "waited longest for", "from cycle", f"cycles 0 to {end}")
    head = Markup().join(Markup('<th scope="col">{}</th>').format(words) for words in heads)
    return Markup(
        '<details class="timeline"><summary>{}</summary><div class="scroll" tabindex="0" role="region" '
        'aria-label="Timeline of {}"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div></details>'
    ).format(timeline.symbol, timeline.symbol, head, rows)


def _lane(row: TimelineRow, end: int) -> Markup:
    """Four bars, placed in per cent of all cycles."""
    start = row.done if row.issued is None else row.issued
    done = max(row.done, start + 1)
    spans = (
        ("q", row.dispatched, min(row.ready, start)),
        ("w", row.ready, start),
        ("x", start, done),
        ("r", done, row.retired),
    )
    return Markup().join(
        Markup('<i class="lane-{}" style="left:{:.2f}%;width:{:.2f}%"></i>').format(
            kind, 100 * first / end, 100 * (last - first) / end
        )
        for kind, first, last in spans
        if last > first
    )
