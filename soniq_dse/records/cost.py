"""Predictions and measurements of latency, and what happens when they meet."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from soniq_dse.records.base import Record
from soniq_dse.records.choice import KernelChoice

Bound = Literal[
    "issue", "port", "latency", "load", "store", "l1", "l2", "l3", "dram", "overhead",
    "tensor", "alu", "shared", "launch",
]  # fmt: skip
"""What work waits for; the last four on GPUs: tensor units, integer and float units, shared memory, launches."""
BOUND_WORDS: dict[Bound, str] = {
    "issue": "instructions issued per cycle",
    "port": "busy execution pipes",
    "latency": "instructions waiting for one another",
    "load": "loads per cycle",
    "store": "stores per cycle",
    "l1": "the first-level cache",
    "l2": "the second-level cache",
    "l3": "the third-level cache",
    "dram": "main memory",
    "overhead": "calls and loop set-up",
    "tensor": "tensor units",
    "alu": "integer and float units",
    "shared": "shared memory",
    "launch": "launches of kernels",
}
"""Each bound for readers."""
NonNegative = Annotated[float, Field(ge=0)]


class KernelSpec(Record):
    """A micro-kernel, as its symbol says: left of ``__`` what it computes, right of it where and how.

    ``<op>_<act>_<wgt>_<acc>_<MR>x<NR>x<KR>__<isa>_<algorithm>``; MR rows, NR output channels and KR input channels
    per step of the loop. ``features`` are the CPU features it needs, ``k_group`` the multiple to which k is padded,
    ``k_max`` the largest padded K before its accumulator can overflow, ``path`` its source below ``soniq_dse/kernels``.
    """

    symbol: str
    op: str
    act: str
    wgt: str
    acc: str
    tile: tuple[PositiveInt, PositiveInt, PositiveInt]
    isa: str
    algorithm: str
    features: tuple[str, ...]
    k_group: PositiveInt
    k_max: PositiveInt
    path: str


class LoopInstruction(Record):
    """One instruction of a disassembled loop. ``text`` is the assembler's line without address and comment."""

    mnemonic: str
    operands: tuple[str, ...]
    width_bits: int
    loads: bool = False
    stores: bool = False
    text: str


class HotLoop(Record):
    """The innermost loop of a kernel as compiled, kept in ``hwmodels/loops`` so that estimates need no compiler.

    One pass over ``instructions`` does ``macs_per_iteration`` multiply-accumulates. ``weight_bits`` are those that a
    weight takes as packed, often more than its format has. ``source_sha256`` is the hash of the sources it was built
    from; another one means that it is stale.
    """

    symbol: str
    compiler: str
    flags: tuple[str, ...]
    source_sha256: str
    macs_per_iteration: PositiveInt
    weight_bits: Annotated[float, Field(gt=0)] | None = None
    instructions: Annotated[tuple[LoopInstruction, ...], Field(min_length=1)]


class TimelineRow(Record):
    """One instruction on the simulated core: cycles from the first one shown; ``issued`` and ``port`` are empty where
    it was renamed away, ``waited`` says for what it waited longest."""

    text: str
    dispatched: int
    ready: int
    issued: int | None
    done: int
    retired: int
    port: str
    waited: str


class Timeline(Record):
    """A kernel's loop in steady state, a few passes of ``n_per_pass`` instructions each."""

    symbol: str
    n_per_pass: PositiveInt
    rows: tuple[TimelineRow, ...]


class CostTerm(Record):
    """Part of a latency: ``compute``, ``memory``, ``packing``, ``epilogue`` or ``overhead``."""

    name: Literal["compute", "memory", "packing", "epilogue", "overhead"]
    cycles: NonNegative


EnergyPart = Literal["compute", "memory", "other"]


class EnergyTerm(Record):
    """Part of an energy: ``compute`` (the loops of kernels), ``memory`` (beyond the nearest cache) or ``other``."""

    name: EnergyPart
    energy_uj: NonNegative


class LayerEstimate(Record):
    """Predicted cost of one operator. ``bound`` names what its largest term waits for; ``padding_waste`` is the part of
    the multiply-accumulates spent on padding (0..1); ``choices`` say why its kernels, segment by segment."""

    name: str
    op: str
    cycles: NonNegative
    latency_us: NonNegative
    bound: Bound
    kernels: tuple[str, ...] = ()
    terms: tuple[CostTerm, ...] = ()
    macs: int = 0
    padding_waste: Annotated[float, Field(ge=0, le=1)] = 0.0
    choices: tuple[KernelChoice, ...] = ()
    energy: tuple[EnergyTerm, ...] | None = None
    note: str = ""


class Estimate(Record):
    """Predicted latency of a network on a machine, with an interval."""

    hardware: str
    hardware_sha256: str
    cycles: NonNegative
    latency_us: NonNegative
    low_us: NonNegative
    high_us: NonNegative
    bound: Bound
    batch: PositiveInt
    threads: PositiveInt
    per_layer: tuple[LayerEstimate, ...]
    model: str
    interval: str
    """How ``low_us`` and ``high_us`` were come by."""
    calibrated: bool = False
    """Whether the interval rests on measurements: then it bounds each estimate's own error, else one that all share."""
    energy_uj: NonNegative | None = None
    """Dynamic energy; None where the descriptor lacks figures for it."""


class Host(Record):
    """The machine that something ran on."""

    processor: str
    vendor: str
    family: int
    model: int
    stepping: int
    features: tuple[str, ...]
    cores: int
    memory_bytes: int
    system: str
    python: str
    versions: dict[str, str] = {}


class Measurement(Record):
    """Measured latency, or the reason why there is none. Exactly one of ``median_us`` and ``skipped`` is set.

    ``mad_us`` is the median absolute deviation of ``samples`` runs; times are of the thread's CPU clock unless
    ``threads`` > 1, then of the wall clock. ``settled`` is false where the spread stayed above the helper's limit.
    """

    batch: PositiveInt = 1
    threads: PositiveInt = 1
    median_us: NonNegative | None = None
    mad_us: NonNegative | None = None
    samples: int = 0
    settled: bool = False
    per_layer_us: dict[str, float] = {}
    host: Host | None = None
    compiler: str = ""
    flags: tuple[str, ...] = ()
    skipped: str | None = None

    @model_validator(mode="after")
    def _measured_or_skipped(self) -> Any:
        if (self.median_us is None) == (self.skipped is None):
            raise ValueError("median_us, skipped: expected exactly one of them")
        return self


class Agreement(Record):
    """Predicted over measured, whether the measurement lies in the interval, and the reason where they part."""

    ratio: float | None
    within: bool | None
    reason: str
