"""A rounded warm start: as good as FP32 where nothing is lost, worse at fewer bits, the same twice, its budget kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from soniq_dse.qat.proxy import rounded_start
from soniq_dse.records.design import Candidate, RoundedStart, Schedule, TrainedBaseline
from soniq_dse.records.palette import Palette
from soniq_dse.store import Store
from soniq_dse.workloads.task import Split, Task
from soniq_dse.workloads.trace import trace

SCHEDULE = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)
N, CLASSES = 16, 4


def build() -> nn.Module:
    return nn.Sequential(
        nn.Linear(N, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, CLASSES)
    )


def rounded(folder: Path, palette: str, budget: float | None = None) -> RoundedStart:
    """The start is a random network; its own answers are the labels, so FP32 scores 100."""
    torch.manual_seed(0)
    model = build()
    x = np.random.default_rng(0).normal(size=(512, N)).astype(np.float32)
    with torch.no_grad():
        for _ in range(100):  # running statistics become those of the data
            model(torch.tensor(x))
        labels = model.eval()(torch.tensor(x)).argmax(1).numpy()
    split = Split(x, labels)
    task = Task("t", split, split, split, n_classes=CLASSES)
    with Store(folder) as store:
        start = TrainedBaseline(
            model="m", data="t", data_sha256=task.data_sha256, seed=0, schedule=SCHEDULE,
            metric_val=100, metric_test=100,
            state=tuple((name, store.put_array(value.numpy())) for name, value in model.state_dict().items()),
            size_bytes=1, epochs=(), seconds=0.0,
        )  # fmt: skip
        candidate = Candidate(model="m", data="t", data_sha256=task.data_sha256, palette=Palette.parse(palette),
                              budget_bits=budget, schedule=SCHEDULE)  # fmt: skip
        return rounded_start(candidate, trace(build(), task.example(1), name="m"), build, task, start, store)


def test_wide_levels_lose_little_and_narrow_ones_more(tmp_path: Path) -> None:
    wide, narrow = rounded(tmp_path, "w8a8"), rounded(tmp_path, "w1a1")
    assert wide.metric_val > 85 > narrow.metric_val > 100 / CLASSES / 2
    assert rounded(tmp_path, "w1a1") == narrow


@pytest.mark.parametrize("budget", [1.5, 2.5])
def test_the_levels_keep_the_budget(tmp_path: Path, budget: float) -> None:
    found = rounded(tmp_path, "w1a1+w4a4", budget)
    assert found.assignment.bits_per_weight <= budget
