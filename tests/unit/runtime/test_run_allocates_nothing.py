"""A run takes no memory from the system: counted by a library that stands before the C library's allocator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COUNTER = r"""
#include <stddef.h>
#include <atomic>
static std::atomic<long> taken{0};
extern "C" long allocations() { return taken.load(); }
extern "C" void* __libc_malloc(size_t);
extern "C" void* __libc_calloc(size_t, size_t);
extern "C" void* __libc_realloc(void*, size_t);
extern "C" void* __libc_memalign(size_t, size_t);
extern "C" void* malloc(size_t size) { ++taken; return __libc_malloc(size); }
extern "C" void* calloc(size_t n, size_t size) { ++taken; return __libc_calloc(n, size); }
extern "C" void* realloc(void* p, size_t size) { ++taken; return __libc_realloc(p, size); }
extern "C" void* memalign(size_t at, size_t size) { ++taken; return __libc_memalign(at, size); }
extern "C" void* aligned_alloc(size_t at, size_t size) { ++taken; return __libc_memalign(at, size); }
extern "C" int posix_memalign(void** p, size_t at, size_t size) {
  ++taken;
  *p = __libc_memalign(at, size);
  return *p ? 0 : 12;
}
"""
PROGRAM = """
import ctypes, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_threads import inputs, network

allocations = ctypes.CDLL(None).allocations
allocations.restype = ctypes.c_long
for palette in ("w1a1+w4a4", "w8a8"):
    packed = network(palette)
    for batch, threads in ((1, 1), (3, 2)):
        executor = packed.executor(batch, threads=threads)
        executor.set_input(inputs(packed, batch))
        executor.time_runs(1)
        before = allocations()
        executor.time_runs(1)
        one = allocations() - before
        executor.time_runs(300)
        many = allocations() - before - one
        print(palette, batch, threads, one, many)
        assert before > 1000, "the counter does not count"
        assert many <= one + 2, (one, many)  # Python's own around the call, not the runs'
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="needs Linux and g++")
def test_runs_allocate_nothing(tmp_path: Path) -> None:
    source, library = tmp_path / "counter.cpp", tmp_path / "counter.so"
    source.write_text(COUNTER)
    subprocess.run(["g++", "-O1", "-shared", "-fPIC", source, "-o", library], check=True)
    here = Path(__file__).parent
    path = os.pathsep.join([*sys.path, str(here.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, here],
        env={
            **os.environ,
            "LD_PRELOAD": str(library),
            "PYTHONPATH": path,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
