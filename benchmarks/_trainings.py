"""The trainings of the accuracy benchmark: what is trained, one row per training, kept the moment it is finished.

A row holds its own FP32 reference (same seed, same host, equal epochs), so that rows of several hosts and sessions can
stand in one table. Rows lie in ``reports/benchmarks/accuracy/rows/WORKLOAD.jsonl``; whatever is kept is not done again.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._controls import train_control, train_peer
from benchmarks._frame import KEPT, ROOT, Row
from soniq_dse.explore._pins import parse_pins
from soniq_dse.explore._recipe import schedule_of
from soniq_dse.hardware.host import detect_host
from soniq_dse.qat.baseline import train_baseline
from soniq_dse.qat.checkpoint import Checkpoint
from soniq_dse.qat.design import train_design
from soniq_dse.records.design import Candidate, Schedule, TrainedBaseline
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import Workload
from soniq_dse.store import Store, result_key
from soniq_dse.workloads import load_model, load_task
from soniq_dse.workloads.pins import graph_of
from soniq_dse.workloads.task import Task
from soniq_dse.workloads.trace import trace

FOLDER = KEPT / "accuracy" / "rows"
PEER = "brevitas"
CONTROL = "distilled"
"""FP32 with the teacher and the restarts that a design has: what of a difference is the recipe, not the bits."""
K_GROUP = 16
"""Channels of a level come in multiples of this, as in ``soniq-dse explore``."""


@dataclass(frozen=True)
class Job:
    """One design: ``w2a2+w4a4@2.5`` by an allocator, or by the peer.

    ``setting`` changes the campaign's schedule, ``pin`` (``head=w2``) keeps a layer at a level of its own.
    """

    palette: str
    allocator: str = "soniq"
    setting: str = ""
    pin: str = ""

    @property
    def name(self) -> str:
        """``w2a2+w4a4@2.5``, with the allocator behind it where that is not SONIQ's, pin (``head w2``) and setting."""
        more = [
            word for word in (self.allocator.replace("soniq", ""), self.pin.replace("=", " "), self.setting) if word
        ]
        return " ".join([self.palette, *more])


@dataclass(frozen=True)
class Campaign:
    """A model on data, all its designs for every seed, some for more. ``limit``: examples of each split, by class."""

    name: str
    model: str
    data: str
    schedule: Schedule
    jobs: tuple[Job, ...]
    limit: int | None = None
    seeds: int = 5
    repeated: tuple[Job, ...] = ()
    repeats: int = 5
    """Seeds of the jobs that are ``repeated``."""

    @property
    def recipe(self) -> Row:
        """What a row says of how it was trained; rows of another recipe are not this campaign's."""
        return {
            "model": self.model, "data": self.data, "limit": self.limit, "schedule": self.schedule.to_json_value(),
        }  # fmt: skip


def rows_of(campaign: Campaign, folder: Path = FOLDER) -> list[Row]:
    """The kept rows of a campaign; a last line that a kill cut short is left out."""
    path = folder / f"{campaign.name}.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if {**row["recipe"], "schedule": _completed(row["recipe"]["schedule"])} == campaign.recipe:
                found.append(row)
    return found


def _completed(schedule: Row) -> Row:
    """The schedule of a row, with what did not exist when it was trained at its default."""
    return Schedule.model_validate(schedule).to_json_value()


