"""AVX-512 and AVX-VNNI kernels built from portable intrinsics: exact by the same contract, on every machine.

No x86-64 kernel goes untested for want of a processor. Buffers end at pages that cannot be touched; the smallest tile
of each file also runs under the sanitizers, which take ten times as long to compile. Kernels that this processor runs
itself are held to the contract by ``test_kernel_contract.py`` and ``test_sanitized_kernels.py``: of a file with none
but these, the smallest tile stands for all, and ``SONIQ_DSE_TESTS_PORTABLE=1`` asks for the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from kernel_harness import build, check, contract_cases
from test_sanitized_kernels import FLAGS as SANITIZED

from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.catalog import catalog, instruction_set, kernel, missing_features
from soniq_dse.native.compiler import host_compiler
from soniq_dse.records.cost import KernelSpec

X86 = [spec for spec in catalog() if instruction_set(spec) == "x86_64"]
PORTABLE = [spec for spec in X86 if {"avx512f", "avxvnni"} & set(spec.features)]
FILES = sorted({spec.path for spec in PORTABLE})
FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off")
QUICK = ("gemm_z1_z1_s32_8x64x80__avx512gfni_gfni", "gemm_z2_z1_s32_1x64x64__avx512vpopcntdq_popcount")


@pytest.fixture(autouse=True)
def simde(need_header: Callable[[str, str], None]) -> None:
    need_header("simde/x86/avx512.h", "libsimde-dev")


def hold(specs: Sequence[KernelSpec], flags: Sequence[str], folder: Path) -> None:
    program = build(specs, host_compiler(), flags, folder, portable=True)
    check(program, specs, [case for seed, spec in enumerate(specs) for case in contract_cases(spec, seed)])


def only(spec: KernelSpec) -> tuple[str, str]:
    return "-DSONIQ_SELECT", f"-DSONIQ_SELECT_{spec.symbol}=,"


def smallest_tile(path: str) -> KernelSpec:
    tiles = [spec for spec in PORTABLE if spec.path == path and spec.tile[0] > 1]
    return min(tiles, key=lambda spec: spec.tile[0] * spec.tile[1])


def runs_here(path: str) -> bool:
    if os.environ.get("SONIQ_DSE_TESTS_PORTABLE") == "1":
        return False
    features = detect_host().features
    return not any(missing_features(spec, features) for spec in PORTABLE if spec.path == path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", FILES, ids=lambda path: Path(path).stem)
def test_every_kernel_holds_the_contract(path: str, tmp_path: Path) -> None:
    if runs_here(path):
        spec = smallest_tile(path)
        hold([spec], (*FLAGS, *only(spec)), tmp_path)
    else:
        hold([spec for spec in PORTABLE if spec.path == path], FLAGS, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", [path for path in FILES if not runs_here(path)], ids=lambda path: Path(path).stem)
def test_no_sanitizer_complains_of_the_smallest_tile(path: str, tmp_path: Path) -> None:
    spec = smallest_tile(path)
    hold([spec], (*SANITIZED, *only(spec)), tmp_path)


@pytest.mark.parametrize("symbol", QUICK)
def test_some_kernels_hold_it_at_once(symbol: str, tmp_path: Path) -> None:
    spec = kernel(symbol)
    hold([spec], (*FLAGS, *only(spec)), tmp_path)


def test_no_kernel_is_left_to_machines_that_have_its_features() -> None:
    common = {"avx2", "fma"}  # what x86-64 machines of the last ten years have
    assert [spec.symbol for spec in X86 if spec not in PORTABLE and not common.issuperset(spec.features)] == []
