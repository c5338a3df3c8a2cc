"""A Ray cluster of two nodes on this host: each in a network namespace of its own where that is allowed (root), so
that they share nothing but the wire, and told of unlike processors; else side by side with different resources."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEAD, OTHER = (f"10.231.{os.getpid() % 256}.{last}" for last in (1, 2))
NAMESPACE = f"soniq-dse-{os.getpid()}"
LINK = f"soniq{os.getpid()}"
OTHER_MODEL = 254
"""Of the other node's processor."""
ON_ANOTHER_PROCESSOR = rf"""
sed -E 's/^(model\t+:).*/\1 {OTHER_MODEL}/; s/^(model name\t+:).*/\1 Other processor/' /proc/cpuinfo > "$0" &&
mount --bind "$0" /proc/cpuinfo && rm "$0" && exec "$@"
"""
HERE = Path(__file__).parent
RAY = [str(Path(sys.executable).parent / "ray")]
# Ray reads them when it is imported.
os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})


@dataclass
class Cluster:
    """``address`` of the head, which has ``isa:head`` and a CPU; the other node has ``isa:other`` and a CPU."""

    address: str
    head: str
    is_apart: bool
    processes: list[int]
    """Of the other node."""

    def start_other(self) -> None:
        before = _processes(self.address)
        inside = ["ip", "netns", "exec", NAMESPACE, "sh", "-c", ON_ANOTHER_PROCESSOR, f"/tmp/{NAMESPACE}"]
        inside = inside if self.is_apart else []
        ip = OTHER if self.is_apart else self.head
        _start([*inside, *RAY, "start", f"--address={self.address}", f"--node-ip-address={ip}"], "isa:other")
        self.processes = sorted(_processes(self.address) - before)

    def kill_other(self) -> None:
        """As a power failure would: at once, all its processes."""
        if self.is_apart:
            found = subprocess.run(["ip", "netns", "pids", NAMESPACE], capture_output=True, text=True, check=True)
            self.processes = [int(pid) for pid in found.stdout.split()]
        for pid in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def two_nodes() -> Iterator[Cluster]:
    is_apart = _make_namespace()
    head = HEAD if is_apart else "127.0.0.1"
    with socket.socket() as free:
        free.bind((head, 0))
        port = free.getsockname()[1]
    cluster = Cluster(f"{head}:{port}", head, is_apart, [])
    saved = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        _start([*RAY, "start", "--head", f"--port={port}", f"--node-ip-address={head}", "--include-dashboard=false"],
               "isa:head")  # fmt: skip
        cluster.start_other()
        yield cluster
    finally:
        cluster.kill_other()
        for pid in _processes(cluster.address):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _remove_namespace()
        del os.environ["RAY_ADDRESS"]
        if saved is not None:
            os.environ["RAY_ADDRESS"] = saved


def _start(command: list[str], resource: str) -> None:
    resources = f"--resources={json.dumps({resource: 1})}"
    limits = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
    env = {
        **os.environ,
        "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}",
        "RAY_raylet_start_wait_time_s": "120",
    }
    done = subprocess.run([*command, resources, *limits], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def _make_namespace() -> bool:
    if os.geteuid() or not shutil.which("ip"):
        return False
    _remove_namespace()
    steps = [
        f"netns add {NAMESPACE}",
        f"link add {LINK} type veth peer name eth0 netns {NAMESPACE}",
        f"addr add {HEAD}/30 dev {LINK}",
        f"link set {LINK} up",
        f"-n {NAMESPACE} addr add {OTHER}/30 dev eth0",
        f"-n {NAMESPACE} link set eth0 up",
        f"-n {NAMESPACE} link set lo up",
    ]
    return all(subprocess.run(["ip", *step.split()], capture_output=True).returncode == 0 for step in steps)


def _remove_namespace() -> None:
    if not os.geteuid() and shutil.which("ip"):
        for step in (f"link delete {LINK}", f"netns delete {NAMESPACE}"):
            subprocess.run(["ip", *step.split()], capture_output=True)


def _processes(address: str) -> set[int]:
    """Of the cluster with this address: raylets, servers, monitors."""
    port, found = address.rpartition(":")[2], set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if int(path.parent.name) != os.getpid() and any(
                word.endswith((f"={address}", f"--gcs_server_port={port}")) for word in words
            ):
                found.add(int(path.parent.name))
    return found
