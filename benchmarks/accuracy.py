"""Accuracy of palettes and allocators against FP32 at equal epochs, paired over seeds: the goals Q1-Q4 and Q6.

``python -m benchmarks.accuracy --tier cpu`` trains what is not kept yet and goes on where it was stopped, in the middle
of a training too; every finished one is kept at once. ``--tier gpu --device cuda`` is the same for the full networks
and schedules; ``--budget-s`` stops at the end of the first epoch behind so many seconds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence

from scipy import stats

from benchmarks._accuracy_figure import figure
from benchmarks._campaigns import (
    AT_MOST_2_BITS,
    CLAIMS,
    CONTROLS,
    CPU,
    CURVE,
    CURVE_JOBS,
    GPU,
    PARITY,
    SMALL_TEXT,
    TIERS,
)
from benchmarks._frame import PAGES, Goal, Result, Row, main
from benchmarks._trainings import Campaign, OutOfTime, Trainer, keep, missing, rows_of, store_folder

PARITY_POINTS, PARITY_PERCENT = -0.3, -2.0
"""Of accuracy and BLEU; of perplexity."""
PERPLEXITY = "perplexity"
LEAST_SEEDS = 5
CONFIDENCE = 0.95
LEAST_COMPRESSION = 7
"""Q4: times smaller than the FP32 file."""
CNN_DATA = {"digits": "digits", "fashion": "Fashion-MNIST", "cifar": "CIFAR-10"}
TEXT_DATA = {"shakespeare": "Tiny Shakespeare (half width)", "wikitext2": "WikiText-2", "multi30k": "Multi30k"}


def summary(rows: Sequence[Row]) -> list[Row]:
    """A line per design: means over seeds with standard errors, differences paired by seed."""
    lines = []
    for design in dict.fromkeys(row["design"] for row in rows):
        same = [row for row in rows if row["design"] == design]
        gaps = [better_by(row, row["fp32 test"]) for row in same]
        tested = [row["test"] for row in same]
        files = [row["fp32 bytes"] / row["bytes"] for row in same if row["bytes"]]
        lines.append(
            {
                "design": design,
                "seeds": len(same),
                "test": _with_error(tested),
                f"against FP32, {unit_of(same[0])}": _with_error(gaps, "+"),
                "lower 95 % bound": _text(lower_bound(gaps), "+.2f"),
                "bits of a weight": _text(statistics.fmean(row["bits"] for row in same), ".2f"),
                "whole file, x smaller": _text(statistics.fmean(files) if files else None, ".1f"),
                "s a training": _text(statistics.median(row["seconds"] for row in same), ".0f"),
            }
        )
    return lines


def better_by(row: Row, other: float) -> float:
    """How much better the test metric of a row is than ``other``: in points, of perplexity in percent of ``other``."""
    test: float = row["test"]
    return 100 * (other - test) / other if row["metric"] == PERPLEXITY else test - other


def unit_of(row: Row) -> str:
    """Of ``better_by``."""
    return "%" if row["metric"] == PERPLEXITY else "points"


def changes(rows: Sequence[Row]) -> list[Row]:
    """A line per setting: what it changes against the same designs of the same seeds without it."""
    plain = {(row["design"], row["seed"]): row["test"] for row in rows}
    lines = []
    for design in dict.fromkeys(row["design"] for row in rows if "=" in row["design"]):
        palette, _, setting = design.partition(" ")
        same = [row for row in rows if row["design"] == design and (palette, row["seed"]) in plain]
        gains = [row["test"] - plain[palette, row["seed"]] for row in same]
        if gains:
            lines.append(
                {
                    "design": palette,
                    "setting": setting,
                    "seeds": len(gains),
                    "test": _with_error([row["test"] for row in same]),
                    "against the default, points": _with_error(gains, "+"),
                    "against FP32, points": _with_error([row["test"] - row["fp32 test"] for row in same], "+"),
                }
            )
    return lines


def claims(rows: Sequence[Row]) -> list[Row]:
    """A line per claim about palettes: the difference of its two designs on the same seeds."""
    tests = {(row["design"], row["seed"]): row["test"] for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    lines = []
    for claim, first, second in CLAIMS:
        gaps = [tests[first, s] - tests[second, s] for s in seeds if (first, s) in tests and (second, s) in tests]
        if gaps:
            what = {"claim": claim, "design": first, "against": second, "seeds": len(gaps)}
            lines.append({**what, "difference, points": _with_error(gaps, "+")})
    return lines


def curve(kept: Mapping[str, Sequence[Row]]) -> list[Row]:
    """A line per width and number of epochs of the digits network: the fewest bits of a weight at parity there."""
    lines = []
    for campaign in sorted(
        (CPU[0], *CURVE), key=lambda c: (float(c.model.partition("@")[2]), c.schedule.baseline_epochs)
    ):
        rows, schedule = [row for row in kept.get(campaign.name, ()) if row["seed"] < campaign.seeds], campaign.schedule
        gaps = {job.name: [r["test"] - r["fp32 test"] for r in rows if r["design"] == job.name] for job in CURVE_JOBS}
        if not any(gaps.values()):
            continue
        fp32 = {row["seed"]: row["fp32 test"] for row in rows}
        bounds = {job.name: parity_of(rows, job.name) for job in CURVE_JOBS}
        met = [name for name, bound in bounds.items() if bound is not None and bound >= PARITY_POINTS]
        lines.append(
            {
                "width": campaign.model.partition("@")[2],
                "epochs": schedule.baseline_epochs + schedule.noise_epochs + schedule.finetune_epochs,
                "seeds": len(fp32),
                "FP32 test": _with_error(list(fp32.values())),
                **{f"{name} against FP32, points": _with_error(found, "+") for name, found in gaps.items() if found},
                "fewest bits at parity": met[0] if met else "none of them",
            }
        )
    return lines


def lower_bound(gaps: Sequence[float]) -> float | None:
    """The one-sided lower bound of the mean of paired differences by Student's t; None for fewer than two."""
    if len(gaps) < 2:
        return None
    error = statistics.stdev(gaps) / math.sqrt(len(gaps))
    return statistics.fmean(gaps) - float(stats.t.ppf(CONFIDENCE, len(gaps) - 1)) * error


