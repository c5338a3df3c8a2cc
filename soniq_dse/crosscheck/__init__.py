"""The pipeline behind ``crosscheck``: layers and networks -> predictions on disk -> measurements -> how far they agree.

Predictions are written, with the time and a hash of them, before the first measurement: none can have been shaped by
what it is compared with. Measured are the kernels that the predictions name, in an order that spreads over all rows, so
that a run that ends early has seen every kind; what was measured is kept at once, and a later run goes on from there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from soniq_dse.agreement import agree
from soniq_dse.cost.network import estimate, estimate_layer
from soniq_dse.cost.timeline import timeline
from soniq_dse.crosscheck._bench import Bench, bench_for
from soniq_dse.crosscheck._built_in import built_in_layers
from soniq_dse.crosscheck._journal import Journal
from soniq_dse.crosscheck._layers_file import read_layers
from soniq_dse.crosscheck._measure import choices_of
from soniq_dse.crosscheck._networks import NetworkCase, network_cases
from soniq_dse.crosscheck._scores import goals_of, summarise
from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.records.base import content_sha256
from soniq_dse.records.cost import Estimate, Host, Measurement, Timeline
from soniq_dse.records.crosscheck import Crosscheck, CrosscheckRow, MeasuredLayer, MeasuredLayers
from soniq_dse.records.gpu import GpuModel, Machine
from soniq_dse.records.workload import Conv2dLayer, GemmLayer

__all__ = ["Found", "Options", "built_in_layers", "crosscheck", "read_layers"]

ATTEMPTS = 4
"""Rounds over what did not settle: a busy machine is busy for seconds, then quiet."""
TIMELINES = 3
"""Kernels whose loops are followed through the core."""
_INTERVAL = ("low_us", "high_us", "interval")
MatmulLayer = GemmLayer | Conv2dLayer
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """``folder`` takes the predictions and the results; ``networks``: also time whole networks; measuring begins no row
    later than ``budget_s``."""

    folder: Path
    networks: bool = False
    command: str = ""
    budget_s: float = math.inf


@dataclass(frozen=True)
class Found:
    """The record, the measurements worth keeping (None where none were made), and whether this host could run them."""

    record: Crosscheck
    kept: MeasuredLayers | None
    host_can_run: bool


@dataclass(frozen=True)
class _Predicted:
    """One row to be: its estimate, and what is to be measured."""

    row: CrosscheckRow
    estimate: Estimate
    layer: MatmulLayer | None = None
    network: NetworkCase | None = None


def crosscheck(hw: Machine, layers: Sequence[MatmulLayer], host: Host, options: Options, notify: Notify) -> Found:
    """Predict ``layers`` (and networks) on ``hw``; where ``host`` is, or has, that machine, measure them too. Of a GPU
    that is not here the kept measurements are taken.

    Raises:
        UserError: a layer cannot be predicted, or the folder not be written.
        MissingCapabilityError: the host is the machine, but lacks a compiler.
    """
    bench = bench_for(hw, host)
    measures = bench.why_not is None and bench.here
    predicted = [_predict_layer(hw, layer) for layer in layers]
    if options.networks:
        predicted += [_predict_network(hw, case) for case in network_cases(hw)]
    sources = [bench.sources(one.estimate) for one in predicted] if measures else []
    journal = _journal(options.folder, predicted, sources, bench) if measures else None
    if journal is not None and journal.read():
        predicted = _as_first_predicted(options.folder, predicted)
    predicted_at, sha256 = _write_predictions(options.folder, hw, _now(), [one.row for one in predicted], sources)
    rows = [one.row.model_copy(update={"reason": f"not measured: {bench.why_not}"}) for one in predicted]
    measured: list[Measurement] = []
    if journal is not None:
        measured = _measure(predicted, bench, journal, options.budget_s, notify)
    elif bench.why_not is None:
        measured = [_measure_one(bench, one) for one in predicted]
    if measured:
        rows = [_filled(one, found) for one, found in zip(predicted, measured, strict=True)]
    summary = summarise(rows)
    record = Crosscheck(
        command=options.command,
        hardware=hw.name,
        hardware_title=hw.title,
        hardware_sha256=hw.identity(),
        matches_host=measures,
        not_measured=bench.why_not,
        host=bench.host,
        compiler=bench.compiler() if bench.why_not is None else "",
        predicted_at=predicted_at,
        predictions_sha256=sha256,
        measured_at=_now() if measures else None,
        summary=summary,
        goals=goals_of(summary),
        rows=tuple(rows),
        timelines=_timelines(hw, rows),
    )
    kept = _kept(hw, record, predicted, sources, measured) if measures else None
    return Found(record, kept, bench.can_run or bench.why_not is None)


def _timelines(hw: Machine, rows: Sequence[CrosscheckRow]) -> tuple[Timeline, ...]:
    """Of the first kernels of the layers farthest off; a GPU has none."""
    if isinstance(hw, GpuModel):
        return ()
    layers = [row for row in rows if row.kind == "layer" and row.error_percent is not None and row.kernels]
    farthest = sorted(layers, key=lambda row: -abs(row.error_percent or 0.0))
    symbols = list(dict.fromkeys(row.kernels[0] for row in farthest))[:TIMELINES]
    return tuple(found for symbol in symbols if (found := timeline(symbol, hw)) is not None)


def _predict_layer(hw: Machine, layer: MatmulLayer) -> _Predicted:
    try:
        found = estimate_layer(hw, layer)
    except UserError as error:
        raise UserError(f"layer {layer.name!r}: {error}") from error
    shape = layer.model_dump(mode="json", exclude={"name", "segments"})
    levels = "+".join(dict.fromkeys(segment.level.name for segment in layer.segments))
    return _Predicted(_row(layer.name, "layer", content_sha256(shape)[:12], levels, found), found, layer=layer)


def _predict_network(hw: Machine, case: NetworkCase) -> _Predicted:
    found = estimate(hw, case.workload, case.assignment)
    return _Predicted(_row(case.name, "network", case.model, case.palette.name, found), found, network=case)


def _row(name: str, kind: str, group: str, levels: str, found: Estimate) -> CrosscheckRow:
    return CrosscheckRow.model_validate(
        {
            "name": name,
            "kind": kind,
            "group": group,
            "levels": levels,
            "threads": found.threads,
            "macs": sum(layer.macs for layer in found.per_layer),
            "kernels": tuple(dict.fromkeys(kernel for layer in found.per_layer for kernel in layer.kernels)),
            "bound": found.bound,
            "predicted_us": found.latency_us,
            "low_us": found.low_us,
            "high_us": found.high_us,
            "interval": found.interval,
        }
    )


def _journal(folder: Path, predicted: Sequence[_Predicted], sources: Sequence[dict[str, str]], bench: Bench) -> Journal:
    """The journal of measurements of ``predicted``. Their intervals are no part of what names it: what a stopped run
    kept changes them."""
    values = [one.row.to_json_value() for one in predicted]
    rows = [{name: value for name, value in row.items() if name not in _INTERVAL} for row in values]
    return Journal(folder, [rows, list(sources), bench.host.to_json_value(), bench.compiler()])


def _as_first_predicted(folder: Path, predicted: Sequence[_Predicted]) -> list[_Predicted]:
    """``predicted`` with the intervals that stand in the folder: those from before the first measurement."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        rows = json.loads((folder / "predictions.json").read_bytes())["rows"]
        before = [{name: row[name] for name in _INTERVAL} for row in rows]
        return [
            replace(one, row=one.row.model_copy(update=first), estimate=one.estimate.model_copy(update=first))
            for one, first in zip(predicted, before, strict=True)
        ]
    return list(predicted)


