"""Rows -> summary and goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from soniq_dse.agreement import Pair, Score, coverage_p_value, regret, score
from soniq_dse.records.crosscheck import CrosscheckGoal, CrosscheckRow, CrosscheckSummary

MEMORY = ("l2", "l3", "dram")
FEWEST_NETWORKS = 20
_GOALS: tuple[tuple[str, str, str, str, float | None, float | None], ...] = (
    ("C1a", "mean absolute error of layers", "%", "mape_percent", 5, None),
    ("C1b", "95th percentile of it", "%", "p95_percent", 10, None),
    ("C2", "Kendall's tau of microseconds per multiply-accumulate", "", "tau", None, 0.95),
    ("C3a", "mean cost of choosing the level by the model", "%", "regret_mean_percent", 1, None),
    ("C3b", "the dearest such choice", "%", "regret_worst_percent", 5, None),
    ("C4a", "chance of such a coverage of 90 % intervals", "", "coverage_p_value", None, 0.05),
    ("C4b", "median half width of the intervals", "%", "half_width_percent", 8, None),
    ("C6", "mean absolute error of layers bound by memory", "%", "memory_mape_percent", 15, None),
    ("C7a", "mean absolute error of networks", "%", "networks_mape_percent", 5, None),
    ("C7b", "largest error of a network", "%", "networks_worst_percent", 10, None),
)
"""(id, what, unit, field of the summary, at most, at least)."""


def summarise(rows: Sequence[CrosscheckRow]) -> CrosscheckSummary:
    """Scores of the rows that were measured."""
    measured = [row for row in rows if row.measured_us]
    layers = [row for row in measured if row.kind == "layer"]
    networks = _score([row for row in measured if row.kind == "network"])
    of_layers, memory = _score(layers), _score([row for row in layers if row.bound in MEMORY])
    regrets = regret(_choices(layers))
    inside = sum(bool(row.within) for row in layers)
    widths = [50 * (row.high_us - row.low_us) / row.predicted_us for row in layers if row.predicted_us]
    worst = max(layers, key=lambda row: abs(row.error_percent or 0.0), default=None)
    return CrosscheckSummary(
        n_rows=len(rows),
        n_measured=len(measured),
        mape_percent=of_layers.mape_percent,
        median_percent=of_layers.median_percent,
        p95_percent=of_layers.p95_percent,
        worst_percent=of_layers.worst_percent,
        worst_name=worst.name if worst else None,
        bias_percent=of_layers.bias_percent,
        tau=of_layers.tau,
        regret_mean_percent=statistics.fmean(regrets) if regrets else None,
        regret_worst_percent=max(regrets, default=None),
        coverage_percent=100 * inside / len(layers) if layers else None,
        coverage_p_value=coverage_p_value(inside, len(layers)) if layers else None,
        half_width_percent=statistics.median(widths) if widths else None,
        memory_mape_percent=memory.mape_percent,
        n_networks_measured=networks.n,
        networks_mape_percent=networks.mape_percent,
        networks_worst_percent=networks.worst_percent,
    )


def goals_of(summary: CrosscheckSummary) -> tuple[CrosscheckGoal, ...]:
    """The goals that something was measured for."""
    return tuple(_goals(summary))


def _goals(summary: CrosscheckSummary) -> Iterator[CrosscheckGoal]:
    for id_, name, unit, field, most, least in _GOALS:
        value = getattr(summary, field)
        if value is None:
            continue
        met = value <= most if most is not None else value >= (least or 0.0)
        bound = f"<= {most:g}" if most is not None else f">= {least:g}"
        yield CrosscheckGoal(id=id_, name=name, unit=unit, value=value, bound=bound, met=met)


def _score(rows: Sequence[CrosscheckRow]) -> Score:
    pairs = [Pair(row.predicted_us, row.measured_us or 0.0) for row in rows]
    rates = [Pair(*(us / max(row.macs, 1) for us in pair)) for row, pair in zip(rows, pairs, strict=True)]
    return score(pairs, rates)


def _choices(rows: Sequence[CrosscheckRow]) -> Iterator[list[Pair]]:
    groups: dict[str, list[Pair]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(Pair(row.predicted_us, row.measured_us or 0.0))
    yield from groups.values()
