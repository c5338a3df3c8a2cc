"""A GPU as figures with sources: the descriptor schema (version 1) of ``kind: gpu``.

Rates are of one multiprocessor unless the name says otherwise; a warp is 32 threads, so that a register of a warp is a
vector of 1024 bits. Rules that span fields are checked in ``hardware/checks.py``.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import Field, PositiveInt, TypeAdapter

from soniq_dse.records.base import Record
from soniq_dse.records.cost import Measurement
from soniq_dse.records.hardware import Figure, HardwareModel, Name, Source

WARP_THREADS = 32
WARP_BITS = 1024
"""Of one register over all threads of a warp."""

Architecture = Annotated[str, Field(pattern=r"^sm_[0-9]{2,3}[a-z]?$")]
Pipe = Literal["lop3", "shift", "prmt", "imad", "popc", "dp4a", "hfma2", "load"]


class GpuOperation(Record):
    """A multiply-accumulate instruction for operands of ``operand_bits`` on one multiprocessor.

    ``tensor`` units take whole fragments (``mma.sync``), ``vector`` units one element a thread. ``native`` is false
    where the compiler accepts the instruction and emulates it by slower ones: then no kernel uses it. ``k_group`` input
    channels are consumed per instruction, ``n_group`` output channels are what it makes at a time.
    """

    unit: Literal["tensor", "vector"]
    operand_bits: Literal[1, 4, 8, 16]
    native: bool
    k_group: PositiveInt
    n_group: PositiveInt
    macs_per_cycle: Figure


class Multiprocessor(Record):
    """One streaming multiprocessor: what it issues, holds, and does per cycle.

    ``issue_warps_per_cycle`` is the number of warp instructions issued a cycle, ``lanes_per_cycle`` how many threads'
    worth of an instruction each pipe takes a cycle.
    """

    issue_warps_per_cycle: Figure
    lanes_per_cycle: dict[Pipe, Figure]
    registers_total: Figure
    registers_per_thread_max: Figure
    threads_max: Figure
    blocks_max: Figure
    shared_size_bytes: Figure
    shared_bytes_per_cycle: Figure


class GpuCache(Record):
    """The cache that all multiprocessors share; bandwidth of the whole GPU."""

    size_bytes: Figure
    read_bytes_per_cycle: Figure
    latency_cycles: Figure


class GpuMemory(Record):
    """Device memory. ``read_gb_per_s`` is what the maker states, ``sustained_share`` what a copy reaches of it."""

    size_bytes: Figure
    read_gb_per_s: Figure
    sustained_share: Figure
    latency_ns: Figure


class GpuOverhead(Record):
    """What a kernel costs besides its work, where launches follow one another in a stream or a graph."""

    launch_us: Figure


class GpuModel(Record):
    """A GPU. ``matches`` are the names under which its driver reports it, each the beginning of one."""

    schema_version: Literal[1]
    name: Name
    title: Annotated[str, Field(min_length=1, max_length=200)]
    kind: Literal["gpu"]
    architecture: Architecture
    matches: tuple[str, ...] = ()
    multiprocessors: Figure
    clock_ghz: Figure
    multiprocessor: Multiprocessor
    operations: Annotated[dict[Name, GpuOperation], Field(min_length=1)]
    l2: GpuCache
    memory: GpuMemory
    overhead: GpuOverhead
    sources: Annotated[dict[str, Source], Field(min_length=1)]


Machine = Union[HardwareModel, GpuModel]


def machine_from_json(text: str) -> Machine:
    """The machine that ``model_dump_json`` wrote."""
    return TypeAdapter[Machine](Machine).validate_json(text)


class GpuKernel(Record):
    """A CUDA kernel, as its symbol says: left of ``__`` what it computes, right of it where and how.

    ``<op>_<act>_<wgt>_<acc>_<MR>x<NR>x<KR>__<arch>_<algorithm>``; a block of ``threads`` makes MR rows of NR output
    channels, KR input channels at a time. ``arch`` is the first architecture that has its instructions, ``operation``
    that of a descriptor which it needs natively. ``k_group`` is the multiple to which k is padded, ``k_max`` the
    largest padded k before its accumulator can overflow, ``path`` its source below ``soniq_dse/kernels``. Kernels of
    16-bit floats (``f16``) are what others are compared with: they serve no level.
    """

    symbol: str
    op: Literal["gemm", "gemv"]
    act: str
    wgt: str
    acc: str
    tile: tuple[PositiveInt, PositiveInt, PositiveInt]
    arch: str
    algorithm: str
    operation: str
    k_group: PositiveInt
    k_max: PositiveInt
    threads: PositiveInt
    path: str

    @property
    def weight_bits(self) -> int:
        """Bits of a weight."""
        return int(self.wgt[1:])

    @property
    def activation_bits(self) -> int:
        """Bits of an activation's code."""
        return int(self.act[1:])


class GpuLoop(Record):
    """The loop along k of a kernel as the assembler made it, for one architecture.

    ``instructions`` of a warp in an iteration, ``work`` of them multiply, ``alu`` of them are of the integer units
    (logic, shifts, additions, comparisons), ``imad`` of the multiply-add units. ``source_sha256`` is of the source and
    its headers, ``sass_sha256`` of the assembly of the whole function.
    """

    symbol: str
    compiler: str
    source_sha256: str
    sass_sha256: str
    registers: PositiveInt
    shared_bytes: Annotated[int, Field(ge=0)]
    instructions: PositiveInt
    work: PositiveInt
    alu: Annotated[int, Field(ge=0)]
    imad: Annotated[int, Field(ge=0)]


class GpuLoops(Record):
    """Every kept loop of an architecture."""

    schema_version: Literal[1] = 1
    architecture: Architecture
    loops: tuple[GpuLoop, ...]


class GpuLayerKernel(Record):
    """A CUDA kernel of whole layers: any number of segments, each by one of ``parts``, in one launch.

    A block of ``threads`` makes ``tile`` rows of ``tile`` output channels; ``operation`` and ``path`` as of
    ``GpuKernel``. ``parts`` say how operands of a segment are packed; each bears the symbol of the whole.
    """

    symbol: str
    operation: str
    threads: PositiveInt
    tile: PositiveInt
    parts: tuple[GpuKernel, ...]
    path: str


class KeptDesign(Record):
    """A line of ``hwmodels/measured/NAME/designs.jsonl``: a network as it was timed on the GPU that
    ``measurement.host`` names. ``shape_sha256`` is of its kernels, their sources and geometries."""

    schema_version: Literal[1] = 1
    shape_sha256: str
    batch: PositiveInt
    network: str
    date: str
    measurement: Measurement
