"""The CUDA kernels there are, read from the ``SONIQ_CUDA_KERNEL`` and ``SONIQ_CUDA_LAYER`` lines of their sources; no
compiler is needed."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from soniq_dse.errors import UserError
from soniq_dse.records.gpu import GpuKernel, GpuLayerKernel, GpuModel
from soniq_dse.records.palette import Level

CUDA_FOLDER = Path(__file__).parent / "cuda"

_INSTANCE = re.compile(r'^SONIQ_CUDA_KERNEL\((\w+), "(\w+)", (\d+), (\d+), (\d+), [^;]+?\)$', re.MULTILINE)
_LAYER = re.compile(r'^SONIQ_CUDA_LAYER\((\w+), "(\w+)", (\d+), (\d+),\s+LayerKernel<(.+)>\)$', re.MULTILINE)
_PART = re.compile(r"Planes<(\d), (\d)>|Bytes<(\d)>")
_SYMBOL = re.compile(
    r"(?P<op>gemm|gemv)_(?P<act>u[1-8]|f16)_(?P<wgt>z[1-7]|s8|f16)_(?P<acc>s32|f16)"
    r"_(?P<mr>\d+)x(?P<nr>\d+)x(?P<kr>\d+)__(?P<arch>sm\d+)_(?P<algorithm>[a-z0-9]+)"
)


@functools.lru_cache(maxsize=8)
def gpu_catalog(folder: Path = CUDA_FOLDER) -> tuple[GpuKernel, ...]:
    """Every kernel instance of the ``*.cu`` files in ``folder``, by file and line.

    Raises:
        UserError: a ``SONIQ_CUDA_KERNEL`` line or its symbol is not of the documented form, or a symbol occurs twice.
    """
    kernels: dict[str, GpuKernel] = {}
    for path in sorted(folder.glob("*.cu")):
        text = path.read_text(encoding="utf-8")
        found = _INSTANCE.findall(text)
        if len(found) != len(re.findall(r"^SONIQ_CUDA_KERNEL", text, re.MULTILINE)):
            raise UserError(
                f'{path.name}: expected lines SONIQ_CUDA_KERNEL(symbol, "operation", k_group, k_max, threads, '
                "Implementation) with literals, got one of another form"
            )
        for fields in found:
            kernel = _kernel(path, *fields)
            if kernel.symbol in kernels:
                raise UserError(f"{path.name}: expected distinct symbols, got {kernel.symbol} twice")
            kernels[kernel.symbol] = kernel
    return tuple(kernels.values())


def gpu_kernels_for(level: Level, gpu: GpuModel) -> tuple[GpuKernel, ...]:
    """Kernels that compute ``level`` exactly by an operation that ``gpu`` has natively, in the order of the catalog."""
    return tuple(
        kernel
        for kernel in gpu_catalog()
        if kernel.operation in gpu.operations and gpu.operations[kernel.operation].native and _serves(kernel, level)
    )


@functools.lru_cache(maxsize=8)
def gpu_layer_kernels(folder: Path = CUDA_FOLDER) -> tuple[GpuLayerKernel, ...]:
    """Every kernel of whole layers in ``folder``, the one that serves most bits first."""
    found = []
    for path in sorted(folder.glob("*.cu")):
        for symbol, operation, threads, tile, parts in _LAYER.findall(path.read_text(encoding="utf-8")):
            where = {"symbol": symbol, "threads": int(threads), "path": f"{path.parent.name}/{path.name}"}
            made = tuple(_part(where, int(tile), *match.groups()) for match in _PART.finditer(parts))
            found.append(
                GpuLayerKernel.model_validate({**where, "operation": operation, "tile": int(tile), "parts": made})
            )
    return tuple(sorted(found, key=lambda kernel: -len(kernel.parts)))


def gpu_layer_kernel_for(gpu: GpuModel) -> GpuLayerKernel:
    """The layer kernel for ``gpu``.

    Raises:
        UserError: the GPU has none of the operations natively.
    """
    for kernel in gpu_layer_kernels():
        needed = {part.operation for part in kernel.parts}
        if all(name in gpu.operations and gpu.operations[name].native for name in needed):
            return kernel
    raise UserError(f"{gpu.name}: operations: expected imma_s8 natively, got {', '.join(gpu.operations)}")


def part_for(kernel: GpuLayerKernel, level: Level) -> GpuKernel:
    """The part of a layer kernel that computes ``level`` exactly: bit planes where there are, else bytes.

    Raises:
        UserError: there is none.
    """
    for part in kernel.parts:
        if _serves(part, level):
            return part
    raise UserError(f"{kernel.symbol}: expected a level of integer activations, got {level.name}")


def _serves(kernel: GpuKernel, level: Level) -> bool:
    """Activations of a kernel may be wider, 8-bit integer weights hold every zero-free weight."""
    return kernel.activation_bits >= level.activation_bits and (
        kernel.weight_bits == level.weight_bits or (kernel.wgt == "s8" and level.weight_bits < 8)
    )


def _part(where: dict[str, Any], tile: int, w_planes: str, a_planes: str, w_bytes: str) -> GpuKernel:
    """Of bit planes, or of bytes."""
    bits, act = (int(w_bytes), 8) if w_bytes else (int(w_planes), int(a_planes))
    group = 32 * 8 // bits if w_bytes else 256
    largest = 127 if bits == 8 else 2**bits - 1
    k_max = (2**31 - 1) // (largest * (2**act - 1))
    return GpuKernel.model_validate(
        {
            **where,
            "op": "gemm",
            "act": f"u{act}",
            "wgt": "s8" if bits == 8 else f"z{bits}",
            "acc": "s32",
            "tile": (tile, tile, group),
            "arch": "sm80",
            "algorithm": "imma" if w_bytes else "bmma",
            "operation": "imma_s8" if w_bytes else "bmma_and",
            "k_group": group,
            "k_max": k_max - k_max % group,
        }
    )


def _kernel(path: Path, symbol: str, operation: str, k_group: str, k_max: str, threads: str) -> GpuKernel:
    found = _SYMBOL.fullmatch(symbol)
    if not found:
        raise UserError(
            f"{path.name}: kernel symbol: expected <op>_<act>_<wgt>_<acc>_<MR>x<NR>x<KR>__<arch>_<algorithm> "
            f"(gemv_u1_z1_s32_8x16x256__sm80_bmma), got {symbol!r}"
        )
    parts = found.groupdict()
    return GpuKernel.model_validate(
        {
            **{name: parts[name] for name in ("op", "act", "wgt", "acc", "arch", "algorithm")},
            "symbol": symbol,
            "tile": (int(parts["mr"]), int(parts["nr"]), int(parts["kr"])),
            "operation": operation,
            "k_group": int(k_group),
            "k_max": int(k_max),
            "threads": int(threads),
            "path": f"{path.parent.name}/{path.name}",
        }
    )
