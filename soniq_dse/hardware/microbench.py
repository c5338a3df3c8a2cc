"""Time instructions, instruction pairs and the memory levels of the processor that this runs on.

Method (Abel and Reineke, uops.info, ASPLOS 2019): unrolled loops of one instruction, without dependences for the
reciprocal throughput, each waiting for the one before for the latency, two alternating to see whether they share a
pipe. Virtual machines have no counters, so cycles come from a chain of dependent additions timed in the same sample,
on the thread's CPU clock. A reading is the median of a batch of samples with the smallest spread; while none is steady,
more batches are read. Of an instruction's readings, spread over the run, the least of the steady ones counts: a core
that deals micro-operations out to its pipes can fall into an uneven pattern, up to 40 % slower, for milliseconds.
"""

from __future__ import annotations

import ctypes
import datetime
import platform
import statistics
import tempfile
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soniq_dse.errors import MissingCapabilityError
from soniq_dse.hardware.features import plain
from soniq_dse.hardware.probes import X86_PROBES, Probe, latency_body, throughput_body
from soniq_dse.native.compiler import build_library
from soniq_dse.records.hardware import Figure

STEADY = 0.02
"""Median absolute deviation over median up to which a reading counts as steady."""

PATIENCE = 3
"""How many times the batches asked for are read at most."""

_FRAME = Path(__file__).with_name("microbench.cpp")
_LINE_BYTES = 64
_BYTES_PER_SAMPLE = 1 << 22
_LOADS_PER_PASS = 16


@dataclass(frozen=True)
class Effort:
    """``batches`` of ``samples`` samples; each runs its loop for about ``sample_instructions`` instructions.

    Up to ``PATIENCE`` times as many batches are read while none is steady. ``rounds`` is how often all loops are gone
    through.
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
        return self.spread / self.value

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
    """Cycles of one instruction; no latency where its result cannot feed itself."""

    reciprocal_throughput_cycles: Reading
    latency_cycles: Reading | None


@dataclass(frozen=True)
class MemoryReading:
    """One working set: bytes read a cycle in order, and cycles of a load that waits for the one before."""

    read_bytes_per_cycle: Reading
    latency_cycles: Reading
    clock_ghz: Reading


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
    rates = _measure_bodies([throughput_body([probe]) for probe in probes], effort)
    latencies = dict(zip(chained, _measure_bodies([latency_body(probe) for probe in chained], effort), strict=True))
    return {p: InstructionReading(rate, latencies.get(p)) for p, rate in zip(probes, rates, strict=True)}


def measure_mixes(mixes: Sequence[Sequence[Probe]], effort: Effort = Effort()) -> list[Reading]:
    """Cycles per pass over each mix of instructions; the sum of their own times where they share every pipe."""
    readings = _measure_bodies([throughput_body(mix) for mix in mixes], effort)
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
    return bench.read(0, 1000, effort).clock_ghz


def measure_call(effort: Effort = Effort()) -> Reading:
    """Nanoseconds of an indirect call with the nine arguments of a kernel (``soniq_kernel.h``) that does nothing."""
    arguments = "1, 2, 3, 4, p, 6, p, p, 9"
    read = _Bench([f"{{ while (n--) soniq_nothing({arguments}); (void)bytes; }}"]).read(0, 2000, effort)
    return read.cycles.scaled(1 / read.clock_ghz.value)


@dataclass(frozen=True)
class _Sampled:
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
        cycles, clock = np.empty(effort.samples), np.empty(effort.samples)
        double_p = ctypes.POINTER(ctypes.c_double)
        batches: list[_Sampled] = []
        while len(batches) < effort.batches or (
            len(batches) < effort.batches * PATIENCE and not any(batch.cycles.is_steady for batch in batches)
        ):
            self._sample(
                index, iterations, memory.ctypes.data, memory.nbytes, effort.samples,
                cycles.ctypes.data_as(double_p), clock.ctypes.data_as(double_p),
            )  # fmt: skip
            batches.append(_Sampled(_median(cycles), _median(clock)))
        return min(batches, key=lambda batch: batch.cycles.relative_spread)


def _measure_bodies(bodies: Sequence[Sequence[str]], effort: Effort) -> list[Reading]:
    bench = _Bench([_loop_source(body) for body in bodies])
    rounds: list[list[Reading]] = [[] for _ in bodies]
    for _ in range(effort.rounds):
        for index, body in enumerate(bodies):
            iterations = max(1, effort.sample_instructions // len(body))
            rounds[index].append(bench.read(index, iterations, effort).cycles.scaled(1 / len(body)))
    return [_best(readings) for readings in rounds]


def _best(readings: Sequence[Reading]) -> Reading:
    """The least of the steady ones; the steadiest where none is."""
    steady = [reading for reading in readings if reading.is_steady]
    if steady:
        return min(steady, key=lambda reading: reading.value)
    return min(readings, key=lambda reading: reading.relative_spread)


def _measure_working_set(bench: _Bench, size_bytes: int, effort: Effort) -> MemoryReading:
    n_bytes = max(_LINE_BYTES * _LOADS_PER_PASS, size_bytes // 1024 * 1024)
    buffer = _aligned(n_bytes)
    passes = max(1, _BYTES_PER_SAMPLE // n_bytes)
    stream = bench.read(0, passes, effort, buffer)
    _link(buffer)
    chase = bench.read(bench.chase, 20_000, effort, buffer)
    rate = n_bytes / stream.cycles.value
    return MemoryReading(
        Reading(rate, rate * stream.cycles.relative_spread, stream.cycles.samples),
        chase.cycles,
        stream.clock_ghz,
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
    """``n_bytes`` bytes at the start of a page. Written once: pages never written to all map to one page of zeros."""
    raw = np.full(n_bytes + 4096, 1, dtype=np.uint8)
    return raw[-raw.ctypes.data % 4096 :][:n_bytes]


def _median(values: np.ndarray) -> Reading:
    numbers = values.tolist()
    median = statistics.median(numbers)
    return Reading(median, statistics.median(abs(value - median) for value in numbers), len(numbers))
