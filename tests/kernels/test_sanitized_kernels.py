"""Every x86-64 kernel, with its packing, under the address and undefined-behaviour sanitizers.

What this machine cannot run is built from portable intrinsics: no kernel goes untested for want of a processor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_harness import build, check, contract_cases

from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.catalog import catalog, instruction_set, kernel, missing_features
from soniq_dse.native.compiler import host_compiler

HERE = [spec for spec in catalog() if not missing_features(spec, detect_host().features)]
PORTABLE = [spec for spec in catalog() if {"avx512f", "avxvnni"} & set(spec.features)]
QUICK = ("gemm_z1_z1_s32_8x64x80__avx512gfni_gfni", "gemm_z2_z1_s32_1x64x64__avx512vpopcntdq_popcount")
FLAGS = (
    "-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    # Left out, since they multiply the minutes that unrolled tiles take to compile: checks of the references that the
    # tiles' lambdas hold, and of arrays on the stack, which constants index. Heap and pages are what kernels can miss.
    "-fno-sanitize=null,object-size,pointer-overflow", "-fno-sanitize-address-use-after-scope", "--param=asan-stack=0",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", sorted({spec.path for spec in HERE}), ids=lambda path: Path(path).stem)
def test_no_sanitizer_complains(path: str, tmp_path: Path, need_program: Callable[[str, str], str]) -> None:
    need_program("g++", "g++")
    specs = [spec for spec in HERE if spec.path == path]
    program = build(specs, host_compiler(), FLAGS, tmp_path)
    check(program, specs, [case for seed, spec in enumerate(specs) for case in contract_cases(spec, seed)])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", sorted({spec.path for spec in PORTABLE}), ids=lambda path: Path(path).stem)
def test_the_contract_holds_with_portable_intrinsics(
    path: str, tmp_path: Path, need_header: Callable[[str, str], None]
) -> None:
    need_header("simde/x86/avx512.h", "libsimde-dev")
    specs = [spec for spec in PORTABLE if spec.path == path]
    program = build(specs, host_compiler(), FLAGS, tmp_path, portable=True)
    check(program, specs, [case for seed, spec in enumerate(specs) for case in contract_cases(spec, seed)])


@pytest.mark.parametrize("symbol", QUICK)
def test_some_kernels_hold_it_at_once(symbol: str, tmp_path: Path, need_header: Callable[[str, str], None]) -> None:
    need_header("simde/x86/avx512.h", "libsimde-dev")
    spec = kernel(symbol)
    flags = ("-std=c++17", "-O1", "-DSONIQ_SELECT", f"-DSONIQ_SELECT_{symbol}=,")
    check(build([spec], host_compiler(), flags, tmp_path, portable=True), [spec], contract_cases(spec, 0))


def test_every_x86_kernel_is_tested_on_every_machine() -> None:
    everywhere = {"avx2", "fma"}  # x86-64 machines without these skip with a reason
    for spec in catalog():
        if instruction_set(spec) == "x86_64":
            assert spec in PORTABLE or everywhere.issuperset(spec.features), spec.symbol
