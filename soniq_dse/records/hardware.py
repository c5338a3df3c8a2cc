"""A machine as figures with sources. Lengths in bytes, times in cycles unless the name says otherwise.

These classes are the descriptor schema (version 1): ``hwmodels/*.yaml`` holds exactly these fields. Rules that span
fields (sorted caches, known ports, known instructions, acyclic ``extends``) are checked in ``hardware/load.py``, which
knows the line of every field.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from soniq_dse.records.base import Record
from soniq_dse.records.palette import ActivationBits, Level, WeightBits

SCHEMA_VERSION = 1

FigureKind = Literal["vendor", "measured", "derived", "assumed"]
Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
SourceKey = Annotated[str, Field(min_length=1, max_length=80)]


class Source(Record):
    """Where figures come from."""

    title: Annotated[str, Field(min_length=1, max_length=400)]
    url: Annotated[str, Field(max_length=400)] | None = None
    year: Annotated[int, Field(ge=1970, le=2100)] | None = None
    locator: Annotated[str, Field(max_length=400)] | None = None


class Figure(Record):
    """A number of a machine, how it was come by, and the key of its source.

    ``spread`` is the median absolute deviation of ``samples`` measurements, in the unit of ``value``.
    """

    value: float
    kind: FigureKind
    source: SourceKey
    samples: PositiveInt | None = None
    spread: Annotated[float, Field(ge=0)] | None = None
    date: datetime.date | None = None
    note: Annotated[str, Field(max_length=400)] | None = None


class ProcessorMatch(Record):
    """Processors this descriptor speaks of: vendor string, family and models of CPUID (or MIDR implementer and parts on
    Arm), narrowed to those that have all ``features``."""

    vendor: str
    family: int
    models: Annotated[tuple[int, ...], Field(min_length=1)]
    features: tuple[str, ...] = ()


class SimdWidth(Record):
    """A vector width of the machine, the features it needs and the architectural registers it has."""

    width_bits: Literal[64, 128, 256, 512, 1024, 2048]
    features: tuple[str, ...]
    registers: PositiveInt


class Port(Record):
    """An execution pipe, and what it is for (``vector``, ``load``, ``store``, ``scalar``).

    ``queue`` names the scheduler that feeds it, where operations are bound to one of several when they are dispatched.
    """

    name: Name
    role: Literal["vector", "scalar", "load", "store", "branch"]
    queue: Name | None = None


class MicroOp(Record):
    """One micro-operation: it holds one of ``ports`` for ``cycles``."""

    ports: Annotated[tuple[Name, ...], Field(min_length=1)]
    cycles: Annotated[float, Field(gt=0, le=1000)] = 1.0


class InstructionTiming(Record):
    """One instruction at one vector width, register operands (a memory operand adds the machine's load).

    ``slots`` is what it takes of the issue width, where that is not one for each of ``micro_ops``; ``from_memory`` is
    what remains of ``micro_ops`` besides the load where the load does part of the work (it widens within lanes).
    """

    latency_cycles: Figure | None = None
    reciprocal_throughput_cycles: Figure
    micro_ops: Annotated[tuple[MicroOp, ...], Field(min_length=1)]
    from_memory: Annotated[tuple[MicroOp, ...], Field(min_length=1)] | None = None
    slots: PositiveInt | None = None
    ports_kind: FigureKind
    ports_source: SourceKey

    @property
    def issue_slots(self) -> int:
        """Slots of the issue width."""
        return self.slots or len(self.micro_ops)


class Instruction(Record):
    """An instruction by its mnemonic: the feature it needs and its timing per vector width in bits (0: scalar).

    ``hypothetical``: no processor has it, so no kernel uses it, and what it would bring follows from recipes.
    """

    features: tuple[str, ...] = ()
    hypothetical: bool = False
    widths: Annotated[dict[int, InstructionTiming], Field(min_length=1)]


class Recipe(Record):
    """Instructions per step of a kernel that serves a bit pair, in terms of the SIMD width W (bits).

    One step performs ``macs_per_width_bit * W`` multiply-accumulates with ``instructions`` (mnemonic -> count, loads of
    operands and amortised unpacking included). ``k_group`` input channels are consumed per step (the padding group of
    a segment); one vector holds ``lanes_per_width_bit * W`` output channels. ``min_width_bits`` is the least W it
    works at.
    """

    weight_bits: WeightBits
    activation_bits: ActivationBits
    instructions: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    macs_per_width_bit: Annotated[float, Field(gt=0)]
    k_group: PositiveInt
    lanes_per_width_bit: Annotated[float, Field(gt=0)]
    min_width_bits: PositiveInt = 64
    kind: FigureKind
    source: SourceKey
    note: Annotated[str, Field(max_length=400)] | None = None


class CacheLevel(Record):
    """A cache: capacity, line, sustained read bandwidth into the core and load-to-use latency.

    ``usable_share``: of a cache that others share, the part up to which data come from it more than from beyond it.
    """

    name: Literal["L1", "L2", "L3", "L4"]
    size_bytes: Figure
    usable_share: Figure | None = None
    line_bytes: PositiveInt
    shared_by_cores: PositiveInt
    read_bytes_per_cycle: Figure
    latency_cycles: Figure


class Memory(Record):
    """Main memory as one core sees it, and as all cores see it together."""

    read_gb_per_s_one_core: Figure
    read_gb_per_s_all_cores: Figure | None = None
    latency_ns: Figure


class Branches(Record):
    """The branch predictor: how many branches back it tells contexts apart, and what a wrong guess costs."""

    history: Figure
    mispredict_cycles: Figure


class StoreForwarding(Record):
    """Cycles from a value being stored to its being loaded again, into a vector register and into a scalar one."""

    vector_cycles: Figure
    scalar_cycles: Figure


class Overhead(Record):
    """What a call costs besides its loop."""

    call_ns: Figure


class EnergyFigure(Record):
    """Energy of one operation (``energy_pj`` per operation) or of one byte from a memory level (per byte)."""

    operation: Annotated[str, Field(min_length=1, max_length=80)]
    energy_pj: Figure


class HardwareModel(Record):
    """A machine. ``extends`` names a descriptor whose fields this one overrides; the loader resolves it."""

    schema_version: Literal[1]
    name: Name
    title: Annotated[str, Field(min_length=1, max_length=200)]
    kind: Literal["cpu"]
    isa: Literal["x86_64", "aarch64", "riscv64"]
    features: tuple[str, ...]
    matches: tuple[ProcessorMatch, ...] = ()
    cores: PositiveInt
    clock_ghz: Figure
    simd: Annotated[tuple[SimdWidth, ...], Field(min_length=1)]
    issue_width: Figure
    reorder_buffer_entries: Figure
    scheduler_entries: Figure
    retire_width: Figure | None = None
    store_forwarding: StoreForwarding | None = None
    branches: Branches | None = None
    ports: Annotated[tuple[Port, ...], Field(min_length=1)]
    instructions: Annotated[dict[str, Instruction], Field(min_length=1)]
    recipes: dict[str, Recipe] = {}
    caches: Annotated[tuple[CacheLevel, ...], Field(min_length=1)]
    memory: Memory
    overhead: Overhead
    energy: tuple[EnergyFigure, ...] = ()
    sources: Annotated[dict[str, Source], Field(min_length=1)]

    @property
    def width_bits(self) -> int:
        """The widest vector width."""
        return max(simd.width_bits for simd in self.simd)

    def timing(self, mnemonic: str, width_bits: int) -> InstructionTiming | None:
        """The timing of an instruction at a width; None where the descriptor has no data for it."""
        instruction = self.instructions.get(mnemonic)
        return instruction.widths.get(width_bits) if instruction else None


class NativeLevel(Record):
    """A bit pair that the machine computes natively, by which recipe, at which width, and why we say so.

    ``macs_per_cycle`` is the port bound of the recipe alone: an upper bound, no kernel reaches more.
    """

    level: Level
    width_bits: int
    recipe: str
    k_group: int
    n_group: int
    macs_per_cycle: float
    bound: str
    reason: str
