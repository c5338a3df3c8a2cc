"""Split-conformal intervals: how far measurements lay from predictions on this machine says how far the next may.

Residuals are ``ln(measured / predicted)`` of what was predicted and then measured, and no model was fitted to. For any
of their distributions, the next one lies between their ranks ``(n + 1) a / 2`` and ``(n + 1) (1 - a / 2)`` with
probability 1 - a or more, as long as it is of their kind (Lei et al., "Distribution-free predictive inference for
regression", JASA 2018, theorem 2.2, with a tail on either side). The kind is the regime: what the prediction itself
says bounds it. Regimes with few residuals are pooled with all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from soniq_dse.errors import UserError
from soniq_dse.hardware.gpus import match_gpu
from soniq_dse.hardware.host import match_host
from soniq_dse.kernels.catalog import catalog
from soniq_dse.kernels.gpu_catalog import gpu_layer_kernels
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.kernels.keep_loops import source_sha256
from soniq_dse.records.cost import Bound, LayerEstimate
from soniq_dse.records.crosscheck import MeasuredLayers
from soniq_dse.records.gpu import GpuModel, Machine
from soniq_dse.records.hardware import Figure
from soniq_dse.resources import shipped_folder

NOMINAL = 0.90
FEWEST = 39
"""Residuals that a regime needs for an interval of its own: the least whose 5 % tails are not its extremes."""


TOLERANCE: dict[str, tuple[float, float]] = {
    "loop": (0.20, 0.50),
    "recipe": (0.30, 0.75),
    "fp32": (0.05, 0.75),
    "memory": (0.30, 0.50),
    "packing": (0.50, 1.00),
    "epilogue": (0.50, 1.00),
    "overhead": (0.50, 1.50),
}
"""Where nothing was measured: how far below and above an estimate the truth may lie, as parts of it, per term (compute:
by what priced it)."""


class Factors(NamedTuple):
    """An interval relative to its prediction: ``low <= 1 <= high``."""

    low: float
    high: float


def regime_of(bound: Bound) -> str:
    """``memory`` behind the nearest cache, ``overhead``, else ``core``."""
    if bound in ("l2", "l3", "dram"):
        return "memory"
    return "overhead" if bound in ("overhead", "launch") else "core"


def read_kept(hw: Machine) -> tuple[MeasuredLayers | None, str]:
    """The layers that were measured on the machine of ``hw`` and kept, and where none serve, why.

    They are looked for below the current folder, then among the shipped files. A what-if has none. A descriptor that
    was measured anew keeps them: errors follow from its predictions as they are now.

    Raises:
        UserError: the file is not a MeasuredLayers record.
    """
    if not hw.matches:
        return None, "the descriptor speaks of no processor that could be measured"
    place = Path("measured") / hw.name / "layers.json"
    for folder in (Path("hwmodels"), shipped_folder("hwmodels")):
        try:
            text = (folder / place).read_bytes()
        except OSError:
            continue
        try:
            kept = MeasuredLayers.from_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{folder / place}: {field}: expected a MeasuredLayers record, got {first['msg']}; "
                f"`soniq-dse crosscheck --hw {hw.name} --keep` writes one"
            ) from error
        if isinstance(hw, GpuModel):
            matches, why = match_gpu(hw.name, hw.matches, [kept.host.processor])
        else:
            matches, why = match_host(hw, kept.host)
        return (kept, "") if matches else (None, f"layers were measured on another processor: {why}")
    return None, "no layers were measured on this machine"


class Intervals:
    """Intervals from residuals per regime (of any names)."""

    def __init__(self, residuals: Mapping[str, Sequence[float]], origin: str = "") -> None:
        self.origin = origin
        self.n = sum(map(len, residuals.values()))
        self._own = {regime: conformal(found) for regime, found in residuals.items() if len(found) >= FEWEST}
        self._pooled = conformal([residual for found in residuals.values() for residual in found])

    def factors(self, regime: str) -> Factors | None:
        """The interval of a regime; None where there are too few residuals for any."""
        return self._own.get(regime) or self._pooled


def conformal(residuals: Sequence[float], nominal: float = NOMINAL) -> Factors | None:
    """The interval that ``residuals`` give; None where they are too few for ``nominal`` (19 for 90 %).

    It is widened to hold the prediction itself, which can only cover more.
    """
    ordered, tail = sorted(residuals), (1 - nominal) / 2
    rank = math.floor((len(ordered) + 1) * tail + 1e-9)
    if rank < 1:
        return None
    return Factors(min(1.0, math.exp(ordered[rank - 1])), max(1.0, math.exp(ordered[-rank])))


@dataclass(frozen=True)
class Span:
    """The interval of an estimate in cycles of the descriptor's clock, and how it was come by."""

    low_cycles: float
    high_cycles: float
    text: str
    calibrated: bool


def span(
    layers: Sequence[LayerEstimate],
    priced_by: Mapping[str, str],
    clock: Figure,
    intervals: Intervals | None,
    why_none: str = "",
) -> Span:
    """The interval of a sum of layers, which are taken to err together: those of ``priced_by`` (name -> what priced its
    compute) by ``intervals`` where there are any; all else, and fp32, by its stated tolerances."""
    low = high = 0.0
    n_calibrated = 0
    spread = 3 * (clock.spread or 0.0) / clock.value
    for layer in layers:
        how = priced_by.get(layer.name)
        factors = intervals.factors(regime_of(layer.bound)) if intervals and how in ("loop", "recipe") else None
        n_calibrated += factors is not None
        below, above = (layer.cycles * f for f in factors) if factors else _tolerated(layer, how or "loop", spread)
        low, high = low + below, high + above
    hows = sorted(set(priced_by.values()))
    stated = "compute " + ", ".join(f"{how} -{TOLERANCE[how][0]:.0%}/+{TOLERANCE[how][1]:.0%}" for how in hows)
    stated += "; memory -30%/+50%, packing and epilogue -50%/+100%, overhead -50%/+150%; 3 spreads of the clock"
    if intervals is None or not n_calibrated:
        reason = f" ({why_none})" if why_none else ""
        return Span(
            low, high, f"not calibrated{reason}: stated tolerances per term ({stated}), all erring together", False
        )
    rest = "" if n_calibrated == len(layers) else "; what is no layer of integers by stated tolerances"
    together = ", layers erring together" if n_calibrated > 1 else ""
    text = f"{NOMINAL:.0%} split-conformal from {intervals.n} layers {intervals.origin}{together}{rest}"
    return Span(low, high, text, True)


def are_current(kernels: Mapping[str, str]) -> bool:
    """Whether the sources of kernels (symbol -> hash) are what they were."""
    known = {spec.symbol: spec.path for spec in catalog()}
    on_gpus = {layer.symbol: layer.path for layer in gpu_layer_kernels()}
    return all(
        (symbol in known and source_sha256(known[symbol]) == sha)
        or (symbol in on_gpus and cuda_source_sha256(on_gpus[symbol]) == sha)
        for symbol, sha in kernels.items()
    )


def _tolerated(layer: LayerEstimate, how: str, spread: float) -> tuple[float, float]:
    low = high = 0.0
    for term in layer.terms:
        below, above = TOLERANCE[how if term.name == "compute" else term.name]
        low, high = low + term.cycles * (1 - below), high + term.cycles * (1 + above)
    return low * (1 - spread), high * (1 + spread)
