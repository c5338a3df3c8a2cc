"""Kills explorations at random: ``python kill_harness.py KILLS FOLDER``. Prints what it saw as JSON, and how it
stands on standard error.

The driver is forked from this process, which has imported and planned everything, so that a kill costs no start; its
trainings run in it (``--executor here``) or, every ``EVERY``th time, in processes of their own, with a worker killed
instead of the driver every second time. After each kill, nothing that was finished may be lost or torn. A run that
comes to its end is compared with the whole one, and the next begins from nothing. Where Ray is installed, every
``NODE_EVERY``th kill takes a node of two from under a run of its own, which must go on by itself to the same front.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from ray_cluster import Cluster, two_nodes

from soniq_dse.explore import Options, Plan, explore, make_plan
from soniq_dse.records.base import canonical_json

HERE = Path(__file__).parent
EVERY = 20
NODE_EVERY, NODE_FIRST = 40, 10
NODE_S = 30.0
"""Within which a node is killed: about as long as a run on Ray takes."""
TRAININGS = 4
ORPHANED_S = 30.0
"""Within which all processes of a killed driver must be gone; on a machine at rest it takes milliseconds."""


def plan_for(folder: Path) -> Plan:
    return make_plan(
        Options(hw="avx512", model="tiny_net:build", data="tiny_net:task", palettes=("w2a2", "w1a1+w4a4@2.0"),
                epochs=(2, 1, 1), out=folder, measure=False, executor="here")
    )  # fmt: skip


def fork(plan: Plan) -> int:
    """A driver of its own, in a session of its own."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        outcome = explore(plan, lambda progress: None)
        os._exit(1 if outcome.failures else 0)
    except BaseException as error:
        print(f"driver: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(3)


def finished(folder: Path) -> dict[str, str]:
    """Content of every record of the store; a file that is torn raises."""
    found = {}
    for path in (folder / "store" / "records").glob("*/*.json"):
        value = json.loads(path.read_bytes())
        text = canonical_json(value["record"])
        assert hashlib.sha256(text.encode()).hexdigest() == value["sha256"], f"{path} is torn"
        found[str(path.relative_to(folder))] = value["sha256"]
    return found


def front_of(folder: Path) -> Any:
    return json.loads((folder / "front.json").read_text())["points"]


def workers_of(session: int) -> list[int]:
    """Processes of the driver's session besides itself."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and int(stat.parent.name) != session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def no_orphans(session: int) -> None:
    """Wait until nothing of a killed driver is left: what it started must not write on."""
    end = time.monotonic() + ORPHANED_S
    while left := workers_of(session):
        assert time.monotonic() < end, f"processes {left} outlived their driver"
        time.sleep(0.01)


def wait(pid: int, seconds: float) -> int | None:
    """The exit status of ``pid``; None where it still runs then."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > end:
            return None
        time.sleep(0.002)


def kill_a_node(cluster: Cluster, plan: Plan, chance: random.Random, expected: Any) -> None:
    """Kill one of the two nodes at a random moment of a run on both; a run that was over by then is begun again."""
    status: int | None = 0
    while status is not None:
        shutil.rmtree(plan.folder, ignore_errors=True)
        driver = fork(plan)
        status = wait(driver, chance.uniform(0, NODE_S))
        assert not status, "the driver failed"
    cluster.kill_other()
    assert wait(driver, 600) == 0, "the run did not outlive its node"
    assert front_of(plan.folder) == expected, "the front differs from the whole run's"
    finished(plan.folder)
    cluster.start_other()


def main() -> None:
    has_ray = importlib.util.find_spec("ray") is not None
    with two_nodes() if has_ray else contextlib.nullcontext() as cluster:
        kill(cluster)


def kill(cluster: Cluster | None) -> None:
    kills, root = int(sys.argv[1]), Path(sys.argv[2])
    os.chdir(HERE)
    sys.path.insert(0, str(HERE))
    torch.set_num_threads(1)
    chance = random.Random(int(os.environ.get("SONIQ_DSE_KILL_SEED", "7")))
    whole = plan_for(root / "whole")
    assert wait(fork(whole), 600) == 0, "the whole run failed"
    expected = front_of(whole.folder)
    explore(whole, lambda progress: None)  # trains nothing; what it prices, every fork knows
    started = time.monotonic()
    again = dataclasses.replace(whole, options=dataclasses.replace(whole.options, out=root / "again"))
    assert wait(fork(again), 600) == 0, "the whole run failed"
    took_s = time.monotonic() - started
    assert front_of(again.folder) == expected, "two whole runs differ"
    seen = {
        "kills": 0,
        "of_workers": 0,
        "of_nodes": 0,
        "ends": 0,
        "records_at_kills": [0] * 5,
        "whole_s": round(took_s, 2),
    }
    plan, known = dataclasses.replace(whole, options=dataclasses.replace(whole.options, out=root / "run")), {}
    on_ray = dataclasses.replace(whole.options, out=root / "ray", executor="ray", jobs=2)
    while seen["kills"] < kills or seen["ends"] == 0:
        if cluster is not None and seen["kills"] % NODE_EVERY == NODE_FIRST:
            kill_a_node(cluster, dataclasses.replace(whole, options=on_ray), chance, expected)
            seen["kills"] += 1
            seen["of_nodes"] += 1
            continue
        in_processes = seen["kills"] % EVERY == EVERY - 1
        executor = "process" if in_processes else "here"
        driver = fork(dataclasses.replace(plan, options=dataclasses.replace(plan.options, executor=executor)))
        is_last = seen["kills"] >= kills
        is_trained = len(known) == TRAININGS and chance.random() < 0.5  # or most kills would meet the report
        until = 600.0 if is_last or is_trained else chance.uniform(0, 6.0 if in_processes else took_s)
        status = wait(driver, until)
        if status is None:
            workers = workers_of(driver)
            if in_processes and workers and seen["kills"] // EVERY % 2:
                os.kill(chance.choice(workers), signal.SIGKILL)
                seen["of_workers"] += 1
                status = wait(driver, 2.0)
            if status is None:
                os.kill(driver, signal.SIGKILL)
                os.waitpid(driver, 0)
            no_orphans(driver)
            seen["kills"] += 1
        else:
            assert os.waitstatus_to_exitcode(status) == 0, "the driver failed"
        print(json.dumps(seen), file=sys.stderr, flush=True)
        found = finished(plan.folder)
        lost = {name for name, sha256 in known.items() if found.get(name) != sha256}
        assert not lost, f"lost or changed: {lost}"
        known = found
        seen["records_at_kills"][min(len(found), 4)] += status is None
        if status is not None and os.waitstatus_to_exitcode(status) == 0:
            assert front_of(plan.folder) == expected, "the front differs from the whole run's"
            seen["ends"] += 1
            shutil.rmtree(plan.folder)
            known = {}
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
