"""Both phases on digits with the smallest model, one or two epochs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from soniq_dse.errors import UserError
from soniq_dse.formats import network as golden
from soniq_dse.qat.baseline import load_state, train_baseline
from soniq_dse.qat.design import train_design
from soniq_dse.records.design import Candidate, Schedule, TrainedBaseline, TrainedDesign
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import Workload
from soniq_dse.store import Store
from soniq_dse.workloads.loading import load_model, load_task, load_workload
from soniq_dse.workloads.task import Task

MODEL = "digits_resnet"
SCHEDULE = Schedule(baseline_epochs=3, noise_epochs=1, finetune_epochs=2)


class Run(NamedTuple):
    task: Task
    workload: Workload
    baseline: TrainedBaseline
    store: Store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    task = load_task("digits", limit=600)
    store = Store(tmp_path_factory.mktemp("store"))
    return Run(task, load_workload(MODEL), train_baseline(MODEL, task, SCHEDULE, 0, store), store)


def candidate(run: Run, palette: str, **more: object) -> Candidate:
    fields = {
        "model": MODEL,
        "data": run.task.name,
        "data_sha256": run.task.data_sha256,
        "schedule": SCHEDULE,
        "k_group": 8,
    }
    return Candidate(**(fields | {"palette": Palette.parse(palette)} | more))  # type: ignore[arg-type]


def train(run: Run, what: Candidate, store: Store | None = None, seen: list | None = None) -> TrainedDesign:
    progress = None if seen is None else lambda text, done: seen.append((text, done))
    build, _ = load_model(MODEL)
    return train_design(what, run.workload, build, run.task, run.baseline, store or run.store, progress=progress)


@pytest.fixture(scope="module")
def mixed(run: Run) -> TrainedDesign:
    return train(run, candidate(run, "w1a1+w4a4", budget_bits=2.5))


def test_the_baseline_learns_and_is_kept(run: Run) -> None:
    losses = [epoch.loss for epoch in run.baseline.epochs]
    assert [epoch.epoch for epoch in run.baseline.epochs] == list(range(6))
    assert losses[-1] < 0.5 * losses[0]
    assert run.baseline.metric_test > 70
    assert run.baseline.metric_val == run.baseline.epochs[-1].metric_val
    load_state(load_model(MODEL)[0](), run.baseline, run.store)


def test_a_mixed_design_learns_within_its_budget(run: Run, mixed: TrainedDesign) -> None:
    assert [epoch.phase for epoch in mixed.epochs] == ["noise", "finetune", "finetune"]
    assert [epoch.epoch for epoch in mixed.epochs] == [3, 4, 5]
    assert mixed.epochs[-1].loss < mixed.epochs[1].loss
    assert mixed.metric_test > 60
    free = [c for c in run.workload.tensor_classes if c.pinned_bits is None]
    assert set(mixed.assignment.pinned) == {c.name for c in run.workload.tensor_classes} - {c.name for c in free}
    assert 2.5 - 3 * 1216 / 167936 <= mixed.assignment.bits_per_weight <= 2.5  # short by a channel of the dearest class
    broken = [c for c in free if mixed.assignment.level_of_channel[c.name].count(0) % 8]
    assert len(broken) <= 1, "whole groups but for the one that the budget cuts"
    both = {level for c in free for level in mixed.assignment.level_of_channel[c.name]}
    assert both == {0, 1}


def test_the_metric_is_that_of_the_integers(run: Run, mixed: TrainedDesign) -> None:
    arrays = {ref.sha256: run.store.get_array(ref) for ref in mixed.arrays}
    outputs = golden.evaluate(mixed.network, arrays, run.task.test.inputs)
    np.testing.assert_array_equal(outputs, run.store.get_array(mixed.predictions_test))
    assert mixed.metric_test == 100 * np.mean(outputs.argmax(axis=1) == run.task.test.targets)
    # 540 examples of validation: fake quantization and integers part on ties of rounding only.
    assert abs(mixed.metric_val - mixed.metric_fake_quant_val) <= 100 * 6 / 540


def test_the_same_candidate_gives_the_same_bits(run: Run, mixed: TrainedDesign, tmp_path: Path) -> None:
    """In another store, after other trainings in this process, with torch's generator elsewhere."""
    torch.manual_seed(12345)
    again_store = Store(tmp_path)
    for _, ref in run.baseline.state:
        again_store.put_array(run.store.get_array(ref))
    again = train(run, mixed.candidate, again_store)
    assert again.model_copy(update={"seconds": mixed.seconds}) == mixed


def test_seeds_differ(run: Run) -> None:
    store = run.store
    short = SCHEDULE.model_copy(update={"baseline_epochs": 1, "finetune_epochs": 1})
    task = run.task.limited(100)
    first, second = (train_baseline(MODEL, task, short, seed, store) for seed in (0, 1))
    assert first.state != second.state


def test_a_uniform_palette_reports_its_progress(run: Run) -> None:
    seen: list[tuple[str, float]] = []
    design = train(run, candidate(run, "w4a4", allocator="uniform"), seen=seen)
    assert design.assignment.bits_per_weight == 4
    assert 4 < design.assignment.bits_per_weight_all < 5
    assert [done for _, done in seen] == pytest.approx([1 / 3, 2 / 3, 1])
    assert seen[0][0] == "w4a4-uniform-s0 noise epoch 1 of 3"
    assert design.metric_test > 70
    assert design.size_bytes < run.baseline.size_bytes / 5


def test_what_does_not_belong_together_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match="expected content ffff as the candidate says"):
        train(run, candidate(run, "w4a4", data_sha256="ffff"))
    with pytest.raises(UserError, match="expected seed 7, got 0"):
        train(run, candidate(run, "w4a4", seed=7))
    with pytest.raises(
        UserError, match="allocator: expected a known name, got 'soniqq'; nearest valid choice: 'soniq'"
    ):
        train(run, candidate(run, "w1a1+w4a4", allocator="soniqq"))


def test_divergence_is_said(run: Run) -> None:
    wild = SCHEDULE.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(UserError, match="expected a finite loss"):
        train_baseline(MODEL, run.task.limited(128), wild, 0, run.store)
