"""Contract cases for kernels that run in a program of their own (``kernel_harness.cpp``)."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from test_kernel_contract import assert_raw_sums, codes_of, weights_of

from soniq_dse.kernels.catalog import CPU_FOLDER, token_bits
from soniq_dse.kernels.library import isa_flags
from soniq_dse.native.compiler import Compiler
from soniq_dse.records.cost import KernelSpec

SOURCE = Path(__file__).with_name("kernel_harness.cpp")
PORTABLE = (f"-I{Path(__file__).with_name('portable')}", "-DSIMDE_NO_INLINE", "-Wno-psabi")
"""Calls of intrinsics instead of their text in every unrolled tile: a third of the minutes to compile."""
DEEP_K = 70_000
"""Bounds up to here are reached: those of 8-bit products."""


@dataclass(frozen=True)
class Case:
    """Codes ``[pixels, k]``, weights ``[cols, taps, k]``, gather ``[taps, rows]``."""

    spec: KernelSpec
    codes: np.ndarray
    weights: np.ndarray
    gather: np.ndarray


def contract_cases(spec: KernelSpec, seed: int) -> list[Case]:
    """Tails of rows, columns and k; random gathers over taps; extremes at the deepest feasible k."""
    rng, (_, nr, _), group = np.random.default_rng(seed), spec.tile, spec.k_group
    cases = []
    for rows in range(1, 14):
        cols, k = 1 + (rows * 7) % (2 * nr + 1), 1 + (rows * 29) % (2 * group + 1)
        cases.append(
            Case(spec, codes_of(spec, (rows, k), rng), weights_of(spec, (cols, 1, k), rng), np.arange(rows)[None])
        )
    for _ in range(12):
        rows, cols, taps, pixels = (int(rng.integers(1, top)) for top in (31, 71, 6, 21))
        k = int(rng.integers(1, 201))
        gather = rng.integers(0, pixels, (taps, rows))
        cases.append(Case(spec, codes_of(spec, (pixels, k), rng), weights_of(spec, (cols, taps, k), rng), gather))
    k = spec.k_max if spec.k_max <= DEEP_K else 300 * group + 1
    top = 127 if spec.wgt == "s8" else 2 ** token_bits(spec.wgt) - 1
    largest = 1 if spec.act == "f32" else 2 ** token_bits(spec.act) - 1
    for code in (0, largest):
        for weight in (-top, top):
            codes = np.full((3, k), code, np.float32 if spec.act == "f32" else np.uint8)
            cases.append(Case(spec, codes, np.full((2, 1, k), weight, np.int8), np.arange(3)[None]))
    return cases


def build(
    specs: Sequence[KernelSpec], compiler: Compiler, flags: Sequence[str], folder: Path, *, portable: bool = False
) -> Path:
    """The program with the kernels of ``specs``, each file built for the features that it names.

    ``portable``: x86-64 kernels in plain C (``portable/immintrin.h``), for a processor without those features.
    """
    objects = []
    for path in sorted({spec.path for spec in specs}):
        source = CPU_FOLDER / Path(path).name
        features = tuple(dict.fromkeys(name for spec in specs if spec.path == path for name in spec.features))
        objects.append(folder / f"{source.stem}.o")
        isa = PORTABLE if portable else isa_flags(features)
        _call(compiler.path, *flags, *isa, "-c", str(source), "-o", str(objects[-1]))
    program = folder / "kernel_harness"
    kernels = "-DSONIQ_KERNELS=" + " ".join(f"X({spec.symbol})" for spec in specs)
    _call(compiler.path, *flags, kernels, f"-I{CPU_FOLDER}", str(SOURCE), *map(str, objects), "-o", str(program))
    return program


def check(program: Path, specs: Sequence[KernelSpec], cases: Sequence[Case], *, emulator: Sequence[str] = ()) -> None:
    """Run ``cases`` and hold their raw sums against the reference. ``specs`` are those of ``build``."""
    given, got = program.with_suffix(".cases"), program.with_suffix(".results")
    with given.open("wb") as file:
        for case in cases:
            (pixels, k), (taps, rows) = case.codes.shape, case.gather.shape
            head = (specs.index(case.spec), case.codes.itemsize, pixels, rows, case.weights.shape[0], taps, k)
            for array in (np.array(head, np.int64), case.codes, case.weights, case.gather.astype(np.int64)):
                file.write(array.tobytes())
    _call(*emulator, str(program), str(given), str(got))
    raw = np.fromfile(got, np.int32)
    for case in cases:
        shape = (case.gather.shape[1], case.weights.shape[0])
        sums, raw = np.split(raw, [shape[0] * shape[1]])
        sums = sums.reshape(shape)
        assert_raw_sums(
            case.spec, sums.view(np.float32) if case.spec.acc == "f32" else sums, case.codes, case.weights, case.gather
        )
    assert raw.size == 0


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-4000:]}"