def parity_of(rows: Sequence[Row], design: str) -> float | None:
    """The lower bound of a design's difference to FP32; None where it has too few seeds."""
    gaps = [better_by(row, row["fp32 test"]) for row in rows if row["design"] == design]
    return lower_bound(gaps) if len(gaps) >= LEAST_SEEDS else None


def paired_gain(rows: Sequence[Row], design: str, other: str) -> float | None:
    """The lower bound of how much better ``design`` is than ``other`` on the same seeds."""
    tests = [{row["seed"]: row["test"] for row in rows if row["design"] == name} for name in (design, other)]
    common = sorted(tests[0].keys() & tests[1].keys())
    if len(common) < LEAST_SEEDS:
        return None
    return lower_bound([tests[0][seed] - tests[1][seed] for seed in common])


def goals_of(kept: dict[str, list[Row]]) -> list[Goal]:
    """Q1-Q4 and Q6, as far as rows are there."""
    goals = []
    asked = {"Q1": PARITY[:2], "Q2": PARITY[2:4], "Q3": AT_MOST_2_BITS}
    for number, jobs in asked.items():
        for name in CNN_DATA if number == "Q1" else ("fashion", "cifar") if number == "Q2" else ("cifar",):
            for job in jobs:
                rows = kept.get(name, [])
                goals.append(
                    _goal(number, f"{job.name} against FP32, {CNN_DATA[name]}", rows, parity_of(rows, job.name))
                )
    goals += [_small_text(data, kept.get(name, []), name == "multi30k") for name, data in TEXT_DATA.items()]
    for control in CONTROLS:
        rows = kept.get("digits", [])
        other = "w2a2" if control == "uniform" else f"w1a1+w4a4@2 {control}"
        gain = paired_gain(rows, "w1a1+w4a4@2", other)
        goals.append(_goal("Q6", f"SONIQ's assignment against {control}, digits, w1a1+w4a4@2", rows, gain))
    return goals


def _small_text(data: str, rows: Sequence[Row], is_translation: bool) -> Goal:
    """Q4: unmet where a file is not small enough, whatever the metric."""
    same = [row for row in rows if row["design"] == SMALL_TEXT.name]
    is_small = all(row["fp32 bytes"] >= LEAST_COMPRESSION * row["bytes"] for row in same)
    value = parity_of(same, SMALL_TEXT.name) if is_small else None
    name = f"{SMALL_TEXT.name} against FP32, a file {LEAST_COMPRESSION} times smaller, {data}"
    unit, bound = ("points", PARITY_POINTS) if is_translation else ("%", PARITY_PERCENT)
    return _goal("Q4", name, same, value, unit, bound)


