"""The simulated core made visible: when each instruction of a loop ran, where, and what it waited for."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from soniq_dse.cost.core import Core
from soniq_dse.cost.pipeline import follow
from soniq_dse.errors import UserError
from soniq_dse.kernels.loops import kept_loop
from soniq_dse.records.cost import HotLoop, Timeline, TimelineRow
from soniq_dse.records.hardware import HardwareModel

WARM_UP = 24
"""Passes before the first that is shown: by then the loop runs in steady state."""

TWO_PASSES = 40
"""Instructions up to which a record holds two passes."""

_STYLE = """body{font:14px system-ui,sans-serif;margin:2em;color:#1a1a2e;background:#fff}
table{border-collapse:collapse}td,th{padding:1px 8px;text-align:left;font:12px ui-monospace,monospace;white-space:pre}
.lane{position:relative;height:14px}.lane i{position:absolute;height:12px;border-radius:2px}
.q{background:#c9d6ea}.w{background:#f0c27b}.x{background:#2f6fab}.r{background:#dfe5dc}
p span{display:inline-block;width:12px;height:12px;margin:0 4px 0 12px;border-radius:2px}"""


def timeline(symbol: str, hw: HardwareModel) -> Timeline | None:
    """The loop of a kernel as a record; None where no loop of it is kept, or the machine has no figures for it."""
    loop = kept_loop(symbol)
    if loop is None:
        return None
    n = len(loop.instructions)
    try:
        rows = rows_of(loop, hw, passes=2 if n <= TWO_PASSES else 1)
    except UserError:
        return None
    return Timeline(symbol=symbol, n_per_pass=n, rows=tuple(rows))


def rows_of(loop: HotLoop, hw: HardwareModel, passes: int = 2) -> list[TimelineRow]:
    """The last ``passes`` passes of a loop in steady state.

    Raises:
        UserError: the descriptor has no figures for a vector instruction of the loop.
    """
    line, operations = follow(loop, hw, WARM_UP + passes)
    names, n = Core(hw, loop.symbol).ports, len(operations)
    first = line.dispatched[WARM_UP * n]
    rows = []
    for i in range(WARM_UP * n, len(line.retired)):
        ran = line.port[i] >= 0
        rows.append(
            TimelineRow(
                text=loop.instructions[i % n].text,
                dispatched=line.dispatched[i] - first,
                ready=max(line.ready[i], line.dispatched[i] + 1) - first,
                issued=line.issued[i] - first if ran else None,
                done=line.done[i] - first,
                retired=line.retired[i] - first,
                port=names[line.port[i]] if ran else "",
                waited=_waited(line.dispatched[i], line.ready[i], line.issued[i] if ran else None, names[line.port[i]]),
            )
        )
    return rows


def as_text(rows: Sequence[TimelineRow], title: str, n_per_pass: int) -> str:
    """One line an instruction: D dispatched, = waits, e runs, E issued, - done and waits its turn, R retired."""
    end = max(row.retired for row in rows) + 1
    lines = [title, f"{'pass':>4} {'cycle':{end}} {'port':6} {'waited for':22} instruction"]
    for i, row in enumerate(rows):
        lines.append(f"{i // n_per_pass:4} {_bar(row, end)} {row.port:6} {row.waited:22} {row.text}")
    return "\n".join(lines)


def as_html(rows: Sequence[TimelineRow], title: str, n_per_pass: int) -> str:
    """The same as a page that needs nothing else."""
    scale = max(3.0, min(14.0, 1400 / (max(row.retired for row in rows) + 1)))
    body = []
    for i, row in enumerate(rows):
        start = row.done if row.issued is None else row.issued
        end = max(row.done, start + 1)
        spans = (
            ("q", row.dispatched, min(row.ready, start)),
            ("w", row.ready, start),
            ("x", start, end),
            ("r", end, row.retired),
        )
        bars = "".join(
            f'<i class="{kind}" style="left:{first * scale:.0f}px;width:{(last - first) * scale:.0f}px"></i>'
            for kind, first, last in spans
            if last > first
        )
        body.append(
            f"<tr><td>{i // n_per_pass}</td><td>{escape(row.text)}</td><td>{escape(row.port)}</td>"
            f'<td>{escape(row.waited)}</td><td>{row.dispatched}</td><td><div class="lane">{bars}</div></td></tr>'
        )
    legend = "".join(
        f'<span class="{kind}"></span>{words}'
        for kind, words in (
            ("q", "waits for operands"),
            ("w", "waits for a port"),
            ("x", "runs"),
            ("r", "waits to retire"),
        )
    )
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1><p>{legend}</p><table><tr><th>pass</th>"
        "<th>instruction</th><th>port</th><th>waited for</th><th>dispatched</th><th>cycles</th></tr>"
        f"{''.join(body)}</table></body></html>\n"
    )


def _bar(row: TimelineRow, end: int) -> str:
    cells = [" "] * end
    start = row.done if row.issued is None else row.issued
    cells[row.dispatched : start] = "=" * (start - row.dispatched)
    cells[start : row.done] = "e" * (row.done - start)
    cells[row.done : row.retired] = "-" * (row.retired - row.done)
    if row.issued is not None:
        cells[start] = "E"
    cells[row.dispatched], cells[row.retired] = "D", "R"
    return "".join(cells)


def _waited(dispatched: int, ready: int, issued: int | None, port: str) -> str:
    """What held it longest after it was dispatched."""
    for_operands, for_port = ready - dispatched - 1, (issued or 0) - ready
    if max(for_operands, for_port) <= 0:
        return ""
    return f"operands {for_operands}" if for_operands >= for_port else f"port {port} {for_port}"
