"""The drivers compile with clang, which is the only compiler on some machines."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.catalog import CPU_FOLDER
from soniq_dse.native.compiler import build_library, find_compiler
from soniq_dse.runtime.executor import DRIVER_SOURCES, driver_flags


@pytest.mark.slow
def test_clang_compiles_the_drivers(need_program: Callable[[str, str], str]) -> None:
    need_program("clang++-19", "clang-19")
    compiler = find_compiler("clang++-19")
    assert compiler is not None
    flags = driver_flags(detect_host().features)
    assert build_library(DRIVER_SOURCES, flags=flags, include=[CPU_FOLDER], compiler=compiler).exists()
