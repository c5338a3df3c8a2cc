"""The kept loops of the CUDA kernels, one file per architecture (``hwmodels/sass``): instructions that the cost model
counts where there is no compiler. ``python -m soniq_dse.kernels.gpu_loops`` keeps them anew."""

from __future__ import annotations

import functools
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from soniq_dse.errors import UserError
from soniq_dse.hardware.find import shipped_descriptors
from soniq_dse.hardware.load import load_machine
from soniq_dse.kernels.gpu_catalog import CUDA_FOLDER, gpu_catalog, gpu_layer_kernel_for, gpu_layer_kernels
from soniq_dse.native.compiler import sources_sha256
from soniq_dse.native.nvrtc import SassLoop, build_cubin, compiler_version, resources, sass_loops
from soniq_dse.records.gpu import GpuKernel, GpuLoop, GpuLoops, GpuModel
from soniq_dse.resources import shipped_folder

WORK = {
    "bmma": "BMMA.168256.AND.POPC",
    "imma": "IMMA.16832",
    "imma4": "IMMA.16864",
    "dp4a": "IDP.4A",
    "popc": "POPC",
    "csa": "POPC",
    "hfma2": "HFMA2",
}
"""By algorithm: the instruction that does the work."""

_ALU = frozenset(["LOP3", "PLOP3", "SHF", "PRMT", "IADD3", "VIADD", "ISETP", "LEA", "SEL", "IMNMX", "VIMNMX"])
"""Opcodes of the integer units, which share them up to Hopper (inferred from published microbenchmarks)."""


def work_of_block(kernel: GpuKernel, k: int) -> float:
    """Warp instructions that multiply, of a block that makes a whole tile over padded ``k``."""
    rows, cols, _ = kernel.tile
    macs, planes = float(rows * cols * k), kernel.weight_bits * kernel.activation_bits
    if kernel.algorithm == "bmma" and kernel.op == "gemv":  # all eight columns, whatever rows there are
        return cols * k * kernel.weight_bits / (16 * 256)
    each = {
        "bmma": 16 * 8 * 256 / planes, "imma": 16 * 8 * 32, "imma4": 16 * 8 * 64, "dp4a": 32 * 4,
        "popc": 32 * 32 / planes, "csa": 2 * 32 * 32 / planes, "hfma2": 32 * 2,
    }  # fmt: skip
    return macs / each[kernel.algorithm]


def loop_name(kernel: GpuKernel) -> str:
    """Under which a kernel's loop is kept: its symbol; of a layer kernel, which has a loop for each part, also the
    formats of the part."""
    part = f":{kernel.act}_{kernel.wgt}" if kernel.symbol.startswith("layer") else ""
    return kernel.symbol + part


@functools.lru_cache(maxsize=64)
def cuda_source_sha256(path: str) -> str:
    """Hash of a kernel's source and the headers it includes."""
    return sources_sha256([CUDA_FOLDER / Path(path).name])


def sass_folder() -> Path:
    """Where the kept loops are."""
    return shipped_folder("hwmodels") / "sass"


@functools.lru_cache(maxsize=16)
def kept_gpu_loops(architecture: str, folder: Path | None = None) -> Mapping[str, GpuLoop]:
    """Kept loops by symbol, those left out whose source has changed since; none where none are kept.

    Raises:
        UserError: the file is not a GpuLoops record.
    """
    path = (folder or sass_folder()) / f"{architecture}.json"
    if not path.exists():
        return {}
    try:
        kept = GpuLoops.from_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {field}: expected a GpuLoops record, got {first['msg']}; keep it again") from error
    parts = [part for layer in gpu_layer_kernels() for part in layer.parts]
    sources = {loop_name(kernel): kernel.path for kernel in (*gpu_catalog(), *parts)}
    return {
        loop.symbol: loop
        for loop in kept.loops
        if loop.symbol in sources and loop.source_sha256 == cuda_source_sha256(sources[loop.symbol])
    }


def read_gpu_loops(gpu: GpuModel) -> GpuLoops:
    """The loops of every kernel that ``gpu`` runs natively, as the compiler makes them.

    Raises:
        MissingCapabilityError: there is no compiler or disassembler.
        UserError: a kernel has no loop that does its work.
    """
    native = [kernel for kernel in gpu_catalog() if gpu.operations[kernel.operation].native]
    algorithms = {kernel.symbol: kernel.algorithm for kernel in gpu_catalog()}
    loops = []
    for path in sorted({kernel.path for kernel in native}):
        cubin = build_cubin(CUDA_FOLDER / Path(path).name, gpu.architecture)
        used, found = resources(cubin), sass_loops(cubin, lambda symbol: WORK[algorithms[symbol]])
        loops += [_kept(kernel, found, used[kernel.symbol]) for kernel in native if kernel.path == path]
    return GpuLoops(architecture=gpu.architecture, loops=(*loops, *_layer_loops(gpu)))


def _layer_loops(gpu: GpuModel) -> Iterator[GpuLoop]:
    """Of every part of the layer kernel for ``gpu``: made by a kernel of this part alone, at the registers of all."""
    kernel = gpu_layer_kernel_for(gpu)
    used = resources(build_cubin(CUDA_FOLDER / Path(kernel.path).name, gpu.architecture))[kernel.symbol]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for header in CUDA_FOLDER.glob("*.h"):
            shutil.copy(header, folder)
        for part in kernel.parts:
            of_part = f"Bytes<{part.weight_bits}>"
            if part.algorithm == "bmma":
                of_part = f"Planes<{part.weight_bits}, {part.activation_bits}>"
            line = f'SONIQ_CUDA_LAYER({part.symbol}, "", {kernel.threads}, {kernel.tile}, LayerKernel<{of_part}>)\n'
            source = folder / f"{part.act}_{part.wgt}.cu"
            source.write_text('#include "layer.h"\n' + line, encoding="utf-8")
            work = {part.symbol: WORK[part.algorithm]}
            yield _kept(part, sass_loops(build_cubin(source, gpu.architecture), work.__getitem__), used)


def _kept(kernel: GpuKernel, found: Mapping[str, SassLoop], used: Mapping[str, int]) -> GpuLoop:
    if kernel.symbol not in found:
        raise UserError(f"{loop_name(kernel)}: expected a loop with {WORK[kernel.algorithm]}, got none")
    loop = found[kernel.symbol]
    opcodes = Counter(name.split(".")[0] for name in loop.mnemonics)
    return GpuLoop(
        symbol=loop_name(kernel),
        compiler=compiler_version(),
        source_sha256=cuda_source_sha256(kernel.path),
        sass_sha256=loop.sass_sha256,
        registers=used["registers"],
        shared_bytes=used["shared_bytes"],
        instructions=len(loop.mnemonics),
        work=sum(name.startswith(WORK[kernel.algorithm]) for name in loop.mnemonics),
        alu=sum(count for name, count in opcodes.items() if name in _ALU),
        imad=opcodes["IMAD"],
    )


def main() -> None:
    """Keep the loops of every architecture that is described."""
    done: set[str] = set()
    for path in shipped_descriptors():
        gpu = load_machine(path)
        if isinstance(gpu, GpuModel) and gpu.architecture not in done:
            done.add(gpu.architecture)
            file = sass_folder() / f"{gpu.architecture}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(read_gpu_loops(gpu).to_json_value(), indent=1) + "\n", encoding="utf-8")
            sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
