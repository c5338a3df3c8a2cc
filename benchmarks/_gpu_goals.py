"""The goals of the CUDA kernels, each with a value where rows give one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks._frame import Goal
from benchmarks._gpu_records import Row

RATIOS = {
    "G2 decode W1 8192x8192": (1, 1, 8192, 6.3),
    "G2 decode W1 28672x8192": (1, 1, 28672, 10.0),
    "G2 decode W2 8192x8192": (2, 1, 8192, 4.5),
    "G2 decode W2 28672x8192": (2, 1, 28672, 6.3),
}
"""Goal -> (weight bits, rows, cols, times cuBLAS FP16)."""


def goals_of(rows: Sequence[Row]) -> list[Goal]:
    """Every goal. A kernel that did not run is not exact."""
    checked = [row["exact"] for row in rows]
    goals = [Goal("G1", "kernels whose every result is exact on the device", "share",
                  sum(checked) / len(checked) if checked else None, at_least=1.0)]  # fmt: skip
    for name, (weight_bits, n_rows, cols, least) in RATIOS.items():
        found = [r for r in rows if (r["weight_bits"], r["rows"], r["cols"]) == (weight_bits, n_rows, cols)]
        goals.append(Goal(name, "over cuBLAS FP16", "x", _best(found), at_least=least))
    for bits, least in ((1, 8.0), (2, 2.8)):
        found = [r for r in rows if r["weight_bits"] == r["activation_bits"] == bits and r["rows"] >= 4096]
        goals.append(Goal(f"G2 GEMM W{bits}A{bits}", "over cuBLAS FP16", "x", _best(found), at_least=least))
    vector = [row["hfma2_us"] / row["median_us"] for row in _timed(rows) if row.get("hfma2_us") and row["exact"]]
    goals.append(
        Goal("G2 vector W1A1", "over a full-rate HFMA2 baseline", "x", max(vector, default=None), at_least=3.3)
    )
    errors = [abs(row["predicted_us"] / row["median_us"] - 1) for row in _timed(rows) if row["role"] == "holdout"]
    goals.append(Goal("G3 error", "MAPE on held-out kernels", "%", 100 * float(np.mean(errors)) if errors else None,
                      at_most=10.0))  # fmt: skip
    goals.append(Goal("G3 order", "Kendall tau of time per MAC", "", _tau(rows), at_least=0.95))
    above = [row["bound_us"] / row["median_us"] - 1 for row in _timed(rows)]
    goals.append(Goal("G3 bound", "most by which the bound exceeds a time", "%", 100 * max(above) if above else None,
                      at_most=1.0))  # fmt: skip
    return goals


def _timed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["median_us"]]


def _best(rows: Sequence[Row]) -> float | None:
    found = [row["fp16_us"] / row["median_us"] for row in _timed(rows) if row["exact"] and row["fp16_us"]]
    return max(found, default=None)


def _tau(rows: Sequence[Row]) -> float | None:
    from scipy.stats import kendalltau

    timed = _timed(rows)
    if len(timed) < 3:
        return None
    macs = [row["rows"] * row["cols"] * row["k"] for row in timed]
    pairs = zip(timed, macs, strict=True)
    predicted, measured = zip(*((r["predicted_us"] / m, r["median_us"] / m) for r, m in pairs), strict=True)
    return float(kendalltau(predicted, measured).statistic)
