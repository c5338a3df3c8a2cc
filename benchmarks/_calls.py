"""The frozen set of kernel calls on which the cost model is scored: every kernel that the host runs, by regime.

Sizes follow the kernel's tile, so that each kernel meets every regime; they were fixed before any was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from soniq_dse.kernels.catalog import catalog, missing_features
from soniq_dse.kernels.library import Kernel, PreparedCall, aligned_empty, load_kernel
from soniq_dse.kernels.measure import random_codes
from soniq_dse.native.compiler import Compiler, find_compiler
from soniq_dse.native.timing import CycleTiming, time_cycles
from soniq_dse.records.cost import KernelSpec

COMPILERS = ("g++", "clang++-19")
BEYOND_L1 = ("l2", "l3", "dram")
"""Regimes of which the memory behind the nearest cache is the bound."""
_KIB, _MIB = 1 << 10, 1 << 20
_L1_BYTES = (12 * _KIB, 6 * _KIB, 3 * _KIB)
_DEPTH = 1024
"""k of the products that stream their weights."""
_STREAMED = (
    ("l2", 1, 192 * _KIB),
    ("l2", 4, 128 * _KIB),
    ("l3", 1, 4 * _MIB),
    ("l3", 2, 8 * _MIB),
    ("dram", 1, 96 * _MIB),
)
"""(regime, tiles of rows, bytes of packed weights)."""
_WHOLE = ((16, 1024, 1024), (64, 256, 576), (128, 64, 1152))
_WHOLE_ONE_ROW = ((1, 1024, 1024), (1, 4096, 1152), (1, 512, 512))


@dataclass(frozen=True)
class Case:
    """One call of one compiled kernel: ``[rows, k] x [cols, k]``."""

    spec: KernelSpec
    compiler: Compiler
    regime: str
    rows: int
    cols: int
    k: int

    @property
    def shape(self) -> str:
        """``rows x cols x k``."""
        return f"{self.rows}x{self.cols}x{self.k}"

    @property
    def macs(self) -> int:
        """Multiply-accumulates, padding left out."""
        return self.rows * self.cols * self.k


def compilers() -> list[Compiler]:
    """Those of ``COMPILERS`` that are here."""
    return [found for found in map(find_compiler, COMPILERS) if found]


def vector_kernels(features: Sequence[str]) -> list[KernelSpec]:
    """The vector kernels that a machine with ``features`` runs."""
    return [spec for spec in catalog() if spec.features and not missing_features(spec, features)]


def cases_of(kernel: Kernel, compiler: Compiler) -> list[Case]:
    """The kernel's calls, regime by regime."""
    tile_rows, tile_cols, _ = kernel.spec.tile
    shapes = list(_one_row_shapes(kernel) if tile_rows == 1 else _tiled_shapes(kernel))
    shapes += [(regime, tiles * tile_rows, _cols_of(kernel, size), _DEPTH) for regime, tiles, size in _STREAMED]
    shapes += [("l1", tile_rows, tile_cols, _k_of(kernel, size)) for size in _L1_BYTES]
    return [Case(kernel.spec, compiler, *shape) for shape in dict.fromkeys(shapes)]


def _tiled_shapes(kernel: Kernel) -> Iterator[tuple[str, int, int, int]]:
    rows, cols, _ = kernel.spec.tile
    for n, k in ((4, 2 * kernel.spec.k_group), (8, 32), (8, 64)):
        yield "short k", n * rows, n // 2 * cols, k
    yield "tails", 4 * rows + 1, 3 * cols + 5, 250
    yield "tails", rows - 1, 2 * cols, 512
    yield "tails", 2 * rows + rows // 2, cols - 3, 384
    yield "one row", 1, 4 * cols, 512
    yield "one row", 1, 8 * cols, 1024
    yield from (("product", *shape) for shape in _WHOLE)


def _one_row_shapes(kernel: Kernel) -> Iterator[tuple[str, int, int, int]]:
    _, cols, _ = kernel.spec.tile
    for n, k in ((4, 2 * kernel.spec.k_group), (8, 32), (8, 64)):
        yield "short k", 1, n * cols, k
    for n, k in ((3 * cols + 5, 250), (2 * cols + 1, 1000), (cols - 3, 384)):
        yield "tails", 1, n, k
    yield "one row", 3, 4 * cols, 512
    yield from (("product", *shape) for shape in _WHOLE_ONE_ROW)


def _k_of(kernel: Kernel, size_bytes: int) -> int:
    """The k at which one panel of weights takes about ``size_bytes``."""
    group = 16 * kernel.spec.k_group
    return max(1, size_bytes * group // kernel.w_bytes(kernel.spec.tile[1], 1, group) // group) * group


def _cols_of(kernel: Kernel, size_bytes: int) -> int:
    """The output channels with which the weights take about ``size_bytes``."""
    cols = kernel.spec.tile[1]
    return max(1, size_bytes // kernel.w_bytes(cols, 1, _DEPTH)) * cols


class Bench:
    """Calls in place, to be timed. Weights are random bytes, not packed ones: no kernel's time depends on them."""

    @cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        size = max(size for _, _, size in _STREAMED)
        pool = aligned_empty((size,))
        pool[:] = np.frombuffer(np.random.default_rng(0).bytes(size), np.uint8)
        return pool

    def call(self, case: Case) -> PreparedCall:
        """The call of ``case``."""
        kernel = load_kernel(case.spec, compiler=case.compiler)
        weights = self._bytes[: kernel.w_bytes(case.cols, 1, case.k)]
        codes = random_codes(kernel, (case.rows, case.k), np.random.default_rng(0))
        return kernel.prepare(codes, weights, cols=case.cols, k=case.k)

    def time(self, case: Case, *, max_s: float) -> CycleTiming:
        """Cycles of one call, operands as near as they fit."""
        return time_cycles(self.call(case).run_seconds, max_s=max_s)
