"""A plan: the steps of ``executor.cpp`` in order, over named buffers that have no address yet."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from soniq_dse.records.choice import PartShape
from soniq_dse.runtime.buffers import Life
from soniq_dse.runtime.structs import Kind

Addresses = Mapping[str, int]
INPUT, OUTPUT = "x", "y"
"""Buffers of the network's input and output as the trained model orders them."""
SCRATCH = "scratch"
POSITION = "position"
"""Outside: an int64, the tokens before those of a run."""
SOURCE = "source"
"""Outside: the input of the whole network, whose token numbers some attention reads."""


@dataclass(frozen=True)
class Step:
    """One step: its node, the buffers it reads and writes, and its arguments once these have addresses."""

    kind: Kind
    node: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    arguments: Callable[[Addresses], ctypes.Structure]


_ALWAYS_SHARED = frozenset({Kind.LAYER, Kind.ATTENTION, Kind.WEIGHT_ONLY, Kind.KEEP})
LITTLE_BYTES = 8192
"""Read and written by a step, half as many where it packs: up to so many, threads take longer to meet (0.3 us) than
they save by sharing it."""


@dataclass(frozen=True)
class Round:
    """Steps between two meetings of the threads: one that they share, or some that one thread does ``alone``."""

    first: int
    count: int
    alone: bool


@dataclass(frozen=True)
class LayerReport:
    """How a layer was laid out: its kernels, its multiply-accumulates, those including padding, and the parts that
    kernels are chosen for."""

    node: str
    kernels: tuple[str, ...]
    macs: int
    padded_macs: int
    folded: bool
    shapes: tuple[PartShape, ...]


@dataclass
class Plan:
    """Steps in order for ``threads`` threads, the bytes of every buffer, and by node the buffer of each fp32 tensor and
    tensor of codes."""

    batch: int
    threads: int = 1
    n_tokens: int | None = None
    """The input is token numbers below this; None: fp32."""
    steps: list[Step] = field(default_factory=list)
    size_bytes: dict[str, int] = field(default_factory=dict)
    layers: list[LayerReport] = field(default_factory=list)
    floats: dict[str, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    output: str = OUTPUT
    """The buffer that holds the network's output behind the last step."""
    outside: dict[str, int] = field(default_factory=dict)
    """Bytes of the buffers that outlive a run and belong to whoever runs the plan."""

    def add(
        self,
        kind: Kind,
        node: str,
        *,
        reads: tuple[str, ...],
        writes: tuple[str, ...],
        arguments: Callable[[Addresses], ctypes.Structure],
    ) -> None:
        """Append a step."""
        self.steps.append(Step(kind, node, reads, writes, arguments))

    def buffer(self, name: str, size_bytes: int) -> str:
        """The buffer ``name``, made at least ``size_bytes`` large."""
        self.size_bytes[name] = max(size_bytes, self.size_bytes.get(name, 0))
        return name

    def from_outside(self, name: str, size_bytes: int) -> str:
        """The buffer ``name`` from outside, of ``size_bytes`` or more."""
        self.outside[name] = max(size_bytes, self.outside.get(name, 0))
        return name

    def new_floats(self, tensor: str, elements: int) -> str:
        """The buffer of a new fp32 tensor."""
        self.floats[tensor] = self.buffer(f"{tensor}:f32", 4 * elements)
        return self.floats[tensor]

    def new_codes(self, tensor: str, elements: int) -> str:
        """The buffer of a new tensor of codes."""
        self.codes[tensor] = self.buffer(f"{tensor}:u8", elements)
        return self.codes[tensor]

    def rounds(self) -> list[Round]:
        """The steps, as the threads meet between them."""
        found: list[Round] = []
        for index, step in enumerate(self.steps):
            alone = self.threads > 1 and self._is_little(step)
            if alone and found and found[-1].alone:
                found[-1] = replace(found[-1], count=found[-1].count + 1)
            else:
                found.append(Round(index, 1, alone))
        return found

    def _is_little(self, step: Step) -> bool:
        size_bytes = sum(self.size_bytes.get(name, 0) for name in (*step.reads, *step.writes))
        most = LITTLE_BYTES // 2 if step.kind is Kind.PACK else LITTLE_BYTES
        return step.kind not in _ALWAYS_SHARED and size_bytes <= most

    def lives(self, *, keep: Collection[str] = ()) -> dict[str, Life]:
        """When each buffer is in use; scratch, input, output and those of ``keep`` are throughout."""
        whole = Life(0, -1, len(self.steps))
        lives: dict[str, Life] = {}
        for index, step in enumerate(self.steps):
            for name in {*step.writes, *step.reads} - self.outside.keys():
                first = lives[name].first if name in lives else index
                lives[name] = Life(self.size_bytes[name], first, index)
        for name in (SCRATCH, INPUT, self.output, *keep):
            lives[name] = Life(self.size_bytes.get(name, 0), whole.first, whole.last)
        return lives
