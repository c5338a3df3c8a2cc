"""A plan of the runtime as constants of C++: its structures, field by field as in ctypes, over static memory.

The structures are declared once more with ``const void*`` for every pointer, of the same layout: what reads them is the
runtime's own executor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.kernels.catalog import kernel
from soniq_dse.kernels.layer_structs import Struct
from soniq_dse.kernels.library import ALIGNMENT_BYTES, GUARD_BYTES, load_kernel, round_up
from soniq_dse.records.cost import KernelSpec
from soniq_dse.runtime.buffers import place
from soniq_dse.runtime.executor import DEPTHWISE, depthwise_kernel, driver_flags
from soniq_dse.runtime.plan import INPUT, Plan

MEMORY = 1 << 60
"""Where the buffers are said to lie; an address that nothing else has."""
_TYPES = {ctypes.c_int64: "int64_t", ctypes.c_int32: "int32_t", ctypes.c_float: "float", ctypes.c_void_p: "const void*"}


@dataclass(frozen=True)
class StaticPlan:
    """``source``: C++ that defines ``soniq_steps``, ``soniq_n_steps``, ``soniq_input`` and ``soniq_output``, and reads
    the bytes of ``data`` as ``soniq_data``; ``kernels``: what it points to."""

    source: str
    data: bytes
    kernels: tuple[KernelSpec, ...]
    memory_bytes: int


def static_plan(plan: Plan, features: Sequence[str]) -> StaticPlan:
    """``plan`` with ``features``, for which it was made."""
    offsets, memory_bytes = place(plan.lives())
    addresses = {name: MEMORY + at for name, at in offsets.items()}
    symbols = dict.fromkeys(symbol for layer in plan.layers for symbol in layer.kernels)
    text = _Text(dict(_kernel_addresses(symbols, features)), memory_bytes)
    steps = [f"{{{int(step.kind)}, {text.define(step.arguments(addresses), step.node)}}}" for step in plan.steps]
    specs = tuple(DEPTHWISE if symbol == DEPTHWISE.symbol else kernel(symbol) for symbol in symbols)
    lines = [
        "// The plan: what the runtime would build in memory, as constants.",
        '#include "soniq/soniq_kernel.h"',
        "",
        *(f'extern "C" const SoniqKernel {symbol}_kernel;' for symbol in symbols),
        "extern const unsigned char soniq_data[];",
        f"alignas({ALIGNMENT_BYTES}) static unsigned char memory[{max(memory_bytes, 1)}];",
        "",
        *text.declarations,
        "struct Step { int64_t kind; const void* arguments; };",
        "",
        *text.definitions,
        "extern const Step soniq_steps[];",
        f"const Step soniq_steps[] = {{\n  {f',{chr(10)}  '.join(steps)}}};",
        f"extern const int64_t soniq_n_steps;\nconst int64_t soniq_n_steps = {len(steps)};",
        f"float* soniq_input = reinterpret_cast<float*>(memory + {offsets[INPUT]});",
        f"float* soniq_output = reinterpret_cast<float*>(memory + {offsets[plan.output]});",
    ]
    return StaticPlan("\n".join(lines) + "\n", bytes(text.data), specs, memory_bytes)


def _kernel_addresses(symbols: Mapping[str, Any], features: Sequence[str]) -> Iterator[tuple[int, str]]:
    for symbol in symbols:
        depthwise = symbol == DEPTHWISE.symbol
        loaded = depthwise_kernel(driver_flags(features)) if depthwise else load_kernel(kernel(symbol))
        yield loaded.address, symbol


@dataclass
class _Text:
    """What has been written so far; ``data`` holds each array once, aligned, with room behind it."""

    kernels: Mapping[int, str]
    memory_bytes: int
    declarations: list[str] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    _declared: set[type] = field(default_factory=set)
    _kept: dict[bytes, int] = field(default_factory=dict)

    def define(self, struct: ctypes.Structure, comment: str) -> str:
        """Write a structure and what it points to; its address in C++."""
        assert isinstance(struct, Struct)
        return "&" + self._array([struct], f"  // {' '.join(comment.split())}")

    def _array(self, structs: Sequence[Struct], comment: str = "") -> str:
        kind = type(structs[0])
        self._declare(kind)
        rows = [", ".join(self._fields(struct)) for struct in structs]
        name = f"{kind.__name__.removesuffix('Struct').lower()}_{len(self.definitions)}"
        body = "".join(f"\n  {{{row}}}," for row in rows)
        self.definitions.append(f"static const {kind.__name__} {name}[] = {{{body}}};{comment}")
        return f"{name}[0]"

    def _declare(self, kind: type[Struct]) -> None:
        if kind not in self._declared:
            self._declared.add(kind)
            fields = " ".join(f"{_TYPES[type_]} {name};" for name, type_ in kind._fields_)  # type: ignore[misc]
            self.declarations.append(f"struct {kind.__name__} {{ {fields} }};")

    def _fields(self, struct: Struct) -> Iterator[str]:
        for name, kind in type(struct)._fields_:  # type: ignore[misc]
            value = getattr(struct, name)
            if kind is ctypes.c_void_p:
                yield self._pointer(value, struct.kept)
            else:
                yield f"{value:.9e}f" if kind is ctypes.c_float else str(value)

    def _pointer(self, address: int | None, kept: Sequence[Any]) -> str:
        if address is None:
            return "nullptr"
        if address in self.kernels:
            return f"&{self.kernels[address]}_kernel"
        if MEMORY <= address <= MEMORY + self.memory_bytes:
            return f"memory + {address - MEMORY}"
        for array in kept:
            if isinstance(array, np.ndarray):
                if array.ctypes.data == address:
                    return f"soniq_data + {self._keep(array)}"
            elif ctypes.addressof(array) == address:
                return "&" + self._array(array.kept) if array.kept else "nullptr"
        raise AssertionError(f"pointer {address:#x}: expected one of the plan's, got another")

    def _keep(self, array: NDArray[Any]) -> int:
        content = array.tobytes()
        if content not in self._kept:
            self._kept[content] = len(self.data)
            self.data += content
            self.data += bytes(round_up(len(self.data) + GUARD_BYTES, ALIGNMENT_BYTES) - len(self.data))
        return self._kept[content]
