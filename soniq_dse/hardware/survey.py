"""Everything that a calibration measures, in one run: instructions, mixes of them, memory levels, clock, call.

The order matters: how many copies of two instructions a mix takes follows from how fast each runs alone.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from soniq_dse.hardware import microbench
from soniq_dse.hardware.geometry import CacheGeometry, cache_geometry
from soniq_dse.hardware.microbench import Effort, InstructionReading, MemoryReading, Reading
from soniq_dse.hardware.pipes import Mix, balanced_mix
from soniq_dse.hardware.probes import LANDMARKS, YARDSTICKS, Probe
from soniq_dse.hardware.window import Window, measure_window
from soniq_dse.native.compiler import host_compiler
from soniq_dse.records.cost import Host

_LARGEST_BYTES = 1 << 30
_SMALLEST_DRAM_BYTES = 1 << 28
_SHARES = 8
"""A shared cache is filled by so many steps to find how much of it can be used."""


@dataclass(frozen=True)
class Group:
    """Instructions of a width that compete for the same pipes: vector operations, loads, or stores."""

    family: Literal["load", "store", "vector"]
    width_bits: int
    members: Mapping[str, Probe]
    landmarks: tuple[str, ...]

    @property
    def name(self) -> str:
        """``vector 256``."""
        return f"{self.family} {self.width_bits}"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What to mix: all landmarks with one another, the others with the yardsticks."""
        others = [name for name in self.members if name not in self.landmarks]
        yardsticks = [name for name in self.landmarks if name in YARDSTICKS]
        return [*itertools.combinations(self.landmarks, 2), *itertools.product(others, yardsticks)]


@dataclass(frozen=True)
class CacheReading:
    """A cache and what was read from a working set that fits into it and not into the one before."""

    geometry: CacheGeometry
    working_set_bytes: int
    reading: MemoryReading
    usable_share: Reading | None = None


@dataclass(frozen=True)
class DramReading:
    """Main memory: gigabytes a second and nanoseconds over a working set; ``cores`` read it together."""

    working_set_bytes: int
    one_core_gb_per_s: Reading
    all_cores_gb_per_s: Reading
    latency_ns: Reading
    cores: int


