"""Jobs on two Ray nodes: what travels, what a dead node costs, what is said of a resource that nobody has."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray_cluster import OTHER_MODEL, Cluster, two_nodes

from soniq_dse.errors import UserError
from soniq_dse.explore import Options, Plan, Progress, _ray, explore, make_plan
from soniq_dse.explore._measure_node import node_for
from soniq_dse.explore._ray import TRIES, run_on_ray
from soniq_dse.explore._store_job import StoreJob
from soniq_dse.hardware.host import default_descriptor, detect_host
from soniq_dse.native.processes import Outcome
from soniq_dse.records.design import Assignment, RoundedStart, Schedule, TrainedBaseline
from soniq_dse.records.palette import Palette
from soniq_dse.store import Store, result_key

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'soniq-dse[ray]'")

pytestmark = pytest.mark.slow
KEY = "a" * 64


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_nodes() as found:
        try:
            yield found
        finally:
            ray.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


def start_of(store: Store, values: list[float]) -> TrainedBaseline:
    """An FP32 start with one array."""
    return TrainedBaseline(
        model="m", data="d", data_sha256="", seed=0,
        schedule=Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1), metric_val=0.0, metric_test=0.0,
        state=(("weight", store.put_array(np.array(values))),), size_bytes=1, epochs=(), seconds=0.0,
    )  # fmt: skip


def leave(store: Store, key: str, value: float) -> None:
    levels = Assignment(
        palette=Palette.parse("w1a1"), level_of_channel={"x": (0,)}, bits_per_weight=1, bits_per_weight_all=1
    )
    store.put("rounded", key, RoundedStart(metric_val=value, assignment=levels))


def value_of(store: Store, key: str) -> float | None:
    found = store.get("rounded", key, RoundedStart)
    return None if found is None else found.metric_val


# -- jobs, on the nodes ---------------------------------------------------------------------------------------------


def add(folder: str, key: str, seconds: float, say: Callable[[Any], None]) -> None:
    with Store(Path(folder)) as store:
        start = store.get("baseline", KEY, TrainedBaseline)
        assert start is not None
        say(0.5)
        time.sleep(seconds)
        leave(store, key, float(store.get_array(start.state[0][1]).sum()))


def count(folder: str, key: str, steps: int, say: Callable[[Any], None]) -> None:
    """As a training: goes on from a checkpoint; leaves the number of steps that it did itself."""
    with Store(Path(folder)) as store:
        path, done = store.checkpoint_path("rounded", key), 0
        at = int(path.read_bytes()) if path.exists() else 0
        while at < steps:
            time.sleep(0.1)
            at, done = at + 1, done + 1
            store.put_checkpoint("rounded", key, str(at).encode())
            say(at / steps)
        leave(store, key, done)


def take_down(folder: str, say: Callable[[Any], None]) -> None:
    """Kill the worker: the parent of the server that this process was forked from."""
    server = Path(f"/proc/{os.getppid()}/stat").read_text().rsplit(")", 1)[1].split()
    os.kill(int(server[1]), 9)
    time.sleep(60)


def fail(folder: str, say: Callable[[Any], None]) -> None:
    raise ValueError("no more\nof this")


def beat(folder: str, path: str, say: Callable[[Any], None]) -> None:
    while True:
        Path(path).write_text(str(time.monotonic()))
        say(0.0)
        time.sleep(0.05)


# -- the tests ------------------------------------------------------------------------------------------------------


def run(store: Store, *jobs: StoreJob, **options: Any) -> list[Outcome]:
    options = {"workers": 4, "timeout_s": 60.0, "on_message": lambda job, value: None} | options
    return list(run_on_ray(store, jobs, **options))


def job(target: Callable[..., None], *args: Any, key: str = "", reads: bool = False) -> StoreJob:
    writes = (("rounded", key),) if key else ()
    more = (key, *args) if key else args
    return StoreJob(f"{target.__name__} {key[:4]}", target, more, writes, (("baseline", KEY),) if reads else ())


def test_results_come_home_from_both_nodes(cluster: Cluster, store: Store) -> None:
    store.put("baseline", KEY, start_of(store, [1.0, 2.5]))
    keys, said = [result_key(i) for i in range(4)], []
    found = run(
        store, *(job(add, 0.5, key=key, reads=True) for key in keys), job(fail), on_message=lambda j, v: said.append(v)
    )
    assert {one.job.name: one.error for one in found} == {f"add {key[:4]}": None for key in keys} | {
        "fail ": "ValueError: no more of this"
    }
    assert [value_of(store, key) for key in keys] == [3.5] * 4
    assert said == [0.5] * 4


def test_a_resource_places_the_job_and_one_that_nobody_has_is_named(cluster: Cluster, store: Store) -> None:
    key = result_key("placed")
    (placed,) = run(store, job(count, 1, key=key), needs={"isa:other": 1})
    assert placed.error is None
    (reason,) = {
        one.error
        for one in run(store, job(fail), job(count, 1, key=key), needs={"isa:sve2": 2}, patience_s=1.0, workers=1)
    }
    assert reason is not None
    assert "no node of the cluster has isa:sve2 (2); its 2 nodes have CPU, isa:head, isa:other, memory" in reason
    (together,) = run(store, job(fail), needs={"isa:head": 1, "isa:other": 1}, patience_s=1.0)
    assert "CPU (1) and isa:head (1) and isa:other (1) together" in str(together.error)


def test_a_job_that_takes_its_workers_down_is_given_up_and_others_go_on(cluster: Cluster, store: Store) -> None:
    key = result_key("beside")
    errors = {one.job.target: one.error for one in run(store, job(take_down), job(count, 2, key=key))}
    assert f"its worker died {TRIES} times" in str(errors[take_down])
    assert errors[count] is None


def test_closing_cancels_what_runs(cluster: Cluster, store: Store, tmp_path: Path) -> None:
    path, seen = tmp_path / "beat", []
    jobs = [job(beat, str(path)), job(fail)]
    outcomes = run_on_ray(store, jobs, workers=2, timeout_s=60.0, on_message=lambda j, v: seen.append(v))
    assert next(iter(outcomes)).error
    while not path.exists():
        time.sleep(0.05)
    outcomes.close()  # type: ignore[attr-defined]
    last, deadline = "", time.monotonic() + 15
    while last != (last := path.read_text()):
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.5)


def test_an_exploration_outlives_a_node(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends in the front of one that was trained here."""
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    seen: list[Progress] = []

    def notify(progress: Progress) -> None:
        if progress.phase == "training designs" and not seen:
            cluster.kill_other()
            seen.append(progress)

    tiny = Options(hw="avx512", model="tiny_net:build", data="tiny_net:task", palettes=("w2a2",), epochs=(2, 1, 1),
                   measure=False, jobs=2)  # fmt: skip
    ways = {"here": replace(tiny, executor="here"), "ray": replace(tiny, executor="ray")}
    fronts = {}
    for way, options in ways.items():
        outcome = explore(
            make_plan(replace(options, out=tmp_path / way)), notify if way == "ray" else lambda progress: None
        )
        assert not outcome.failures
        fronts[way] = outcome.report.front.points
    assert seen
    assert fronts["ray"] == fronts["here"]
    cluster.start_other()


