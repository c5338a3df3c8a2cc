"""Keep hot loops and code of the vector kernels in ``hwmodels/loops``: ``python -m soniq_dse.kernels.keep_loops``."""

from __future__ import annotations

import functools
import json
import sys
from fractions import Fraction
from pathlib import Path

from soniq_dse.errors import UserError
from soniq_dse.kernels.catalog import CPU_FOLDER, catalog, instruction_set
from soniq_dse.kernels.code import keep_code, kept_code, read_code
from soniq_dse.kernels.library import build_kernel_library, isa_flags, load_kernel
from soniq_dse.kernels.loops import ISA, kept_loop, kept_loops_folder
from soniq_dse.native.compiler import BASE_FLAGS, Compiler, host_compiler, sources_sha256
from soniq_dse.native.disassembly import TileShape, hot_loop
from soniq_dse.records.cost import HotLoop, KernelSpec

GFNI_MATRICES = 3
"""Bytes of matrices that a GFNI kernel makes of each packed byte before its loop, which reads those of all rows."""


def is_stale(loop: HotLoop, folder: Path = CPU_FOLDER) -> bool:
    """Whether the kernel's source, or a header of it, has changed since ``loop`` was kept, or is gone."""
    spec = next((spec for spec in catalog(folder) if spec.symbol == loop.symbol), None)
    return spec is None or loop.source_sha256 != source_sha256(spec.path, folder)


@functools.lru_cache(maxsize=64)
def source_sha256(path: str, folder: Path = CPU_FOLDER) -> str:
    """Hash of a kernel's source and the headers it includes."""
    return sources_sha256([folder / Path(path).name], [CPU_FOLDER])


def read_loop(spec: KernelSpec, folder: Path = CPU_FOLDER, compiler: Compiler | None = None) -> HotLoop:
    """The hot loop of ``spec`` as ``compiler`` makes it (the host's), on x86-64; the CPU need not be able to run it.

    Raises:
        UserError: no loop of it can be understood.
        MissingCapabilityError: there is no compiler or no objdump.
    """
    compiler = compiler or host_compiler()
    kernel = load_kernel(spec, folder, compiler)
    rows, cols, _ = spec.tile
    depth = 64 * spec.k_group  # whole groups, so that padding does not blur the bytes of one k
    activation_bytes = Fraction(kernel.a_row_bytes(2 * depth) - kernel.a_row_bytes(depth), depth)
    tile = TileShape(
        rows=rows,
        cols=cols,
        activation_bytes_per_k=activation_bytes * (rows * GFNI_MATRICES if spec.algorithm == "gfni" else 1),
        weight_bytes_per_k=Fraction(kernel.w_bytes(cols, 1, 2 * depth) - kernel.w_bytes(cols, 1, depth), depth),
    )
    return hot_loop(
        build_kernel_library(spec, folder, compiler),
        spec.symbol,
        tile,
        compiler=compiler.version,
        flags=(*BASE_FLAGS, *isa_flags(spec.features)),
        source_sha256=source_sha256(spec.path, folder),
    )


def keep_loops(folder: Path) -> list[str]:
    """Bring ``folder`` up to date: stale and missing loops are written, those of kernels that are gone removed.

    Returns:
        What could not be read, one line each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    specs = {spec.symbol: spec for spec in catalog() if instruction_set(spec) == ISA}
    for path in folder.iterdir():
        if path.name.partition(".")[0] not in specs:
            path.unlink()
    problems = []
    for symbol, spec in specs.items():
        kept = kept_loop(symbol, folder)
        code = kept_code(symbol, folder)
        if kept is not None and not is_stale(kept) and code and code.source_sha256 == kept.source_sha256:
            continue
        try:
            text = _json(read_loop(spec))
            keep_code(read_code(spec), folder)
        except UserError as error:
            problems.append(str(error))
            continue
        (folder / f"{symbol}.json").write_text(text, encoding="utf-8")
    return problems


def _json(loop: HotLoop) -> str:
    """One line per instruction, so that a changed loop reads as such in a diff."""
    fields = loop.to_json_value()
    lines = ",\n".join(f"  {json.dumps(instruction)}" for instruction in fields.pop("instructions"))
    return f'{json.dumps(fields, indent=1)[:-2]},\n "instructions": [\n{lines}\n ]\n}}\n'


if __name__ == "__main__":
    found = keep_loops(kept_loops_folder())
    sys.stderr.writelines(f"{problem}\n" for problem in found)
    sys.exit(1 if found else 0)