def _goal(
    number: str, name: str, rows: Sequence[Row], value: float | None,
    unit: str = "points", bound: float = PARITY_POINTS,
) -> Goal:  # fmt: skip
    hosts = sorted({row["host"] for row in rows})
    when = f"{max(row['date'] for row in rows)} on {'; '.join(hosts)}" if rows and value is not None else None
    text = f"lower 95 % bound of: {name}"
    return Goal(f"{number} {name}", text, unit, value, at_least=bound, measured=when)


def _with_error(values: Sequence[float], sign: str = "") -> str:
    if len(values) < 2:
        return f"{statistics.fmean(values):{sign}.2f}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.fmean(values):{sign}.2f} +- {error:.2f}"


def _text(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def train(campaigns: Sequence[Campaign], budget_s: float, device: str) -> None:
    """Train what is missing until the time is up; progress on standard error."""
    end = time.monotonic() + budget_s

    def out_of_time() -> bool:
        return time.monotonic() > end

    for campaign in campaigns:
        trainer = Trainer(campaign, store_folder(), device, out_of_time)
        for seed, jobs in missing(campaign, rows_of(campaign)):
            for job in jobs:
                if out_of_time():
                    return
                try:
                    row = trainer.run(seed, job)
                except OutOfTime:
                    return
                keep(campaign, row)
                told = f"{row['test']:.2f} (FP32 {row['fp32 test']:.2f}), {row['seconds']:.0f} s"
                print(f"{campaign.name}: {job.name}, seed {seed}: {told}", file=sys.stderr, flush=True)


def tables(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """A table per campaign."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["campaign"], []).append({key: value for key, value in row.items() if key != "campaign"})
    return found


NOTE = (
    "Test metric (top-1 accuracy in %, perplexity of text, BLEU of translations) of the deployed integer network (of "
    "Brevitas: of its fake-quantized one) as mean +- standard error over seeds; FP32 has as many epochs, and "
    "differences are paired by seed. Validation and test data choose nothing here. Equal epochs, not equal recipes: "
    "designs and Brevitas also learn from the outputs of the warm FP32 network (distillation), the FP32 reference "
    "does not; `fp32 distilled` does. The designs that parity on digits is asked of, and those that Q6 compares, were"
    " extended once, from 5 to 15 seeds, when the bounds of 5 had missed; those of Q1 and Q2 on CIFAR-10 from 5 to "
    "12. No data are augmented but where a setting says so. Bounds are one-sided. Seconds are wall time on a shared "
    "machine, pauses included. Each training's host, versions and commit are in reports/benchmarks/accuracy/rows."
)


CURVE_HEADING = "digits: the fewest bits at parity over width and epochs"
PICTURE = (
    "![Points against FP32 over bits of a weight, one panel for each data set; bars are standard errors]"
    "(../images/accuracy.svg)"
)


def describe(campaign: Campaign) -> str:
    """The heading of a campaign's table."""
    schedule, part = campaign.schedule, f", {campaign.limit:,} examples of each split" if campaign.limit else ""
    epochs = f"{schedule.baseline_epochs} + {schedule.noise_epochs} + {schedule.finetune_epochs} epochs"
    return f"{campaign.name}: {campaign.model}, {epochs}{part}"


def run() -> None:
    """The command line: what is this benchmark's own first, the convention behind it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--tier", choices=TIERS, default="cpu")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--budget-s", type=float, default=math.inf)
    parser.add_argument("--only", default="")
    own, sys.argv[1:] = parser.parse_known_args()
    chosen = [c for c in TIERS[own.tier] if not own.only or c.name in own.only.split(",")]

    def measure(quick: bool) -> Result:
        if not quick:
            train(chosen, own.budget_s, own.device)
        kept = {campaign.name: rows_of(campaign) for campaign in (*CPU, *CURVE, *GPU)}
        lines = [
            {"campaign": heading, **line}
            for campaign in (*CPU, *GPU)
            for heading, made in (
                (describe(campaign), summary([row for row in kept[campaign.name] if "=" not in row["design"]])),
                (f"{campaign.name}: one change to the training", changes(kept[campaign.name])),
                (f"{campaign.name}: what is said of palettes", claims(kept[campaign.name])),
            )
            for line in made
        ]
        lines += [{"campaign": CURVE_HEADING, **line} for line in curve(kept)]
        if not quick:
            shown = {describe(c): kept[c.name] for c in (*CPU, *GPU) if c.name in CNN_DATA and kept[c.name]}
            (PAGES.parent / "images" / "accuracy.svg").write_text(figure(shown))
        return Result(goals_of(kept), lines, (PICTURE, "", NOTE))

    main("accuracy", "Accuracy of palettes and allocators", measure, tables=tables)


if __name__ == "__main__":
    run()
