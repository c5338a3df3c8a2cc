"""Time instructions, instruction pairs and the memory levels of the processor that this runs on.

Method (Abel and Reineke, uops.info, ASPLOS 2019): unrolled loops of one instruction, without dependences for the
reciprocal throughput, each waiting for the one before for the latency, two alternating to see whether they share a
pipe. Virtual machines have no counters, so cycles come from a chain of dependent additions timed in the same sample,
on the thread's CPU clock. Whatever else runs on the machine makes both slower, never faster: the clock is the fastest
chain of a batch of samples, the time its median, and the batch with the smallest spread counts; while none is steady,
more are read. Readings are repeated, spread over the run, until ``AGREEING`` of the least steady ones agree; their
median counts. The least, as a core that deals micro-operations out to its pipes can fall into an uneven pattern, up to
40 % slower, for milliseconds; and none with a slower clock than the rest, as a busy sibling thread slows the chain and
the loop by different factors.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import itertools
import mmap
import platform
import statistics
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soniq_dse.errors import MissingCapabilityError
from soniq_dse.hardware.features import plain
from soniq_dse.hardware.probes import (
    NOPS,
    X86_PROBES,
    Probe,
    front_end_bodies,
    latency_body,
    slots_body,
    throughput_body,
)
from soniq_dse.native.compiler import build_library
from soniq_dse.records.hardware import Figure

STEADY = 0.02
"""Median absolute deviation over median up to which a reading counts as steady."""

PATIENCE = 3
"""How many times the batches asked for are read at most."""

AGREEING, AGREEMENT = 3, 0.01
"""How many of the least readings have to lie how near to one another, relative to the least."""

LEAST_ROUNDS = 12
"""How often every loop is read at least (or as often as the effort allows)."""

FULL_SPEED = 0.99
"""Part of the clock of a run (the ninth decile of its batches) down to which a reading counts as undisturbed."""

_FRAME = Path(__file__).with_name("microbench.cpp")
_LINE_BYTES = 64
_HUGE_PAGE_BYTES = 1 << 21
_BYTES_PER_SAMPLE = 1 << 22
_LOADS_PER_PASS = 16


@dataclass(frozen=True)
class Effort:
    """``batches`` of ``samples`` samples; each runs its loop for about ``sample_instructions`` instructions.

    Up to ``PATIENCE`` times as many batches are read while none is steady. All loops are gone through
    ``LEAST_ROUNDS`` times, and those whose readings do not agree up to ``rounds`` times.
    """

    batches: int = 5
    samples: int = 15
    sample_instructions: int = 100_000
    rounds: int = 1


@dataclass(frozen=True)
class Reading:
    """A median, its median absolute deviation and the number of samples of the batch it was taken from."""

    value: float
    spread: float
    samples: int

    @property
    def relative_spread(self) -> float:
        """Spread over value."""
        return self.spread / self.value if self.value else 0.0

    @property
    def is_steady(self) -> bool:
        """Whether the spread is small enough to trust the median."""
        return self.relative_spread <= STEADY

    def scaled(self, factor: float) -> Reading:
        """The reading in another unit."""
        return Reading(self.value * factor, self.spread * factor, self.samples)

    def figure(self, source: str, date: datetime.date, note: str | None = None) -> Figure:
        """The reading as a figure of a descriptor."""
        return Figure(
            value=round(self.value, 4),
            kind="measured",
            source=source,
            samples=self.samples,
            spread=round(self.spread, 4),
            date=date,
            note=note,
        )


@dataclass(frozen=True)
class InstructionReading:
    """Cycles of one instruction, without latency where its result cannot feed itself, and its micro-operations: the
    slots it takes of the front end."""

    reciprocal_throughput_cycles: Reading
    latency_cycles: Reading | None
    micro_ops: int = 1


@dataclass(frozen=True)
class MemoryReading:
    """One working set: bytes read a cycle in order, and cycles of a load that waits for the one before."""

    read_bytes_per_cycle: Reading
    latency_cycles: Reading
    clock_ghz: float


def available_probes(features: Collection[str]) -> tuple[Probe, ...]:
    """The probes that a processor with ``features`` (in either spelling) can run.

    Raises:
        MissingCapabilityError: there are no probes for this instruction set.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise MissingCapabilityError(f"microbenchmarks: expected an x86-64 processor, got {platform.machine()}")
    present = {plain(feature) for feature in features}
    return tuple(probe for probe in X86_PROBES if {plain(feature) for feature in probe.features} <= present)


