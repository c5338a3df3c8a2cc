"""Jobs on the nodes of a Ray cluster. No file system is shared: what a job needs travels with it, what it gives comes
back and goes into the store of the one who asked, and so do checkpoints, so that another node goes on with the job of
one that died.

On its node a job runs as it does at home, in a process of its own with its limits: see ``native/processes.py``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.explore._store_job import KINDS, Place, StoreJob
from soniq_dse.hardware.host import detect_host
from soniq_dse.native.processes import Job, Outcome, job_events
from soniq_dse.records.cost import Host
from soniq_dse.store import Store, array_refs

TRIES = 3
"""Workers that a job may take down with it before it is given up."""
PATIENCE_S = 60.0
"""How long a resource may be missing: nodes join late, and come back."""
CHECKPOINT_S = 10.0
"""Between two checkpoints that a job sends home."""
CONNECT_S = 5.0
LOOK_S = 1.0
"""Between two looks at the cluster."""
ANSWER_S = 60.0
"""Within which a node says what it is: its first worker imports PyTorch."""
Parcel = tuple[str, str, str, list[Any]]
"""Kind and key of a result, its record as JSON, its arrays."""


def connect() -> Any:
    """Ray, connected: to the cluster at ``RAY_ADDRESS``, else to the one started on this host, else to a new one here.

    Raises:
        MissingCapabilityError: Ray is not installed.
        UserError: the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingCapabilityError("--executor ray: Ray is not installed; pip install 'soniq-dse[ray]'") from error
    if ray.is_initialized():
        return ray
    at = os.environ.get("RAY_ADDRESS", "")
    _refuse_silent(at)
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": bool(os.environ.get("SONIQ_DSE_DEBUG"))}
    try:
        try:
            ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), **quiet)
        except ConnectionError:
            if "RAY_ADDRESS" in os.environ:
                raise
            ray.init(address="local", include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        why = " ".join(str(error).split())[:300]
        token = "; all nodes need the first one's ~/.ray/auth_token, and RAY_AUTH_MODE=token" if at else ""
        raise UserError(f"--executor ray: expected a Ray cluster at {at or 'this host'}, got: {why}{token}") from error
    return ray


def _refuse_silent(address: str) -> None:
    """Ray waits for minutes where nobody answers."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "//" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        why = f"nobody answers there ({error}); ray start --head --port={port} on that host begins one"
        raise UserError(f"--executor ray: expected a Ray cluster at RAY_ADDRESS={address}, got: {why}") from error


def cluster_cores() -> int:
    """CPUs of all nodes.

    Raises:
        MissingCapabilityError: Ray is not installed.
        UserError: the cluster cannot be reached.
    """
    return max(1, int(connect().cluster_resources().get("CPU", 0)))


@dataclass(frozen=True)
class Node:
    """A node of the cluster. ``resource`` is one that only it has, ``cores`` its CPUs as the cluster counts them."""

    name: str
    resource: str
    cores: float
    host: Host


def nodes() -> list[Node]:
    """The nodes that answer, by name.

    Raises:
        MissingCapabilityError: Ray is not installed.
        UserError: the cluster cannot be reached.
    """
    ray = connect()
    alive = {_own_resource(node): node for node in ray.nodes() if node["Alive"]}
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    asked = {look.options(resources={resource: 0.001}).remote(): resource for resource in alive}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
    found = []
    for answer in answered:
        with contextlib.suppress(ray.exceptions.RayError):  # it lacks soniq-dse, or has just died
            name, host = ray.get(answer)
            resource = asked[answer]
            found.append(Node(name, resource, alive[resource]["Resources"].get("CPU", 0.0), Host.from_json(host)))
    return sorted((node for node in found if node.cores >= 1), key=lambda node: node.resource)


def _own_resource(node: Mapping[str, Any]) -> str:
    """Ray gives every node one that is called after its address."""
    return f"node:{node['NodeManagerAddress']}"


def _look() -> tuple[str, str]:
    """On a node: its name, and what its processor is."""
    return _node_name(), detect_host().model_dump_json()


def run_on_ray(
    store: Store,
    jobs: Sequence[StoreJob],
    *,
    workers: int,
    timeout_s: float,
    on_message: Callable[[Job, Any], None],
    preload: Sequence[str] = (),
    memory_mib: int | None = None,
    needs: Mapping[str, float] | None = None,
    patience_s: float = PATIENCE_S,
) -> Iterator[Outcome]:
    """Run ``jobs`` in order, ``workers`` at once, each on a node that has a CPU, ``memory_mib`` and ``needs`` free.

    A job whose node or worker dies is tried on another, ``TRIES`` times in all. Where no node has what is needed for
    ``patience_s``, the jobs that wait for one fail with the resource's name. Closing the iterator cancels all that run.
    """
    limits = Limits(timeout_s, memory_mib, tuple(preload), CHECKPOINT_S)
    run = _Run(store, dict(needs or {}), limits, patience_s, deque(jobs))
    try:
        while run.waiting or run.running:
            while run.waiting and len(run.running) < workers:
                run.submit(run.waiting.popleft())
            for one in run.ready():
                ended = run.step(one, on_message)
                if ended is not None:
                    yield ended
            yield from run.without_a_node()
    finally:
        run.cancel()


@dataclass(frozen=True)
class Limits:
    """What the node holds a job to, and when it sends a checkpoint home."""

    timeout_s: float
    memory_mib: int | None
    preload: tuple[str, ...]
    checkpoint_s: float


@dataclass
class _Running:
    job: StoreJob
    said: Any
    """What the node says, a reference at a time."""
    started: float
    node: str | None = None
    """None: none has begun with it."""


@dataclass
class _Run:
    store: Store
    needs: dict[str, float]
    limits: Limits
    patience_s: float
    waiting: deque[StoreJob]
    running: list[_Running] = field(default_factory=list)
    deaths: dict[str, list[str]] = field(default_factory=dict)
    """Of workers, by job: the nodes."""
    sent: dict[Place, Any] = field(default_factory=dict)
    lacking_since: float | None = None

    def __post_init__(self) -> None:
        self.ray = connect()
        self.remote = self.ray.remote(num_returns="streaming", max_retries=0)(_on_node)

    def submit(self, job: StoreJob) -> None:
        """Hand ``job`` to the cluster with what it reads and where it stood."""
        for place in job.reads:
            if place not in self.sent and (parcel := packed(self.store, place)) is not None:
                self.sent[place] = self.ray.put(parcel)
        reads = [self.sent[place] for place in job.reads if place in self.sent]
        checkpoints = {}
        for place in job.writes:
            with contextlib.suppress(OSError):
                checkpoints[place] = self.store.checkpoint_path(*place).read_bytes()
        asked = {name: amount for name, amount in self.needs.items() if name not in ("CPU", "GPU")}
        memory_mib = self.limits.memory_mib
        remote = self.remote.options(
            name=job.name,
            num_cpus=self.needs.get("CPU", 1),
            num_gpus=self.needs.get("GPU", 0),
            memory=None if memory_mib is None else memory_mib * 2**20,
            resources=asked,
        )
        said = remote.remote(job, checkpoints, self.limits, *reads)
        self.running.append(_Running(job, said, time.monotonic()))

    def ready(self) -> list[_Running]:
        """The jobs that have something to say, waited for."""
        of = {one.said: one for one in self.running}
        found, _ = self.ray.wait(list(of), num_returns=1, timeout=LOOK_S, fetch_local=False)
        return [of[said] for said in found]

    def step(self, one: _Running, on_message: Callable[[Job, Any], None]) -> Outcome | None:
        """Take what ``one`` says next; its outcome, where that is the last."""
        errors = self.ray.exceptions
        try:
            kind, value = self.ray.get(next(one.said))
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:  # raised by our own code on the node
            cause = getattr(error, "cause", None) or error
            what = str(cause).partition("traceback:")[0]
            return self.end(one, " ".join(f"on node {one.node or 'unknown'}: {what}".split())[:400])
        except (errors.RayError, StopIteration) as error:  # the worker or its node is gone
            return self.died(one, type(error).__name__)
        if kind == "node":
            one.node, one.started = value, time.monotonic()
        elif kind == "checkpoint":
            self.store.put_checkpoint(*value)
        elif kind == "message":
            on_message(one.job.at(self.store.folder), value)
        else:
            reason, parcels = value
            for parcel in parcels:
                unpack(self.store, parcel)
            return self.end(one, reason)
        return None

    def end(self, one: _Running, error: str | None) -> Outcome:
        self.running.remove(one)
        return Outcome(one.job.at(self.store.folder), error, time.monotonic() - one.started)

    def died(self, one: _Running, how: str) -> Outcome | None:
        """Try the job again; its outcome, where it has taken down too many."""
        nodes = self.deaths.setdefault(one.job.name, [])
        nodes.append(one.node or "unknown")
        if len(nodes) >= TRIES:
            return self.end(one, f"its worker died {len(nodes)} times ({how} on {', '.join(nodes)}); given up")
        self.running.remove(one)
        self.waiting.appendleft(one.job)
        return None

    def without_a_node(self) -> list[Outcome]:
        """The jobs that no node can take, where that has been so for too long."""
        idle = [one for one in self.running if one.node is None]
        reason = self.lacking() if idle else None
        if reason is None:
            self.lacking_since = None
            return []
        now = time.monotonic()
        self.lacking_since = self.lacking_since or now
        if now - self.lacking_since < self.patience_s:
            return []
        failed = [self.end(one, reason) for one in idle if self._cancelled(one)]
        failed += [Outcome(job.at(self.store.folder), reason, 0.0) for job in self.waiting]
        self.waiting.clear()
        return failed

    def lacking(self) -> str | None:
        """What no living node has enough of; None where one has all that is needed."""
        wanted = {"CPU": 1.0, **self.needs}
        if self.limits.memory_mib is not None:
            wanted["memory"] = self.limits.memory_mib * 2.0**20
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            return None
        missing = [n for n, amount in wanted.items() if not any(node.get(n, 0) >= amount for node in nodes)]
        found = sorted({name for node in nodes for name in node if not name.startswith(("node:", "object_store"))})
        what = " and ".join(f"{name} ({wanted[name]:g})" for name in missing or wanted)
        return (
            f"no node of the cluster has {what}{'' if missing else ' together'}; its {len(nodes)} nodes have "
            f"{', '.join(found) or 'nothing'}. Start one with ray start --resources='{{\"NAME\": 1}}'"
        )

    def cancel(self) -> None:
        """Stop all that runs; on its node a job's process ends with its worker."""
        for one in self.running:
            self._cancelled(one)

    def _cancelled(self, one: _Running) -> bool:
        with contextlib.suppress(Exception):  # the cluster may be gone
            self.ray.cancel(one.said, force=False)
        return True


def packed(store: Store, place: Place) -> Parcel | None:
    """A result with its arrays; None where the store lacks it."""
    kind, key = place
    record = store.get(kind, key, KINDS[kind])
    if record is None:
        return None
    return kind, key, record.model_dump_json(), [store.get_array(ref) for ref in array_refs(record)]


def unpack(store: Store, parcel: Parcel) -> None:
    """Keep a result, its arrays first."""
    kind, key, text, arrays = parcel
    for array in arrays:
        store.put_array(array)
    store.put(kind, key, KINDS[kind].from_json(text))


def _on_node(
    job: StoreJob, checkpoints: dict[Place, bytes], limits: Limits, *reads: Parcel
) -> Generator[tuple[str, Any], None, None]:
    """On the node that Ray chose: what the job says, then its outcome and results."""
    yield "node", _node_name()
    with tempfile.TemporaryDirectory(prefix="soniq-dse-") as folder, Store(Path(folder)) as store:
        for parcel in reads:
            unpack(store, parcel)
        for (kind, key), data in checkpoints.items():
            store.put_checkpoint(kind, key, data)
        sent = time.monotonic()
        asked: dict[str, Any] = {"timeout_s": limits.timeout_s, "memory_mib": limits.memory_mib}
        events = job_events([job.at(store.folder)], workers=1, preload=limits.preload, **asked)
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Outcome):
                    found = [packed(store, place) for place in job.writes] if event.error is None else []
                    yield "end", (event.error, [parcel for parcel in found if parcel is not None])
                    return
                yield "message", event.value
                if time.monotonic() - sent > limits.checkpoint_s:
                    sent = time.monotonic()
                    yield from _checkpoints(store, job)


def _node_name() -> str:
    import ray

    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"


def _checkpoints(store: Store, job: StoreJob) -> Iterator[tuple[str, Any]]:
    for kind, key in job.writes:
        with contextlib.suppress(OSError):
            yield "checkpoint", (kind, key, store.checkpoint_path(kind, key).read_bytes())