def _measure(
    predicted: Sequence[_Predicted], bench: Bench, journal: Journal, budget_s: float, notify: Notify
) -> list[Measurement]:
    begin = time.monotonic()
    notify("building kernels")
    bench.build([one.estimate for one in predicted])
    found, done = journal.read(), 0
    for attempt in range(ATTEMPTS):
        left = [i for i in spread_out(len(predicted)) if i not in found or not _is_final(found[i])]
        for number, i in enumerate(left, start=1):
            taken = time.monotonic() - begin
            if taken > budget_s:
                break
            more = f", {taken / done * (len(left) - number + 1):.0f} s left" if done else ""
            notify(f"measuring {number} of {len(left)}{', again' if attempt else more}: {predicted[i].row.name}")
            found[i] = _better(found.get(i), _measure_one(bench, predicted[i]))
            journal.add(i, found[i])
            done += 1
    if len(found) == len(predicted):
        journal.finish()
    late = Measurement(skipped=f"the {budget_s:g} s for measuring were over; the same command goes on")
    return [found.get(i, late) for i in range(len(predicted))]


def spread_out(count: int) -> list[int]:
    """All of ``range(count)``, every beginning of it spread over the whole (by the golden section)."""
    return sorted(range(count), key=lambda i: i * (math.sqrt(5) - 1) / 2 % 1)