def measure_instructions(probes: Sequence[Probe], effort: Effort = Effort()) -> dict[Probe, InstructionReading]:
    """Reciprocal throughput and latency of each probe, in cycles. The caller checks that the processor has them."""
    chained = [probe for probe in probes if probe.has_latency]
    rates = measure_bodies([throughput_body([probe]) for probe in probes], effort)
    latencies = dict(zip(chained, measure_bodies([latency_body(probe) for probe in chained], effort), strict=True))
    slots = _micro_op_counts(probes, effort)
    return {p: InstructionReading(rate, latencies.get(p), n) for p, rate, n in zip(probes, rates, slots, strict=True)}


def _micro_op_counts(probes: Sequence[Probe], effort: Effort) -> list[int]:
    """Slots of the front end that each takes: by how many slots it makes a row of ``nop`` longer than the median one,
    which takes one."""
    slot = measure_slot(effort).value
    rows = [reading.value * (NOPS + 1) for reading in measure_bodies([slots_body(probe) for probe in probes], effort)]
    return [max(1, 1 + round((row - statistics.median(rows)) / slot)) for row in rows]


def measure_slot(effort: Effort) -> Reading:
    """Cycles of a slot of the front end: the fastest of ``front_end_bodies``."""
    return min(measure_bodies(front_end_bodies(), effort), key=lambda reading: reading.value)


def measure_mixes(mixes: Sequence[Sequence[Probe]], effort: Effort = Effort()) -> list[Reading]:
    """Cycles per pass over each mix of instructions; the sum of their own times where they share every pipe."""
    readings = measure_bodies([throughput_body(mix) for mix in mixes], effort)
    return [reading.scaled(len(mix)) for mix, reading in zip(mixes, readings, strict=True)]


def measure_memory(
    working_sets: Mapping[str, int], width_bits: int, effort: Effort = Effort()
) -> dict[str, MemoryReading]:
    """Read bandwidth with loads of ``width_bits`` and load-to-use latency over buffers of the given sizes in bytes."""
    bench = _Bench([_stream_source(width_bits)])
    return {name: _measure_working_set(bench, size, effort) for name, size in working_sets.items()}


def measure_all_cores(total_bytes: int, cores: int, width_bits: int, effort: Effort = Effort()) -> Reading:
    """Gigabytes a second that ``cores`` threads read together, each its part of ``total_bytes``.

    The sum of what each reads per second of its own CPU time: other processes on the cores do not count.
    """
    bench = _Bench([_stream_source(width_bits)])
    step = _LINE_BYTES * _LOADS_PER_PASS
    part_bytes = total_bytes // cores // step * step
    parts = [_aligned(part_bytes) for _ in range(cores)]
    once = Effort(batches=1, samples=1)
    rates = np.empty(effort.batches * effort.samples)
    with ThreadPoolExecutor(cores) as pool:
        for sample in range(len(rates)):
            reads = list(pool.map(lambda part: bench.read(0, 1, once, part), parts))
            rates[sample] = sum(part_bytes / read.cycles.value * read.clock_ghz.value for read in reads)
    return _median(rates)


