"""NEON kernels, cross-compiled and emulated: exact by the same contract. Their speed is not known here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_harness import build, check, contract_cases

from soniq_dse.kernels.catalog import catalog, instruction_set
from soniq_dse.native.compiler import cross_compiler

ARM = [spec for spec in catalog() if instruction_set(spec) == "aarch64"]
FILES = sorted({spec.path for spec in ARM})


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: Path(path).stem)
def test_kernels_hold_the_contract_under_emulation(
    path: str, tmp_path: Path, need_program: Callable[[str, str], str]
) -> None:
    need_program("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    emulator = need_program("qemu-aarch64", "qemu-user")
    specs = [spec for spec in ARM if spec.path == path]
    program = build(
        specs, cross_compiler("aarch64"), ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-static"), tmp_path
    )
    cases = [case for seed, spec in enumerate(specs) for case in contract_cases(spec, seed)]
    check(program, specs, cases, emulator=(emulator, "-cpu", "max"))


def test_the_levels_that_arm_processors_must_serve() -> None:
    served = {(spec.wgt, spec.act) for spec in ARM}
    assert {("z1", "z1"), ("z2", "z2"), ("z4", "u4"), ("z4", "u8"), ("s8", "u8")} <= served
    assert {("z2", "f32"), ("z4", "f32"), ("s8", "f32")} <= served
