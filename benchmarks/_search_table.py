"""The table behind the search benchmark: every design of a small space, really trained at every fidelity and seed.

``python -m benchmarks._search_table STORE`` trains what the folder STORE lacks (about two hours of a core from nothing;
an interrupted run goes on) and writes ``reports/benchmarks/search/rows/digits.json``, from which the benchmark replays.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks._frame import KEPT, Row
from soniq_dse.cost.network import choose_kernels, estimate
from soniq_dse.explore import Options, Plan, make_plan
from soniq_dse.explore._plan import INT8
from soniq_dse.explore._search import search
from soniq_dse.explore._train import stored
from soniq_dse.hardware.host import detect_host
from soniq_dse.qat.proxy import rounded_start
from soniq_dse.records.design import TrainedBaseline, TrainedDesign
from soniq_dse.runtime.latency import measure
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.store import Store

PATH = KEPT / "search" / "rows" / "digits.json"
PALETTES = (
    "w1a1", "w1a2", "w1a4", "w2a2", "w2a4", "w4a4", "w8a8", "w1a1+w4a4@1.5", "w1a1+w4a4@2", "w1a1+w4a4@2.5",
    "w1a1+w4a4@3", "w1a1+w2a2@1.5", "w1a2+w4a4@1.5", "w1a2+w4a4@2", "w2a2+w4a4@2.5", "w2a2+w4a4@3",
    "w1a1+w2a2+w4a4@2", "w1a4+w8a8@2.75", "w1a4+w8a8@4.5", "w1a1+w8a8@2.75",
)  # fmt: skip
WIDTHS = (0.25, 0.1875, 0.125)
SCHEDULES = ((16, 5, 11), (16, 1, 3))
SEEDS = 5


def plan_of(store: Path, epochs: tuple[int, int, int]) -> Plan:
    """The whole space at one schedule."""
    return make_plan(
        Options(
            hw="avx512",
            model="digits_cnn",
            palettes=PALETTES,
            widths=WIDTHS,
            seeds=SEEDS,
            epochs=epochs,
            store=store,
            out=store,
            jobs=2,
            measure=False,
        )
    )


def rows_of(plan: Plan, store: Store, kept: dict[str, Row]) -> list[Row]:
    """What the store holds of a schedule, a row per training, ``kept`` ones with the prediction of today."""
    schedule = plan.candidates[0].schedule
    is_full = (schedule.baseline_epochs, schedule.noise_epochs, schedule.finetune_epochs) == SCHEDULES[0]
    starts = {(c.model, c.seed): c for c in plan.baselines}
    rows = []
    for candidate in plan.candidates:
        if plan.is_reference(candidate) and candidate.palette == INT8:
            continue
        made = stored(plan, store, "design", candidate)
        key = plan.key("design", candidate)
        if made is None:
            rows += [kept[key]] if key in kept else []
            continue
        assert isinstance(made, TrainedDesign)
        row: Row = kept.get(key) or {
            "key": key, "model": candidate.model, "palette": candidate.palette.name, "budget": candidate.budget_bits,
            "seed": candidate.seed, "epochs": [schedule.noise_epochs, schedule.finetune_epochs],
            "val": made.metric_val, "test": made.metric_test,
        }  # fmt: skip
        packed = PackedNetwork(made.network, {ref.sha256: store.get_array(ref) for ref in made.arrays})
        choices = choose_kernels(plan.hardware, packed.shapes(1))
        variant = plan.variants[candidate.model]
        row["latency_us"] = estimate(plan.hardware, variant.workload, made.assignment, choices=choices).latency_us
        if is_full and "prior_metric" not in row:
            start = stored(plan, store, "baseline", starts[candidate.model, candidate.seed])
            assert isinstance(start, TrainedBaseline)
            rounded = rounded_start(candidate, variant.workload, variant.build, plan.task, start, store)
            row["prior_metric"] = rounded.metric_val
            row["prior_latency_us"] = estimate(plan.hardware, plan.graph(candidate), rounded.assignment).latency_us
        rows.append(row)
    return rows


def timed(plan: Plan, store: Store, rows: list[Row]) -> None:
    """Add what this processor takes for the whole designs; to be run with the machine to itself."""
    of_key = {row["key"]: row for row in rows}
    for candidate in plan.candidates:
        row = of_key.get(plan.key("design", candidate))
        made = stored(plan, store, "design", candidate) if row is not None else None
        if row is None or not isinstance(made, TrainedDesign):
            continue
        packed = PackedNetwork(made.network, {ref.sha256: store.get_array(ref) for ref in made.arrays})
        choices = choose_kernels(plan.hardware, packed.shapes(1))
        row["measured_us"] = measure(packed.with_choices(choices), max_s=0.3).median_us


def main() -> None:
    """Train, unless ``--no-train``; write; with ``--time`` measure latencies too."""
    folder, flags = Path(sys.argv[1]), sys.argv[2:]
    kept = {row["key"]: row for row in json.loads(PATH.read_text())["rows"]} if PATH.is_file() else {}
    rows: list[Row] = []
    with Store(folder) as store:
        for schedule in SCHEDULES:
            plan = plan_of(folder, schedule)
            if "--no-train" not in flags:
                failures = search(
                    plan, store, lambda progress: print(progress.line) if progress.line else None
                ).failures
                assert not failures, failures
            found = rows_of(plan, store, kept)
            if "--time" in flags and schedule == SCHEDULES[0]:
                timed(plan, store, found)
            rows += found
    PATH.parent.mkdir(parents=True, exist_ok=True)
    document = {"host": detect_host().to_json_value(), "hardware": "avx512", "schedules": SCHEDULES}
    lines = ",\n".join(json.dumps(row) for row in rows)
    PATH.write_text(json.dumps(document)[:-1] + ', "rows": [\n' + lines + "\n]}\n")


if __name__ == "__main__":
    main()
