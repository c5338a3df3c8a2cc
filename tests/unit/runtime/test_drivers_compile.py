"""The drivers compile with clang, which is the only compiler on some machines."""

from __future__ import annotations

import pytest

from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.catalog import CPU_FOLDER
from soniq_dse.native.compiler import build_library, find_compiler
from soniq_dse.runtime.executor import DRIVER_SOURCES, driver_flags


@pytest.mark.slow
def test_clang_compiles_the_drivers() -> None:
    compiler = next(filter(None, map(find_compiler, ("clang++", "clang++-19"))), None)
    if compiler is None:
        pytest.skip("needs clang++")
    flags = driver_flags(detect_host().features)
    assert build_library(DRIVER_SOURCES, flags=flags, include=[CPU_FOLDER], compiler=compiler).exists()
