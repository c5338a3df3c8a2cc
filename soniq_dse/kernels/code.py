"""The machine code of a kernel: which path a call takes. Kept beside the hot loops, so that no compiler is needed."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from soniq_dse.errors import UserError
from soniq_dse.kernels.catalog import CPU_FOLDER, instruction_set, kernel
from soniq_dse.kernels.library import build_kernel_library
from soniq_dse.kernels.loops import ISA, kept_loops_folder
from soniq_dse.native.compiler import Compiler, sources_sha256
from soniq_dse.native.disassembly import Code, disassemble, parse_line
from soniq_dse.native.emulate import Emulator, Trace
from soniq_dse.records.cost import KernelSpec

_ROW_BITS = 32
"""Packed rows are this far apart, so that an address names its row."""
_ROWS, _WEIGHTS = 0x7000 << 40, 0x7100 << 40


@dataclass(frozen=True)
class Call:
    """The trace of a call; ``panels`` are the positions at which it looks up the first row: once a panel of columns."""

    trace: Trace
    panels: tuple[int, ...]


@dataclass(frozen=True)
class KernelCode:
    """A kernel's library as disassembled, and what its scalar code reads of it (jump tables).

    ``listing``: per function, its lines ``address: instruction``.
    """

    spec: KernelSpec
    listing: Mapping[str, Sequence[str]]
    image: tuple[tuple[int, bytes], ...] = ()
    source_sha256: str = ""

    @cached_property
    def identity(self) -> str:
        """Hash of the listing."""
        lines = "\n".join(line for _, lines in sorted(self.listing.items()) for line in lines)
        return hashlib.sha256(lines.encode()).hexdigest()

    @cached_property
    def functions(self) -> Mapping[str, Sequence[Code]]:
        """The listing, parsed when it is first followed."""
        return {name: [parse_line(line) for line in lines] for name, lines in self.listing.items()}

    @cached_property
    def _emulator(self) -> Emulator:
        return Emulator(self.functions, self.image)

    def call(self, rows: int, cols: int, taps: int, k: int) -> Call:
        """What ``run`` does with ``[rows, taps, k] x [cols, taps, k]``.

        Raises:
            UserError: it takes a path that the emulator cannot follow.
        """
        emulator = self._emulator
        pointers = emulator.memory.place(8 * rows * taps)
        for i in range(rows * taps):
            emulator.memory.write(pointers + 8 * i, 8, _ROWS + (i << _ROW_BITS))
        padded = -(-cols // self.spec.tile[1]) * self.spec.tile[1]
        acc = emulator.memory.place(8)  # what is written there is never read by scalar code
        arguments = (rows, cols, taps, k, pointers, rows, _WEIGHTS, acc, padded)
        trace = emulator.call(self.spec.symbol, arguments)
        emulator.memory.forget(pointers)
        emulator.memory.forget(acc)
        starts = tuple(i for i, address in enumerate(trace.addresses) if address == pointers)
        return Call(trace, starts)


def read_code(spec: KernelSpec, folder: Path = CPU_FOLDER, compiler: Compiler | None = None) -> KernelCode:
    """The code of ``spec`` as ``compiler`` makes it (the host's), on x86-64; the CPU need not be able to run it.

    Raises:
        UserError: it does not compile, or is of another instruction set.
        MissingCapabilityError: there is no compiler or no objdump.
    """
    if instruction_set(spec) not in ("", ISA):
        raise UserError(f"{spec.symbol}: expected a kernel of {ISA}, got one of {instruction_set(spec)}")
    library = build_kernel_library(spec, folder, compiler)
    source = sources_sha256([folder / Path(spec.path).name], [CPU_FOLDER])
    functions = disassemble(library, spec.symbol)
    listing = {name: [f"{one.address:x}: {one.text}" for one in codes] for name, codes in functions.items()}
    return KernelCode(spec, listing, segments(library.read_bytes()), source)


def kept_code(symbol: str, folder: Path | None = None) -> KernelCode | None:
    """The kept code of a kernel; None where none is kept."""
    path = code_path(symbol, folder)
    if not path.is_file():
        return None
    fields = json.loads(gzip.decompress(path.read_bytes()))
    image = tuple((int(address), bytes.fromhex(data)) for address, data in fields["image"].items())
    return KernelCode(kernel(symbol), fields["functions"], image, fields["source_sha256"])


@lru_cache(maxsize=512)
def shared_code(symbol: str) -> KernelCode | None:
    """``kept_code``, read and translated once for all machines."""
    return kept_code(symbol)


def keep_code(code: KernelCode, folder: Path) -> None:
    """Write ``code`` below ``folder``; of the library, only what calls of a few sizes read is kept."""
    rows, cols, _ = code.spec.tile
    for height in range(1, rows + 1):
        code.call(height, cols, 2, 4 * code.spec.k_group)
    read = {str(address): data.hex() for address, data in sorted(code._emulator.memory.image_reads.items())}
    listing = {name: list(lines) for name, lines in sorted(code.listing.items())}
    fields = {"source_sha256": code.source_sha256, "functions": listing, "image": read}
    data = json.dumps(fields, separators=(",", ":")).encode()
    code_path(code.spec.symbol, folder).write_bytes(gzip.compress(data, 9, mtime=0))


def code_path(symbol: str, folder: Path | None = None) -> Path:
    """Where the code of a kernel is kept."""
    return (folder or kept_loops_folder()) / f"{symbol}.code.gz"


def segments(library: bytes) -> tuple[tuple[int, bytes], ...]:
    """(address, bytes) of what an ELF file loads (System V ABI, program header)."""
    (table,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    headers = [struct.unpack_from("<IIQQQQ", library, table + i * size) for i in range(count)]
    return tuple((address, library[offset : offset + n]) for kind, _, offset, address, _, n in headers if kind == 1)
