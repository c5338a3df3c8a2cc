"""The drivers under sanitizers, on random networks with threads: no access out of bounds, no race."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("sanitized_networks.py")
NETWORKS = 16
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sanitizer", RUNTIMES)
def test_no_sanitizer_complains(sanitizer: str, need_program: Callable[[str, str], str]) -> None:
    compiler = need_program("g++", "g++")
    library = _output(compiler, f"-print-file-name={RUNTIMES[sanitizer]}")
    if not Path(library).is_absolute():
        pytest.skip(f"g++ has no {RUNTIMES[sanitizer]}")
    options = {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
    # The threads of numpy's BLAS, which computes what is expected, are not built with the sanitizer.
    environment = {**os.environ, **options, "LD_PRELOAD": library, "OPENBLAS_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, PROGRAM, sanitizer, str(NETWORKS)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert f"{NETWORKS} networks" in found.stdout


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