@dataclass(frozen=True)
class Survey:
    """All readings of one host, and the mixes per name of a group. No caches where the system tells no sizes."""

    host: Host
    compiler: str
    date: datetime.date
    instructions: Mapping[Probe, InstructionReading]
    mixes: Mapping[str, Mapping[Mix, Reading]]
    caches: tuple[CacheReading, ...]
    dram: DramReading | None
    clock_ghz: Reading
    call_ns: Reading
    width_bits: int
    window: Window | None = None

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of its instructions."""
        return groups_of(list(self.instructions))


def groups_of(probes: Sequence[Probe]) -> tuple[Group, ...]:
    """From the narrowest width; scalar instructions but loads and stores are in no group.

    Loads are not mixed with stores: what they do to one another in the cache would pass for a shared pipe.
    """
    groups = []
    for width in sorted({probe.width_bits for probe in probes}):
        at_width = {probe.key: probe for probe in probes if probe.width_bits == width}
        loads = {name: probe for name, probe in at_width.items() if probe.form == "load"}
        stores = {name: probe for name, probe in at_width.items() if probe.form == "store"}
        vector = {name: probe for name, probe in at_width.items() if width and name not in loads | stores}
        landmarks = tuple(name for name in LANDMARKS if name in vector)
        groups += [Group("load", width, loads, tuple(loads)), Group("store", width, stores, tuple(stores))]
        groups += [Group("vector", width, vector, landmarks)]
    return tuple(group for group in groups if group.members)


def take_survey(
    host: Host, probes: Sequence[Probe], progress: Callable[[str], None], *, quick: bool, with_mixes: bool = True
) -> Survey:
    """Measure ``probes`` and the memory of this machine.

    ``quick`` reads less often; without ``with_mixes`` no mixes are read.

    Raises:
        MissingCapabilityError: there is no C++ compiler.
    """
    compiler = host_compiler().version
    effort = Effort(1, 5, 60_000, rounds=12) if quick else Effort(1, 9, 60_000, rounds=48)
    progress(f"{len(probes)} instructions alone")
    readings = microbench.measure_instructions(probes, effort)
    width = max((probe.width_bits for probe in probes), default=0) or 128
    mixes = _survey_mixes(readings, progress, quick=quick) if with_mixes else {}
    progress("caches")
    caches = _survey_caches(width, Effort(1, 5, rounds=12) if quick else Effort(1, 7, rounds=48))
    short = Effort(1, 3, rounds=6) if quick else Effort(1, 3, rounds=12)
    dram = _survey_dram(host, caches, width, progress, short)
    if dram and caches[-1:] and caches[-1].geometry.shared_by_cores > 1:
        beyond = dram.one_core_gb_per_s.value / caches[-1].reading.clock_ghz
        caches = (*caches[:-1], replace(caches[-1], usable_share=_usable_share(caches[-1], beyond, width, short)))
    progress("window, clock and call")
    return Survey(
        host=host,
        compiler=compiler,
        date=datetime.date.today(),
        instructions=readings,
        mixes=mixes,
        caches=caches,
        dram=dram,
        clock_ghz=microbench.measure_clock(effort),
        call_ns=microbench.measure_call(effort),
        width_bits=width,
        window=measure_window(width, replace(effort, rounds=effort.rounds // 2)),
    )


def _survey_mixes(
    readings: Mapping[Probe, InstructionReading], progress: Callable[[str], None], *, quick: bool
) -> dict[str, dict[Mix, Reading]]:
    effort = Effort(1, 3, 40_000, rounds=12) if quick else Effort(1, 3, 40_000, rounds=60)
    rate = {probe: reading.reciprocal_throughput_cycles.value for probe, reading in readings.items()}
    found = {}
    for group in groups_of(list(readings)):
        members = group.members
        mixes = [balanced_mix(a, rate[members[a]], b, rate[members[b]]) for a, b in group.pairs]
        if group.family == "vector":
            progress(f"{len(mixes)} mixes of instructions at {group.width_bits} bits")
        bodies = [in_turns(members[mix.first], mix.first_count, members[mix.second], mix.second_count) for mix in mixes]
        found[group.name] = dict(zip(mixes, microbench.measure_mixes(bodies, effort), strict=True))
    return found


def in_turns(first: Probe, first_count: int, second: Probe, second_count: int) -> list[Probe]:
    """The copies of two probes, spread evenly."""
    placed = [((i + 0.5) / first_count, first) for i in range(first_count)]
    placed += [((i + 0.5) / second_count, second) for i in range(second_count)]
    return [probe for _, probe in sorted(placed, key=lambda entry: entry[0])]


def _survey_caches(width_bits: int, effort: Effort) -> tuple[CacheReading, ...]:
    geometry = cache_geometry()
    sizes = working_sets(geometry)
    read = microbench.measure_memory({str(size): size for size in sizes}, width_bits, effort)
    return tuple(CacheReading(cache, size, read[str(size)]) for cache, size in zip(geometry, sizes, strict=True))


def _usable_share(cache: CacheReading, beyond_bytes_per_cycle: float, width_bits: int, effort: Effort) -> Reading:
    """The largest of the eighths of a cache that is read at the cost of the cache more than at that of memory."""
    sizes = {str(n): n * cache.geometry.size_bytes // _SHARES for n in range(1, _SHARES + 1)}
    read = microbench.measure_memory(sizes, width_bits, effort)
    between = (1 / cache.reading.read_bytes_per_cycle.value + 1 / beyond_bytes_per_cycle) / 2
    fitting = [int(n) for n, found in read.items() if 1 / found.read_bytes_per_cycle.value <= between]
    return Reading(max(fitting, default=1) / _SHARES, 0.0, effort.samples)


def working_sets(caches: Sequence[CacheGeometry]) -> list[int]:
    """Bytes that fit into each cache and not into the one before.

    At most four times the one before: beyond, the translation of addresses takes its part, and of an outer cache that
    is shared, what is read slowly has been evicted by others.
    """
    sizes, inner = [], 0
    for cache in caches:
        half = cache.size_bytes // 2
        size = half if half >= 2 * inner else (cache.size_bytes + inner) // 2
        sizes.append(min(size, 4 * inner) if inner else size)
        inner = cache.size_bytes
    return sizes


def _survey_dram(
    host: Host, caches: Sequence[CacheReading], width_bits: int, progress: Callable[[str], None], effort: Effort
) -> DramReading | None:
    size = dram_working_set(host.memory_bytes, caches[-1].geometry.size_bytes if caches else 0)
    if size is None:
        return None
    progress(f"main memory, {size >> 20} MiB")
    one = microbench.measure_memory({"dram": size}, width_bits, effort)["dram"]
    together = microbench.measure_all_cores(size, host.cores, width_bits, effort)
    clock = one.clock_ghz
    return DramReading(
        size, one.read_bytes_per_cycle.scaled(clock), together, one.latency_cycles.scaled(1 / clock), host.cores
    )


def dram_working_set(memory_bytes: int, last_cache_bytes: int) -> int | None:
    """Four times the last cache, from 256 MiB to 1 GiB; None where a quarter of the memory is too small for that."""
    size = min(max(4 * last_cache_bytes, _SMALLEST_DRAM_BYTES), _LARGEST_BYTES, memory_bytes // 4)
    return size if size >= max(_SMALLEST_DRAM_BYTES, 3 * last_cache_bytes // 2) else None
