"""Every kernel that this machine can run, with its packing, under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_harness import build, check, contract_cases

from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.catalog import catalog, missing_features
from soniq_dse.native.compiler import host_compiler

HERE = [spec for spec in catalog() if not missing_features(spec, detect_host().features)]
FLAGS = (
    "-std=c++17", "-O1", "-g1", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    # Left out, since they multiply the minutes that unrolled tiles take to compile: checks of the references that the
    # tiles' lambdas hold, and of arrays on the stack, which constants index. Heap and pages are what kernels can miss.
    "-fno-sanitize=null,object-size,pointer-overflow", "-fno-sanitize-address-use-after-scope", "--param=asan-stack=0",
    "--param=asan-instrumentation-with-call-threshold=0",  # checks as calls: inline, they are most of what is compiled
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", sorted({spec.path for spec in HERE}), ids=lambda path: Path(path).stem)
def test_no_sanitizer_complains(path: str, tmp_path: Path, need_program: Callable[[str, str], str]) -> None:
    need_program("g++", "g++")
    specs = [spec for spec in HERE if spec.path == path]
    program = build(specs, host_compiler(), FLAGS, tmp_path)
    check(program, specs, [case for seed, spec in enumerate(specs) for case in contract_cases(spec, seed)])
