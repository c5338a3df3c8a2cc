"""Every CUDA kernel, run on the CPU, under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = ["tests/kernels/test_cuda_kernels.py", "tests/kernels/test_cuda_layers.py"]
TESTS += ["tests/kernels/test_cuda_networks.py", "-m", "not slow"]
FLAGS = "-g -fsanitize=address,undefined -fno-sanitize-recover=all"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_sanitizer_complains(need_program: Callable[[str, str], str], repository: Path) -> None:
    """Shared memory lies in static arrays and operands in arrays of their own, so that one past the end is seen."""
    need_program("g++", "g++")
    asan = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            *TESTS,
        ],
        capture_output=True,
        text=True,
        cwd=repository,
        env=os.environ
        | {
            "LD_PRELOAD": asan.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0",
            "SONIQ_TEST_FLAGS": FLAGS,
        },
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "passed" in done.stdout