def keep(campaign: Campaign, row: Row, folder: Path = FOLDER) -> None:
    """Append ``row``, on disk when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{campaign.name}.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def missing(campaign: Campaign, rows: Sequence[Row]) -> Iterator[tuple[int, list[Job]]]:
    """Seed by seed, the jobs without a row: a run that is stopped leaves whole seeds."""
    done = {(row["design"], row["seed"]) for row in rows}
    for seed in range(max(campaign.seeds, campaign.repeats)):
        asked = campaign.jobs if seed < campaign.seeds else campaign.repeated
        jobs = [job for job in asked if (job.name, seed) not in done]
        if jobs:
            yield seed, jobs


class OutOfTime(Exception):
    """The time of the run is over."""


class Trainer:
    """Runs the missing jobs of a campaign; FP32 networks are kept in ``store_folder`` between runs."""

    def __init__(
        self, campaign: Campaign, store_folder: Path, device: str = "cpu", out_of_time: Callable[[], bool] = bool
    ) -> None:
        self.campaign, self._store_folder = campaign, store_folder
        self._device, self._out_of_time = device, out_of_time

    @functools.cached_property
    def _task(self) -> Task:
        return load_task(self.campaign.data, self.campaign.limit)

    @functools.cached_property
    def _graph(self) -> Workload:
        task, build = self._task, load_model(self.campaign.model)[0]
        name, nonnegative = self.campaign.model, task.input_nonnegative
        return trace(build(), task.example(1), name=name, input_nonnegative=nonnegative, task=task.name)

    def run(self, seed: int, job: Job) -> Row:
        """Train one design, from where an earlier run was stopped.

        Raises:
            OutOfTime: its time ended in the middle of a training; the next run goes on from a checkpoint.
        """
        with Store(self._store_folder) as store:
            schedule = schedule_of(self.campaign.schedule, None, (job.setting,) if job.setting else ())
            baseline = self._baseline(seed, schedule.of_baseline, store)
            if job.allocator == PEER:
                result = train_peer(self.campaign.model, job.palette, self._task, baseline, store, self._device)
            elif job.allocator == CONTROL:
                result = train_control(self.campaign.model, self._task, baseline, store, self._device)
            else:
                result = self._design(seed, job, schedule, baseline, store)
        return {
            "design": job.name, "seed": seed, **result,
            "fp32 val": baseline.metric_val, "fp32 test": baseline.metric_test, "fp32 bytes": baseline.size_bytes,
            "metric": self._task.metric.name, "n_train": len(self._task.train), "n_test": len(self._task.test),
            "date": datetime.date.today().isoformat(), **_origin(), "recipe": self.campaign.recipe,
        }  # fmt: skip

    def _baseline(self, seed: int, schedule: Schedule, store: Store) -> TrainedBaseline:
        task = self._task
        key = result_key("accuracy", self._graph, task.data_sha256, schedule, seed)
        found = store.get("baseline", key, TrainedBaseline)
        if found is None:
            how = {"progress": self._watch, "checkpoint": Checkpoint(store, "baseline", key), "device": self._device}
            found = train_baseline(self.campaign.model, task, schedule, seed, store, **how)
            store.put("baseline", key, found)
        return found

    def _design(self, seed: int, job: Job, schedule: Schedule, baseline: TrainedBaseline, store: Store) -> Row:
        name, _, budget = job.palette.partition("@")
        palette = Palette.parse(name)
        candidate = Candidate(
            model=self.campaign.model, data=self.campaign.data, data_sha256=self._task.data_sha256, palette=palette,
            budget_bits=float(budget) if budget else None, allocator=job.allocator, seed=seed,
            schedule=schedule, k_group=K_GROUP if len(palette.levels) > 1 else 1,
            pins=parse_pins((job.pin,) if job.pin else ()),
        )  # fmt: skip
        build, _ = load_model(self.campaign.model)
        key = result_key("accuracy", candidate, self._graph)
        checkpoint = Checkpoint(store, "design", key)
        how = {"progress": self._watch, "checkpoint": checkpoint, "device": self._device}
        made = train_design(candidate, graph_of(self._graph, candidate), build, self._task, baseline, store, **how)
        store.put("design", key, made)  # and its checkpoint goes
        return {
            "val": made.metric_val, "test": made.metric_test, "bits": made.assignment.bits_per_weight,
            "bits of all weights": made.assignment.bits_per_weight_all, "bytes": made.size_bytes,
            "seconds": made.seconds,
        }  # fmt: skip

    def _watch(self, _: str, done: float) -> None:
        if done < 1 and self._out_of_time():
            raise OutOfTime


def store_folder() -> Path:
    """Where FP32 networks stay between runs."""
    return Path(os.environ.get("SONIQ_DSE_ACCURACY_STORE", Path(tempfile.gettempdir()) / "soniq-dse-accuracy"))


@functools.lru_cache(maxsize=1)
def _origin() -> Row:
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    host = detect_host()
    text: dict[str, Any] = {"commit": commit.stdout.strip(), "torch": torch.__version__}
    return {**text, "host": f"{host.processor}, family {host.family} model {host.model}"}
