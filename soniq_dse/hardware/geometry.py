"""Sizes of the data caches as the operating system reports them."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

_SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class CacheGeometry:
    """A data or unified cache of the first processor."""

    level: int
    size_bytes: int
    line_bytes: int
    shared_by_cores: int


def cache_geometry(folder: Path = _SYSFS) -> tuple[CacheGeometry, ...]:
    """The data caches from the core outwards; empty where they are not told, or told in a way that cannot be."""
    try:
        found = [_cache(entry) for entry in folder.glob("index*") if _read(entry / "type") in ("Data", "Unified")]
    except (OSError, ValueError):
        return ()
    levels = sorted(found, key=lambda cache: cache.level)
    in_order = all(inner.size_bytes < outer.size_bytes for inner, outer in itertools.pairwise(levels))
    complete = [cache.level for cache in levels] == list(range(1, len(levels) + 1)) and len(levels) <= 4
    return tuple(levels) if in_order and complete else ()


def _cache(entry: Path) -> CacheGeometry:
    size = re.fullmatch(r"(\d+)([KMG]?)", _read(entry / "size"))
    if size is None:
        raise ValueError(entry)
    return CacheGeometry(
        level=int(_read(entry / "level")),
        size_bytes=int(size[1]) * _UNITS[size[2]],
        line_bytes=int(_read(entry / "coherency_line_size")),
        shared_by_cores=_count(_read(entry / "shared_cpu_list")),
    )


def _count(cpus: str) -> int:
    """How many processors a list like ``0-3,8`` names."""
    spans = [part.split("-") for part in cpus.split(",")]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