def _measure_one(bench: Bench, one: _Predicted) -> Measurement:
    if one.layer is not None:
        return bench.layer(one.layer, one.estimate)
    assert one.network is not None
    try:
        return bench.network(one.network, one.estimate)
    except MissingCapabilityError:
        raise
    except UserError as error:  # an operator without an integer form
        return Measurement(skipped=str(error))


def _is_final(found: Measurement) -> bool:
    return found.settled or found.skipped is not None


def _better(old: Measurement | None, new: Measurement) -> Measurement:
    """One that settled, else the faster one: whatever disturbs a measurement makes it slower."""
    if old is None or _is_final(new) or old.median_us is None or new.median_us is None:
        return new
    return min(old, new, key=lambda found: found.median_us or 0.0)


def _filled(one: _Predicted, found: Measurement) -> CrosscheckRow:
    agreement = agree(one.estimate, found)
    update: dict[str, object] = {"reason": agreement.reason}
    if found.median_us:
        update |= {
            "measured_us": found.median_us,
            "mad_us": found.mad_us,
            "samples": found.samples,
            "settled": found.settled,
            "error_percent": 100 * (one.estimate.latency_us / found.median_us - 1),
            "within": agreement.within,
        }
    return one.row.model_copy(update=update)


def _kept(
    hw: Machine,
    record: Crosscheck,
    predicted: Sequence[_Predicted],
    sources: Sequence[dict[str, str]],
    measured: Sequence[Measurement],
) -> MeasuredLayers:
    """What was measured and settled, of one thread: several share the clock of the wall with whatever else runs."""
    layers = [
        MeasuredLayer(
            layer=one.layer,
            choices=choices_of(one.estimate),
            kernels=kernels,
            measurement=found.model_copy(update={"host": None, "compiler": "", "flags": ()}),
        )
        for one, kernels, found in zip(predicted, sources, measured, strict=True)
        if one.layer is not None and found.median_us and found.settled and found.threads == 1
    ]
    return MeasuredLayers(
        hardware=hw.name,
        hardware_sha256=hw.identity(),
        date=(record.measured_at or record.predicted_at)[:10],
        host=record.host,
        compiler=record.compiler,
        layers=tuple(layers),
    )


def _write_predictions(
    folder: Path, hw: Machine, created: str, rows: Sequence[CrosscheckRow], sources: Sequence[dict[str, str]]
) -> tuple[str, str]:
    """Write ``predictions.json``; gives when they were made and their hash, which it holds too.

    Predictions that stand there already, of kernels as they are now, stay as they are, with their time.
    """
    values = [row.to_json_value() for row in rows]
    sha256, kernels = content_sha256(values), list(sources)
    path = folder / "predictions.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads(path.read_bytes())
        if before["rows"] == values and before["kernels"] == kernels:
            return str(before["created"]), sha256
    document = {"created": created, "hardware": hw.name, "hardware_sha256": hw.identity(), "rows_sha256": sha256,
                "kernels": kernels, "rows": values}  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(
            f"folder {folder}: expected to write there, got: {error.strerror}; name another: --out"
        ) from error
    return created, sha256


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
