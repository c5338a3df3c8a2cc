"""Loops found in listings of objdump, worked by hand."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from soniq_dse.errors import UserError
from soniq_dse.native import disassembly
from soniq_dse.native.compiler import build_library
from soniq_dse.native.disassembly import TileShape, disassemble, hot_loop, innermost_loops, k_per_iteration

# A tile of 2 rows x 16 columns: 64 bytes of weights (16 columns x 4 codes) and 4 bytes of each row per 4 k. The outer
# loop jumps into the middle of the inner one, as compilers do; the second loop stores an epilogue.
LISTING = """
0000000000001000 <kernel>:
    1000:\tmov    rcx,QWORD PTR [rdi]
    1004:\tadd    rax,0x40
    1008:\tvmovdqa64 zmm0,ZMMWORD PTR [rax]
    100c:\tvpdpbusd zmm1,zmm0,DWORD BCST [rcx+rdx*4]
    1010:\tvpdpbusd zmm2,zmm0,DWORD BCST [r8+rdx*4]
    1014:\tinc    rdx
    1018:\tcmp    rax,r9
    101c:\tjne    1004 <kernel+0x4>
    1020:\tvpaddd zmm3,zmm3,zmm1
    1024:\tdec    r10
    1028:\tjne    1008 <kernel+0x8>
    1030:\tvmovdqu32 ZMMWORD PTR [r11],zmm3
    1034:\tadd    r11,0x40
    1038:\tvpaddd zmm3,zmm4,ZMMWORD PTR [r12+r11*1]
    103c:\tcmp    r11,rsi
    1040:\tjb     1030 <kernel+0x30>
    1044:\tcall   2000 <tail>
    1048:\tret

0000000000002000 <tail>:
    2000:\tret
"""
TILE = TileShape(rows=2, cols=16, activation_bytes_per_k=Fraction(1), weight_bytes_per_k=Fraction(16))


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        stdout, stderr = LISTING, ""

    monkeypatch.setattr(disassembly.shutil, "which", lambda _: "objdump")
    monkeypatch.setattr(disassembly.subprocess, "run", lambda *_, **__: Done())


def test_functions_that_are_called_are_read_too(listing: None) -> None:
    assert set(disassemble(Path("kernel.so"), "kernel")) == {"kernel", "tail"}
    with pytest.raises(UserError, match="expected the function other"):
        disassemble(Path("kernel.so"), "other")


def test_innermost_loops_of_overlapping_spans(listing: None) -> None:
    loops = innermost_loops(disassemble(Path("kernel.so"), "kernel")["kernel"])
    assert [(loop[0].address, loop[-1].address) for loop in loops] == [(0x1004, 0x101C), (0x1030, 0x1040)]


def test_k_follows_from_two_pointers(listing: None) -> None:
    inner, epilogue = innermost_loops(disassemble(Path("kernel.so"), "kernel")["kernel"])
    assert k_per_iteration(inner, TILE) == 4  # 64 bytes / 16 = 4 bytes / 1
    assert k_per_iteration(epilogue, TILE) is None  # one pointer alone proves nothing
    spread = TileShape(2, 16, Fraction(1), Fraction(8))
    assert k_per_iteration(inner, spread) == 4  # packed at 4 bits, but a byte each in the loop
    denser = TileShape(2, 16, Fraction(1, 2), Fraction(16))
    assert k_per_iteration(inner, denser) is None  # 4 by the weights, 8 by the activations


def test_pointers_are_followed_through_copies_and_shifts() -> None:
    text = """
0000000000000000 <f>:
    0:\tadd    rdx,0x1
    4:\tmov    rbx,rdx
    8:\tshl    rbx,0x6
    c:\tvmovdqa64 zmm0,ZMMWORD PTR [r14+rbx*1-0x40]
   10:\tvpaddd zmm0,zmm0,ZMMWORD PTR [rax]
   14:\tlea    rax,[rax+0x4]
   18:\tjne    0 <f>
"""
    (loop,) = innermost_loops(disassembly._parse(text)["f"])
    assert k_per_iteration(loop, TILE) == 4


def test_hot_loop_counts_its_multiply_accumulates(listing: None) -> None:
    found = hot_loop(Path("kernel.so"), "kernel", TILE, compiler="c", flags=(), source_sha256="0" * 64)
    assert found.macs_per_iteration == 2 * 16 * 4
    first = found.instructions[1]
    assert (first.mnemonic, first.width_bits, first.loads, first.stores) == ("vmovdqa64", 512, True, False)
    assert [i.loads for i in found.instructions] == [False, True, True, True, False, False, False]
    assert found.instructions[2].operands == ("zmm1", "zmm0", "DWORD BCST [rcx+rdx*4]")
    given = hot_loop(
        Path("kernel.so"), "kernel", TILE, compiler="c", flags=(), source_sha256="0" * 64, macs_per_iteration=5
    )
    assert given.macs_per_iteration == 5


def test_stores_are_told_from_loads(listing: None) -> None:
    _, epilogue = innermost_loops(disassemble(Path("kernel.so"), "kernel")["kernel"])
    assert [(disassembly._loads(code), disassembly._stores(code)) for code in epilogue] == [
        (False, True), (False, False), (True, False), (False, False), (False, False),
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed (Debian package binutils)")
def test_a_real_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONIQ_DSE_CACHE", str(tmp_path))
    source = tmp_path / "sum.cpp"
    source.write_text(
        'extern "C" int sum(const int* a, long n) {\n  int s = 0;\n'
        "  for (long i = 0; i < n; ++i) s += a[i] * a[i];\n  return s;\n}\n"
    )
    functions = disassemble(build_library([source], flags=["-O1"]), "sum")
    assert len(innermost_loops(functions["sum"])) == 1
