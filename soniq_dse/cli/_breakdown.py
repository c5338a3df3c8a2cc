"""Where the time of a run goes: every step as measured, beside what the cost model says, and sums by operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from soniq_dse.cli._common import table

if TYPE_CHECKING:
    from soniq_dse.records.choice import Choices
    from soniq_dse.runtime.latency import Latency, StepTime
    from soniq_dse.runtime.plan import LayerReport

PACK, LAYER, COPY = "pack", "layer", "copy"


def predicted_us(layers: list[LayerReport], choices: Choices) -> dict[str, float]:
    """Microseconds of each layer with its packing, by ``choices`` (whose latencies are predictions); left out where a
    part, or the kernel that runs it, is not among them."""
    found = {}
    for layer in layers:
        of_parts = [_option_us(choices, shape, layer) for shape in layer.shapes]
        known = [value for value in of_parts if value is not None]
        if known and len(known) == len(of_parts):
            found[layer.node] = sum(known)
    return found


def _option_us(choices: Choices, shape: Any, layer: LayerReport) -> float | None:
    made = choices.of(shape)
    if made is None:
        return None
    return next((option.latency_us for option in made.options if option.symbol in layer.kernels), None)


def rows_of(steps: Sequence[StepTime], predicted: Mapping[str, float]) -> list[dict[str, Any]]:
    """One per step, in order; a layer's prediction holds its packing, so its ratio is to both together."""
    packing = dict.fromkeys((step.node for step in steps), 0.0)
    rows = []
    for step in steps:
        expected = None if step.operation in (PACK, COPY) else predicted.get(step.node)
        if step.operation == PACK:
            packing[step.node] += step.median_us
        measured = step.median_us + packing[step.node] if step.operation == LAYER else step.median_us
        rows.append(
            {
                "node": step.node,
                "operation": step.operation,
                "measured_us": step.median_us,
                "predicted_us": expected,
                "predicted_to_measured": expected / measured if expected and measured else None,
            }
        )
    return rows


def sums_of(steps: tuple[StepTime, ...]) -> dict[str, float]:
    """Measured microseconds by operation, the largest first."""
    sums: dict[str, float] = {}
    for step in steps:
        sums[step.operation] = sums.get(step.operation, 0.0) + step.median_us
    return dict(sorted(sums.items(), key=lambda entry: -entry[1]))


def shown(timed: Latency, predicted: Mapping[str, float]) -> tuple[Any, str]:
    """The table of steps, and a line of the sums."""
    total = sum(step.median_us for step in timed.steps)
    rows = [
        [
            row["node"],
            row["operation"],
            f"{row['measured_us']:.1f}",
            f"{row['measured_us'] / total:.1%}",
            "" if row["predicted_us"] is None else f"{row['predicted_us']:.1f}",
            "" if row["predicted_to_measured"] is None else f"{row['predicted_to_measured']:.2f}",
        ]
        for row in rows_of(timed.steps, predicted)
    ]
    columns = {"step": "left", "operation": "left", "us": "right", "share": "right", "predicted us": "right",
               "predicted / measured": "right"}  # fmt: skip
    sums = ", ".join(f"{name} {value:.1f} us ({value / total:.1%})" for name, value in sums_of(timed.steps).items())
    return table("steps", columns, rows), f"steps by operation: {sums}"
