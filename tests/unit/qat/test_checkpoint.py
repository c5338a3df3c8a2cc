"""A training that is killed in the middle of an epoch ends in the same bits as one that is not."""

from __future__ import annotations

import multiprocessing
import signal
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from soniq_dse.qat.baseline import train_baseline
from soniq_dse.qat.checkpoint import Checkpoint
from soniq_dse.qat.design import train_design
from soniq_dse.records.base import Record
from soniq_dse.records.design import Candidate, Schedule, TrainedBaseline, TrainedDesign
from soniq_dse.records.palette import Palette
from soniq_dse.store import Store
from soniq_dse.workloads.loading import load_model, load_task, load_workload

MODEL, LIMIT = "digits_cnn", 256
SCHEDULE = Schedule(baseline_epochs=2, noise_epochs=2, finetune_epochs=2, batch_size=32)


def baseline(folder: Path, checkpoint_kept: bool = True) -> TrainedBaseline:
    with Store(folder) as store:
        checkpoint = Checkpoint(store, "baseline", "b", every_s=0) if checkpoint_kept else None
        record = train_baseline(MODEL, load_task("digits", LIMIT), SCHEDULE, 0, store, checkpoint=checkpoint)
        store.put("baseline", "b", record)
        return record


def design(folder: Path, allocator: str, checkpoint_kept: bool = True) -> TrainedDesign:
    task = load_task("digits", LIMIT)
    with Store(folder) as store:
        start = store.get("baseline", "b", TrainedBaseline)
        assert start is not None
        candidate = Candidate(
            model=MODEL,
            data=task.name,
            data_sha256=task.data_sha256,
            palette=Palette.parse("w1a1+w4a4"),
            budget_bits=2.5,
            allocator=allocator,
            schedule=SCHEDULE,
        )
        checkpoint = Checkpoint(store, "design", allocator, every_s=0) if checkpoint_kept else None
        build, _ = load_model(MODEL)
        record = train_design(candidate, load_workload(MODEL), build, task, start, store, checkpoint=checkpoint)
        store.put("design", allocator, record)
        return record


def kill_at(path: Path, first_epoch: int, batch: int, train: object, *args: object) -> None:
    """Run ``train`` in a process of its own and kill it once its checkpoint stands beyond the given batch."""
    import json

    process = multiprocessing.get_context("fork").Process(target=train, args=args)
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.is_alive():
        if path.exists():
            with safe_open(path, "np") as file:
                head = json.loads(file.metadata()["head"])
            if (head["first_epoch"], head["epoch"], head["batch"]) >= (first_epoch, 1, batch):
                break
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it must not have finished"
    assert path.exists()


def same(left: Record, right: Record) -> bool:
    return left.model_copy(update={"seconds": 0.0}) == right.model_copy(update={"seconds": 0.0})


@pytest.mark.parametrize("first_epoch", [0, 2])
def test_a_killed_baseline_goes_on_to_the_same_bits(tmp_path: Path, first_epoch: int) -> None:
    whole = baseline(tmp_path / "whole", checkpoint_kept=False)
    path = tmp_path / "killed" / "checkpoints" / "baseline" / "b.safetensors"
    kill_at(path, first_epoch, 2, baseline, tmp_path / "killed")
    assert same(baseline(tmp_path / "killed"), whole)
    assert not path.exists()


@pytest.mark.parametrize(("allocator", "first_epoch"), [("soniq", 2), ("soniq", 4), ("fisher", 4)])
def test_a_killed_design_goes_on_to_the_same_bits(tmp_path: Path, allocator: str, first_epoch: int) -> None:
    """In both phases, with levels that are learned and with levels that were measured before phase 1."""
    folder = tmp_path / "store"
    baseline(folder, checkpoint_kept=False)
    whole = design(folder, allocator, checkpoint_kept=False)
    with Store(folder) as store:
        store.remove("design", allocator)
    path = folder / "checkpoints" / "design" / f"{allocator}.safetensors"
    kill_at(path, first_epoch, 2, design, folder, allocator)
    with Store(folder) as store:
        assert not Checkpoint(store, "design", allocator).is_past(first_epoch)
        assert Checkpoint(store, "design", allocator).is_past(first_epoch - 1)
    assert same(design(folder, allocator), whole)
    assert not path.exists()


def test_a_damaged_checkpoint_is_said_and_not_used(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Store(tmp_path) as store:
        path = store.checkpoint_path("design", "d")
        store.put_checkpoint("design", "d", b"half a file")
        assert not Checkpoint(store, "design", "d").is_past(0)
        assert f"checkpoint {path} is damaged" in capfd.readouterr().err
        store.remove("design", "d")
        assert not path.exists()