def measure_clock(effort: Effort = Effort()) -> Reading:
    """Core clock in GHz, from dependent additions."""
    bench = _Bench([_loop_source(throughput_body([Probe("add", "scalar", 0)]))])
    clocks = sorted((bench.read(0, 1000, effort).clock_ghz for _ in range(effort.rounds)), key=lambda r: r.value)
    return clocks[9 * (len(clocks) - 1) // 10]


def measure_call(effort: Effort = Effort()) -> Reading:
    """Nanoseconds of an indirect call with the nine arguments of a kernel (``soniq_kernel.h``) that does nothing."""
    arguments = "1, 2, 3, 4, p, 6, p, p, 9"
    bench = _Bench([f"{{ while (n--) soniq_nothing({arguments}); (void)bytes; }}"])
    readings = _read_until_settled(lambda: bench.read(0, 2000, effort), effort)
    clock_ghz = _clock_of(readings)
    return _best(readings, clock_ghz).scaled(1 / clock_ghz)


@dataclass(frozen=True)
class _Sampled:
    """A batch: cycles at the fastest clock in it."""

    cycles: Reading
    clock_ghz: Reading


class _Bench:
    """A compiled set of loops, and the pointer chase behind them as the last."""

    def __init__(self, loops: Sequence[str]) -> None:
        source = [f'#include "{_FRAME.name}"']
        source += [f"static void loop{i}(int64_t n, char* p, int64_t bytes) {body}" for i, body in enumerate(loops)]
        names = [f"loop{i}" for i in range(len(loops))] + ["soniq_chase"]
        source += ["extern const Loop soniq_loops[] = {" + ", ".join(names) + "};", ""]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "probes.cpp"
            path.write_text("\n".join(source))
            library = ctypes.CDLL(str(build_library([path], include=(_FRAME.parent,))))
        self._sample = library.soniq_sample
        double_p = ctypes.POINTER(ctypes.c_double)
        self._sample.argtypes = [
            ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, double_p, double_p,
        ]  # fmt: skip
        self._sample.restype = None
        self.chase = len(loops)
        self._small = _aligned(4096)

    def read(self, index: int, iterations: int, effort: Effort, buffer: np.ndarray | None = None) -> _Sampled:
        """Cycles per iteration of a loop: the batch with the smallest relative spread."""
        memory = self._small if buffer is None else buffer
        times, clock = np.empty(effort.samples), np.empty(effort.samples)
        double_p = ctypes.POINTER(ctypes.c_double)
        batches: list[_Sampled] = []
        while len(batches) < effort.batches or (
            len(batches) < effort.batches * PATIENCE and not any(batch.cycles.is_steady for batch in batches)
        ):
            self._sample(
                index, iterations, memory.ctypes.data, memory.nbytes, effort.samples,
                times.ctypes.data_as(double_p), clock.ctypes.data_as(double_p),
            )  # fmt: skip
            fastest = Reading(float(clock.max()), _median(clock).spread, effort.samples)
            batches.append(_Sampled(_median(times).scaled(fastest.value), fastest))
        return min(batches, key=lambda batch: batch.cycles.relative_spread)


def measure_bodies(bodies: Sequence[Sequence[str]], effort: Effort) -> list[Reading]:
    """Cycles of a line of each unrolled body."""
    iterations = [max(1, effort.sample_instructions // len(body)) for body in bodies]
    readings = _measured([_loop_source(body) for body in bodies], iterations, effort)
    return [reading.scaled(1 / len(body)) for reading, body in zip(readings, bodies, strict=True)]


def measure_loops(sources: Sequence[str], iterations: int, effort: Effort) -> list[Reading]:
    """Cycles of an iteration of each loop, given as the body of a ``Loop`` (``microbench.cpp``)."""
    return _measured(sources, [iterations] * len(sources), effort)


def _measured(sources: Sequence[str], iterations: Sequence[int], effort: Effort) -> list[Reading]:
    """Cycles of an iteration of each loop; all are gone through in turns until they settle."""
    bench = _Bench(sources)
    readings: list[list[_Sampled]] = [[] for _ in sources]
    open_loops = list(range(len(sources)))
    for done in range(effort.rounds):
        for index in open_loops:
            readings[index].append(bench.read(index, iterations[index], effort))
        if done + 1 >= LEAST_ROUNDS:
            clock_ghz = _clock_of(itertools.chain(*readings))
            open_loops = [index for index in open_loops if not _settled(_undisturbed(readings[index], clock_ghz))]
    clock_ghz = _clock_of(itertools.chain(*readings))
    return [_best(read, clock_ghz) for read in readings]


def _read_until_settled(read: Callable[[], _Sampled], effort: Effort) -> list[_Sampled]:
    """The readings of one loop."""
    readings: list[_Sampled] = []
    while len(readings) < effort.rounds:
        readings.append(read())
        if len(readings) >= LEAST_ROUNDS and _settled(_undisturbed(readings, _clock_of(readings))):
            break
    return readings


def _clock_of(sampled: Iterable[_Sampled]) -> float:
    return float(np.quantile([s.clock_ghz.value for s in sampled] or [0.0], 0.9))


def _undisturbed(sampled: Sequence[_Sampled], clock_ghz: float) -> list[Reading]:
    """The readings at full speed, the least first; where there are none, the one nearest to it."""
    full = [s.cycles for s in sampled if s.clock_ghz.value >= FULL_SPEED * clock_ghz]
    return sorted(full or [max(sampled, key=lambda s: s.clock_ghz.value).cycles], key=lambda reading: reading.value)


def _settled(readings: Sequence[Reading]) -> bool:
    """Whether enough of the least steady ones of ``readings`` (the least first) agree."""
    steady = [reading.value for reading in readings if reading.is_steady][:AGREEING]
    return len(steady) == AGREEING and steady[-1] <= steady[0] * (1 + AGREEMENT)


def _best(sampled: Sequence[_Sampled], clock_ghz: float) -> Reading:
    """The median of the least of those that are undisturbed and steady; of what comes nearest to that where none is."""
    readings = _undisturbed(sampled, clock_ghz)
    steady = [reading for reading in readings if reading.is_steady][:AGREEING]
    return steady[(len(steady) - 1) // 2] if steady else min(readings, key=lambda reading: reading.relative_spread)


def _measure_working_set(bench: _Bench, size_bytes: int, effort: Effort) -> MemoryReading:
    n_bytes = max(_LINE_BYTES * _LOADS_PER_PASS, size_bytes // 1024 * 1024)
    buffer = _aligned(n_bytes)
    passes = max(1, _BYTES_PER_SAMPLE // n_bytes)
    streams = _read_until_settled(lambda: bench.read(0, passes, effort, buffer), effort)
    _link(buffer)
    chases = _read_until_settled(lambda: bench.read(bench.chase, 20_000, effort, buffer), effort)
    clock_ghz = _clock_of((*streams, *chases))
    stream = _best(streams, clock_ghz)
    rate = n_bytes / stream.value
    return MemoryReading(
        Reading(rate, rate * stream.relative_spread, stream.samples), _best(chases, clock_ghz), clock_ghz
    )


def _loop_source(body: Sequence[str]) -> str:
    clear = "".join(f'"vpxor %%xmm{i}, %%xmm{i}, %%xmm{i}\\n\\t"\n' for i in range(16))
    text = "".join(f'"{line}\\n\\t"\n' for line in body)
    clobbers = ", ".join(f'"{name}"' for name in [*(f"xmm{i}" for i in range(16)), *(f"r{i}" for i in range(8, 16))])
    return (
        "{ (void)bytes; asm volatile(\n"
        f'{clear}"1:\\n\\t"\n{text}"dec %[n]\\n\\tjnz 1b\\n\\tvzeroupper\\n\\t"\n'
        f': [n] "+r"(n) : [p] "r"(p) : {clobbers}, "cc", "memory"); }}'
    )


def _stream_source(width_bits: int) -> str:
    step = width_bits // 8
    register, mnemonic = {128: ("xmm", "vmovdqu"), 256: ("ymm", "vmovdqu"), 512: ("zmm", "vmovdqu64")}[width_bits]
    loads = "".join(
        f'"{mnemonic} {step * i}(%[at]), %%{register}{i % 12}\\n\\t"\n' for i in range(_LOADS_PER_PASS * 64 // step)
    )
    clobbers = ", ".join(f'"xmm{i}"' for i in range(16))
    return (
        "{ while (n--) { char* at = p; char* end = p + bytes; asm volatile(\n"
        f'"2:\\n\\t"\n{loads}"add ${_LOADS_PER_PASS * 64}, %[at]\\n\\tcmp %[end], %[at]\\n\\tjb 2b\\n\\t"\n'
        f': [at] "+r"(at) : [end] "r"(end) : {clobbers}, "cc", "memory"); }} asm volatile("vzeroupper"); }}'
    )


def _link(buffer: np.ndarray) -> None:
    """Write a random cycle through all lines of ``buffer``: the first word of each line points to the next."""
    words = buffer.view(np.uint64)
    order = np.random.default_rng(0).permutation(buffer.nbytes // _LINE_BYTES)
    addresses = buffer.ctypes.data + order.astype(np.uint64) * np.uint64(_LINE_BYTES)
    words[order * (_LINE_BYTES // 8)] = np.roll(addresses, -1)


def _aligned(n_bytes: int) -> np.ndarray:
    """``n_bytes`` bytes at the start of a page, of 2 MiB where the system grants those: else a load over megabytes
    measures the walk through the page tables too. Written once: pages never written to all map to one page of zeros.
    """
    area = mmap.mmap(-1, n_bytes + _HUGE_PAGE_BYTES)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            area.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(area, dtype=np.uint8)
    buffer = raw[-raw.ctypes.data % _HUGE_PAGE_BYTES :][:n_bytes]
    buffer.fill(1)
    return buffer


def _median(values: np.ndarray) -> Reading:
    numbers = values.tolist()
    median = statistics.median(numbers)
    return Reading(median, statistics.median(abs(value - median) for value in numbers), len(numbers))
