"""Hot loops of the kernels: kept in ``hwmodels/loops``, so that estimates need no compiler, or from a fresh build."""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path

from pydantic import ValidationError

from soniq_dse.errors import UserError
from soniq_dse.kernels.catalog import CPU_FOLDER, catalog
from soniq_dse.kernels.library import build_kernel_library, isa_flags, load_kernel
from soniq_dse.native.compiler import BASE_FLAGS, host_compiler, sources_sha256
from soniq_dse.native.disassembly import TileShape, hot_loop
from soniq_dse.records.cost import HotLoop, KernelSpec
from soniq_dse.resources import shipped_folder

ISA = "x86_64"


def kept_loops_folder() -> Path:
    """Where the kept loops of x86-64 kernels are, one JSON file per symbol."""
    return shipped_folder("hwmodels") / "loops" / ISA


def kept_loop(symbol: str, folder: Path | None = None) -> HotLoop | None:
    """The kept loop of a kernel; None where none is kept. It may be stale: see ``is_stale``.

    Raises:
        UserError: the file is not a HotLoop.
    """
    path = (folder or kept_loops_folder()) / f"{symbol}.json"
    try:
        loop = HotLoop.from_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {field}: expected a HotLoop record, got {first['msg']}; keep it again") from error
    if loop.symbol != symbol:
        raise UserError(f"{path}: symbol: expected {symbol}, got {loop.symbol}")
    return loop


def is_stale(loop: HotLoop, folder: Path = CPU_FOLDER) -> bool:
    """Whether the kernel's source, or a header of it, has changed since ``loop`` was kept, or is gone."""
    spec = next((spec for spec in catalog(folder) if spec.symbol == loop.symbol), None)
    return spec is None or loop.source_sha256 != source_sha256(spec.path, folder)


@functools.lru_cache(maxsize=64)
def source_sha256(path: str, folder: Path = CPU_FOLDER) -> str:
    """Hash of a kernel's source and the headers it includes."""
    return sources_sha256([folder / Path(path).name], [CPU_FOLDER])


def read_loop(spec: KernelSpec, folder: Path = CPU_FOLDER) -> HotLoop:
    """The hot loop of ``spec`` as this machine's compiler makes it, on x86-64; the CPU need not be able to run it.

    Raises:
        UserError: no loop of it can be understood.
        MissingCapabilityError: there is no compiler or no objdump.
    """
    kernel = load_kernel(spec, folder)
    rows, cols, _ = spec.tile
    depth = 64 * spec.k_group  # whole groups, so that padding does not blur the bytes of one k
    tile = TileShape(
        rows=rows,
        cols=cols,
        activation_bytes_per_k=Fraction(kernel.a_row_bytes(2 * depth) - kernel.a_row_bytes(depth), depth),
        weight_bytes_per_k=Fraction(kernel.w_bytes(cols, 1, 2 * depth) - kernel.w_bytes(cols, 1, depth), depth),
    )
    return hot_loop(
        build_kernel_library(spec, folder),
        spec.symbol,
        tile,
        compiler=host_compiler().version,
        flags=(*BASE_FLAGS, *isa_flags(spec.features)),
        source_sha256=source_sha256(spec.path, folder),
    )
