"""The accuracy benchmark: rows survive kills, statistics by hand, goals only from enough seeds."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from soniq_dse.explore._recipe import schedule_of
from soniq_dse.qat.allocators import Base
from soniq_dse.records.design import Schedule
from soniq_dse.records.palette import Palette
from soniq_dse.registry import load, names

sys.path.append(str(Path(__file__).resolve().parents[3]))  # benchmarks are not installed
accuracy = pytest.importorskip("benchmarks.accuracy")
accuracy_figure = pytest.importorskip("benchmarks._accuracy_figure")
trainings = pytest.importorskip("benchmarks._trainings")
Campaign, Job, keep, missing, rows_of = (
    trainings.Campaign, trainings.Job, trainings.keep, trainings.missing, trainings.rows_of,
)  # fmt: skip

CAMPAIGN = Campaign(
    "small", "tiny_cnn", "digits", Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1),
    (Job("w4a4"), Job("w2a2", "brevitas")), seeds=3,
)  # fmt: skip


def row(design: str, seed: int, test: float, fp32: float = 90.0, campaign: object = CAMPAIGN) -> dict:
    return {
        "design": design, "seed": seed, "test": test, "fp32 test": fp32, "fp32 bytes": 800, "bytes": 100, "bits": 4.0,
        "seconds": 1.0, "metric": "accuracy", "host": "a host", "date": "2026-01-01", "recipe": campaign.recipe,
    }  # fmt: skip


def test_what_is_kept_is_not_done_again(tmp_path: Path) -> None:
    assert [(seed, [job.name for job in jobs]) for seed, jobs in missing(CAMPAIGN, rows_of(CAMPAIGN, tmp_path))] == [
        (seed, ["w4a4", "w2a2 brevitas"]) for seed in range(3)
    ]
    keep(CAMPAIGN, row("w4a4", 0, 89.0), tmp_path)
    keep(CAMPAIGN, row("w4a4", 1, 91.0), tmp_path)
    left = [(seed, [job.name for job in jobs]) for seed, jobs in missing(CAMPAIGN, rows_of(CAMPAIGN, tmp_path))]
    assert left == [(0, ["w2a2 brevitas"]), (1, ["w2a2 brevitas"]), (2, ["w4a4", "w2a2 brevitas"])]


def test_some_jobs_have_more_seeds_than_others(tmp_path: Path) -> None:
    longer = dataclasses.replace(CAMPAIGN, seeds=1, repeated=CAMPAIGN.jobs[:1], repeats=3)
    left = [(seed, len(jobs)) for seed, jobs in missing(longer, rows_of(longer, tmp_path))]
    assert left == [(0, 2), (1, 1), (2, 1)]


def test_a_line_cut_short_and_rows_of_another_recipe_do_not_count(tmp_path: Path) -> None:
    keep(CAMPAIGN, row("w4a4", 0, 89.0), tmp_path)
    path = tmp_path / "small.jsonl"
    path.write_text(path.read_text() + '{"design": "w4a4", "se')
    assert len(rows_of(CAMPAIGN, tmp_path)) == 1
    longer = Campaign("small", CAMPAIGN.model, CAMPAIGN.data, CAMPAIGN.schedule, CAMPAIGN.jobs, limit=7)
    assert not rows_of(longer, tmp_path)


def test_the_lower_bound_by_hand() -> None:
    """Mean 1, standard deviation 1, n = 4: t(0.95; 3) = 2.3534, so 1 - 2.3534 / 2."""
    gaps = [1 - 1.5**0.5, 1.0, 1.0, 1 + 1.5**0.5]
    assert accuracy.lower_bound(gaps) == pytest.approx(1 - 2.3534 / 2, abs=1e-4)
    assert accuracy.lower_bound([1.0]) is None


def test_parity_needs_five_seeds_and_is_paired() -> None:
    rows = [row("w4a4", seed, 80.0 + seed, fp32=80.1 + seed) for seed in range(5)]
    assert accuracy.parity_of(rows[:4], "w4a4") is None
    assert accuracy.parity_of(rows, "w4a4") == pytest.approx(-0.1)
    assert accuracy.paired_gain(
        [*rows, *(row("other", s, 79.0 + s) for s in range(5))], "w4a4", "other"
    ) == pytest.approx(1)


def test_every_goal_is_listed_and_met_by_rows_alone() -> None:
    nothing = accuracy.goals_of({})
    assert {goal.id.split()[0] for goal in nothing} == {"Q1", "Q2", "Q3", "Q4", "Q6"}
    assert not any(goal.met for goal in nothing)
    good = {name: [row("w4a4", seed, 90.5) for seed in range(5)] for name in accuracy.CNN_DATA}
    assert sum(goal.met for goal in accuracy.goals_of(good)) == 3


def test_every_job_names_a_palette_and_an_allocator_that_exist() -> None:
    for campaign in (*accuracy.CPU, *accuracy.CURVE, *accuracy.GPU):
        for job in campaign.jobs:
            assert schedule_of(campaign.schedule, None, (job.setting,) if job.setting else ())
            if job.allocator == "distilled":
                continue
            name, _, budget = job.palette.partition("@")
            levels = Palette.parse(name).levels
            assert bool(budget) == (len(levels) > 1)
            if job.allocator != "brevitas":
                assert issubclass(load("allocator", job.allocator), Base)
    assert set(accuracy.CONTROLS) <= set(names("allocator"))


def test_a_setting_is_paired_with_the_same_design_without_it() -> None:
    rows = [row("w2a2", 0, 88.0), row("w2a2", 1, 89.0), row("w2a2 ema_decay=0.98", 0, 89.0, fp32=91.0)]
    (line,) = accuracy.changes([*rows, row("w2a2 ema_decay=0.98", 2, 50.0)])
    assert (line["setting"], line["seeds"]) == ("ema_decay=0.98", 1)
    assert line["against the default, points"] == "+1.00"
    assert line["against FP32, points"] == "-2.00"


def test_a_claim_is_a_difference_of_two_designs_on_the_same_seeds() -> None:
    _, first, second = accuracy.CLAIMS[0]
    rows = [row(first, 0, 90.0), row(first, 1, 91.0), row(second, 0, 89.0), row(second, 2, 95.0)]
    (line,) = accuracy.claims(rows)
    assert (line["design"], line["against"], line["difference, points"]) == (first, second, "+1.00")


def test_rows_from_before_a_setting_existed_count(tmp_path: Path) -> None:
    old = row("w4a4", 0, 89.0)
    schedule = {name: value for name, value in old["recipe"]["schedule"].items() if name != "ema_decay"}
    old["recipe"] = {**old["recipe"], "schedule": schedule}
    keep(CAMPAIGN, old, tmp_path)
    assert len(rows_of(CAMPAIGN, tmp_path)) == 1


def test_a_table_says_how_far_from_fp32() -> None:
    (line,) = accuracy.summary([row("w4a4", 0, 89.0), row("w4a4", 1, 90.0)])
    assert line["against FP32, points"] == "-0.50 +- 0.50"
    assert line["whole file, x smaller"] == "8.0"


def test_a_perplexity_is_compared_in_percent_and_better_below() -> None:
    rows = [{**row("w2a4 head w2", seed, 5.1, fp32=5.0), "metric": "perplexity"} for seed in range(5)]
    assert accuracy.parity_of(rows, "w2a4 head w2") == pytest.approx(-2.0)
    (line,) = accuracy.summary(rows)
    assert line["against FP32, %"] == "-2.00 +- 0.00"


def test_a_small_transformer_counts_only_where_its_file_is_small() -> None:
    rows = [{**row("w2a4 head w2", seed, 5.0, fp32=5.0), "metric": "perplexity"} for seed in range(5)]
    large = [{**row, "bytes": 120} for row in rows]  # of 800: 6.7 times smaller
    name = "Q4 w2a4 head w2 against FP32, a file 7 times smaller, WikiText-2"
    assert {goal.id: goal.met for goal in accuracy.goals_of({"wikitext2": rows})}[name]
    assert not {goal.id: goal.met for goal in accuracy.goals_of({"wikitext2": large})}[name]


def test_the_figure_shows_our_designs_of_the_default_recipe_and_the_control() -> None:
    rows = [row(name, seed, 89.0 + seed) for seed in range(2) for name in ("w4a4", "w2a3+w3a3@2.5", "fp32 distilled")]
    rows += [row(name, 0, 50.0) for name in ("w2a2 brevitas", "w2a2 ema_decay=0.98", "w1a1")]
    points = accuracy_figure.points_of(rows)
    assert [(p.name, p.points, p.error, p.n_levels) for p in points] == [
        ("w4a4", -0.5, 0.5, 1), ("w2a3+w3a3@2.5", -0.5, 0.5, 2),
    ]  # fmt: skip
    drawn = accuracy_figure.figure({"one": rows, "<two>": rows})
    assert drawn == accuracy_figure.figure({"one": rows, "<two>": rows})
    root = ElementTree.fromstring(drawn)
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<two>", "w4a4", "w2a3+w3a3@2.5", "FP32, distilled"} <= set(words)
    assert "w1a1" not in words, "one seed has no error"


def test_the_curve_names_the_fewest_bits_at_parity() -> None:
    small, long = accuracy.CURVE[0], accuracy.CURVE[2]
    near, far = (90.1, 85.0)
    kept = {
        small.name: [row(name, s, far, campaign=small) for s in range(5) for name in ("w1a1", "w1a2", "w2a2")],
        long.name: [row(n, s, t, campaign=long) for s in range(5) for n, t in (("w1a1", far), ("w1a2", near))],
    }
    first, second = accuracy.curve(kept)
    assert (first["width"], first["epochs"], first["fewest bits at parity"]) == ("0.25", 18, "none of them")
    assert (second["epochs"], second["FP32 test"], second["fewest bits at parity"]) == (72, "90.00 +- 0.00", "w1a2")


def test_a_bound_of_zero_is_parity_and_every_design_has_the_same_seeds() -> None:
    digits = accuracy.CPU[0]
    rows = [row("w2a2", seed, 90.0 if seed < 5 else 50.0, campaign=digits) for seed in range(15)]
    (line,) = accuracy.curve({"digits": rows})
    assert (line["seeds"], line["w2a2 against FP32, points"]) == (5, "+0.00 +- 0.00")
    assert line["fewest bits at parity"] == "w2a2"
