"""The processor that we run on, and which descriptor speaks of it."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from soniq_dse.errors import UserError
from soniq_dse.hardware.features import plain
from soniq_dse.hardware.find import shipped_descriptors
from soniq_dse.hardware.overview import DescriptorHead, read_head
from soniq_dse.records.cost import Host
from soniq_dse.records.hardware import HardwareModel

_CPUINFO = Path("/proc/cpuinfo")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@functools.lru_cache(maxsize=1)
def detect_host() -> Host:
    """This machine, as the operating system tells it; where it tells no features, none are assumed."""
    try:
        text = _CPUINFO.read_text(errors="replace")
    except OSError:
        text = ""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        memory = 0
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return host_from_cpuinfo(text, cores=allowed, memory_bytes=max(memory, 0))


def host_from_cpuinfo(text: str, *, cores: int, memory_bytes: int) -> Host:
    """The host of which ``text`` is the first processor's ``/proc/cpuinfo``.

    On Arm, ``vendor`` is the implementer of MIDR in hexadecimal, ``family`` the architecture and ``model`` the part.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    arm = "cpu implementer" in fields
    vendor = fields.get("cpu implementer" if arm else "vendor_id", "unknown")
    model = _integer(fields.get("cpu part" if arm else "model"))
    unnamed = f"Arm processor, implementer {vendor} part {model:#x}" if arm else platform.processor() or machine()
    return Host(
        processor=fields.get("model name") or unnamed,
        vendor=vendor,
        family=_integer(fields.get("cpu architecture" if arm else "cpu family")),
        model=model,
        stepping=_integer(fields.get("cpu revision" if arm else "stepping")),
        features=tuple(sorted({plain(name) for name in fields.get("flags", fields.get("features", "")).split()})),
        cores=cores,
        memory_bytes=memory_bytes,
        system=f"{platform.system()} {platform.release()} {machine()}",
        python=platform.python_version(),
        versions={name: version for name in ("soniq-dse", "numpy", "torch") if (version := _version(name))},
    )


def machine() -> str:
    """The instruction set of this host in the words of a descriptor's ``isa``."""
    name = platform.machine().lower()
    return _MACHINES.get(name, name)


def missing_features(features: Iterable[str], host: Host) -> tuple[str, ...]:
    """Those of ``features`` that ``host`` lacks; either spelling (``avx512_vnni``, ``avx512vnni``) will do."""
    present = {plain(feature) for feature in host.features}
    return tuple(feature for feature in features if feature and plain(feature) not in present)


def match_host(hw: HardwareModel | DescriptorHead, host: Host) -> tuple[bool, str]:
    """Whether ``hw`` describes ``host``, and why (not)."""
    same = [m for m in hw.matches if (m.vendor, m.family) == (host.vendor, host.family) and host.model in m.models]
    here = f"{host.processor} ({host.vendor} family {host.family} model {host.model})"
    for match in same:
        if not missing_features(match.features, host):
            return True, f"{hw.name} describes this processor, {here}"
    if same:
        return (
            False,
            f"{hw.name} describes this model, but {here} lacks {', '.join(missing_features(same[0].features, host))}",
        )
    return False, f"{hw.name} describes other processors than {here}"


def default_descriptor(host: Host) -> tuple[Path, str]:
    """The shipped descriptor for ``host`` and why: the one that matches it, else the one nearest by features.

    Raises:
        UserError: no descriptor is shipped.
    """
    found = [(path, read_head(path)) for path in shipped_descriptors()]
    heads = [(path, head) for path, head in found if isinstance(head, DescriptorHead)]
    if not heads:
        raise UserError("expected shipped descriptors, got none; install soniq-dse again")
    for path, head in heads:
        matches, reason = match_host(head, host)
        if matches:
            return path, reason
    path, head = max(heads, key=lambda entry: _nearness(entry[1], host))
    lacking = missing_features(head.features, host)
    return path, (
        f"predicted only: no shipped descriptor matches {host.processor} "
        f"({host.vendor} family {host.family} model {host.model}); the nearest by features is {head.name}"
        + (f", which has besides {', '.join(lacking)}" if lacking else "")
        + f"; `{own_descriptor_command(host)}` describes this one"
    )


def own_descriptor_command(host: Host) -> str:
    """The command that writes a descriptor of ``host``: it measures where there are microbenchmarks, else it copies."""
    return f"soniq-dse hw {'calibrate --out' if host.system.endswith('x86_64') else 'init'} mine.yaml"


def _nearness(head: DescriptorHead, host: Host) -> tuple[float, int]:
    """The share of the descriptor's features that the host has, then how many these are."""
    present = len(head.features) - len(missing_features(head.features, host))
    return present / max(len(head.features), 1), present


def _integer(text: str | None) -> int:
    try:
        return int(text or "0", 0)
    except ValueError:
        return 0


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
