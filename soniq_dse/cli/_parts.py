"""Where the time of decoding goes: every step of its parts as measured and as the cost model says, by operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from soniq_dse.cli._breakdown import COPY, LAYER, PACK, rows_of
from soniq_dse.cli._common import table

if TYPE_CHECKING:
    from soniq_dse.records.hardware import HardwareModel
    from soniq_dse.runtime.pack import PackedNetwork

Rows = list[dict[str, Any]]


def part_rows(packed: PackedNetwork, position: int, hw: HardwareModel | None, threads: int) -> dict[str, Rows]:
    """Steps of ``step``, a token behind ``position`` others, of ``prompt`` and of ``encode``; predicted where ``hw`` is
    given."""
    from soniq_dse.cost.network import choose_kernels
    from soniq_dse.cost.steps import step_us
    from soniq_dse.runtime.decoder import Decoder

    decoder = Decoder(packed, threads=threads)
    decoder.begin(np.zeros((1, decoder.source_tokens), np.int64) if decoder.source_tokens else None)
    if position:
        decoder.read(np.zeros((1, position), np.int64))
    found = {}
    for name, part in decoder.time_parts().items():
        predicted = {}
        if hw is not None:
            choices = choose_kernels(hw, part.shapes, threads=threads, known=packed.choices)
            predicted = step_us(hw, part.network, threads=threads, kept=part.kept, choices=choices)
        found[name] = rows_of(part.steps, predicted)
    return found


def shown_parts(parts: Mapping[str, Rows]) -> list[Any]:
    """A table of each part by operation."""
    columns = {
        "operation": "left", "steps": "right", "us": "right", "share": "right", "predicted us": "right",
        "predicted / measured": "right",
    }  # fmt: skip
    return [table(f"{name}, by operation", columns, _by_operation(rows)) for name, rows in parts.items()]


def _by_operation(rows: Rows) -> list[list[str]]:
    total, groups = sum(row["measured_us"] for row in rows), dict[str, Rows]()
    for row in rows:
        groups.setdefault(LAYER if row["operation"] == PACK else row["operation"], []).append(row)
    lines = [_line(name, group, total) for name, group in sorted(groups.items(), key=lambda item: -_us(item[1]))]
    return [*lines, _line("all", rows, total)]


def _line(name: str, rows: Rows, total: float) -> list[str]:
    measured = _us(rows)
    predicted = sum(row["predicted_us"] or 0.0 for row in rows)
    known = predicted > 0 and all(row["predicted_us"] or row["operation"] in (PACK, COPY) for row in rows)
    return [
        "layer, with packing" if name == LAYER else name,
        str(len(rows)),
        f"{measured:.1f}",
        f"{measured / total:.1%}",
        f"{predicted:.1f}" if known else "",
        f"{predicted / measured:.2f}" if known else "",
    ]


def _us(rows: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(row["measured_us"] for row in rows))