def test_an_address_that_nobody_answers_at_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError, match=r"expected a Ray cluster at RAY_ADDRESS=127.0.0.1:9, got: nobody answers"):
        _ray.connect()


def test_latencies_are_measured_on_the_node_that_is_the_machine(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All on one; what no node is stays unmeasured, and what this host is, is measured here."""
    if not cluster.is_apart:
        pytest.skip("expected a node with a mount namespace of its own, which takes root")
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    here = detect_host()

    def plan_for(model: int) -> Plan:
        return make_plan(
            Options(hw=str(descriptor_of(model, tmp_path)), model="tiny_net:build", data="tiny_net:task",
                    palettes=("w2a2",), epochs=(2, 1, 1), jobs=2, executor="ray", out=tmp_path / "run")
        )  # fmt: skip

    assert node_for(plan_for(here.model))[0] is None, "this host is the machine"
    node, plan = node_for(plan_for(OTHER_MODEL - 1))
    assert node is None
    assert str(plan.host_mismatch).endswith("none of the cluster's 2 nodes has such a processor")
    outcome = explore(plan_for(OTHER_MODEL), lambda progress: None)
    measured = [detail.measurement for detail in outcome.report.details]
    assert [one and one.skipped for one in measured] == [None] * 3
    assert {one and one.host and (one.host.processor, one.host.model) for one in measured} == {
        ("Other processor", OTHER_MODEL)
    }
    assert outcome.report.hardware_matches_host
    assert "Latencies are measured on a node of the cluster: Other processor." in outcome.report.notes


def descriptor_of(model: int, folder: Path) -> Path:
    """The descriptor nearest to this host, of processors with this model number."""
    host, path = detect_host(), folder / f"model_{model}.yaml"
    match = f"matches:\n  - {{vendor: {host.vendor}, family: {host.family}, models: [{model}], features: []}}"
    text = default_descriptor(host)[0].read_text()
    text = re.sub(r"^matches:(\n +- .*)+", match, text, flags=re.MULTILINE)
    path.write_text(re.sub(r"^name: .*", f"name: model_{model}", text, flags=re.MULTILINE))
    return path


def test_another_node_goes_on_where_a_dead_one_stood(
    cluster: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test: it kills a node."""
    monkeypatch.setattr(_ray, "CHECKPOINT_S", 0.3)
    keys, steps = [result_key("long", i) for i in range(2)], 24
    state = {"killed": False}

    def kill(job: Any, share: float) -> None:
        if share > 0.5 and not state["killed"]:
            state["killed"] = True
            cluster.kill_other()

    found = run(store, *(job(count, steps, key=key) for key in keys), on_message=kill, workers=2)
    assert state["killed"]
    assert [one.error for one in found] == [None, None]
    done = sorted(value_of(store, key) or 0 for key in keys)
    assert done[1] == steps
    assert 0 < done[0] < steps, "begun anew, or the node did not die"
