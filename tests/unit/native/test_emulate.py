"""The emulator against the processor: the same machine code, called both ways, returns the same integers."""

from __future__ import annotations

import ctypes
import platform
import re
from pathlib import Path

import pytest

from soniq_dse.errors import UserError
from soniq_dse.kernels.catalog import kernel
from soniq_dse.kernels.code import segments
from soniq_dse.kernels.library import build_kernel_library
from soniq_dse.native.compiler import build_library
from soniq_dse.native.disassembly import disassemble, memory_operand
from soniq_dse.native.emulate import Emulator

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 code")

SOURCE = r"""
#include <stdint.h>
extern "C" int64_t divide(int64_t a, int64_t b) { return a / b * 1000 + a % b; }
extern "C" int64_t shifts(int64_t a, int64_t b) {
  return (a << (b & 31)) ^ (a >> (b & 63)) ^ (int64_t)((uint64_t)a >> 3);
}
extern "C" int64_t narrow(int64_t a, int64_t b) { return (int8_t)a + (uint16_t)b * 3 - (int32_t)(a * b); }
extern "C" int64_t orders(int64_t a, int64_t b) {
  uint64_t x = a, y = b;
  return (a < b) + 2 * (a <= b) + 4 * (x < y) + 8 * (x <= y) + 16 * (a == b) + 32 * (a > 0) +
         64 * ((int32_t)a < (int32_t)b);
}
extern "C" int64_t largest(int64_t a, int64_t b) { return (a > b ? a : b) - (a < -b ? a : -b); }
__attribute__((noinline)) static int64_t helper(int64_t n) {
  int64_t s = 1;
  while (n > 0) { s = s * 3 + n; n -= 2; }
  return s;
}
extern "C" int64_t loops(int64_t a, int64_t b) {
  volatile int64_t kept[8] = {};
  for (int64_t i = 0; i < (a & 15); i++) for (int64_t j = i; j < (b & 7); j++) kept[(i + j) & 7] += helper(j) - i;
  int64_t s = 0;
  for (int i = 0; i < 8; i++) s = s * 31 + kept[i];
  return s;
}
extern "C" int64_t constants(int64_t a, int64_t b) { return (a + 6) / 7 + (uint64_t)b / 10 + a / 64 * b; }
"""
VALUES = (0, 1, -1, 2, 7, 13, 100, -100, 255, 4096, -12345, 2**31 - 1, -(2**31), 2**31, 2**40 + 17, -(2**45), 2**62)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("emulated") / "functions.cpp"
    source.write_text(SOURCE)
    return build_library([source])


@pytest.mark.parametrize("name", re.findall(r'extern "C" int64_t (\w+)', SOURCE))
def test_returns_what_the_processor_returns(library: Path, name: str) -> None:
    native = getattr(ctypes.CDLL(str(library)), name)
    native.restype, native.argtypes = ctypes.c_int64, [ctypes.c_int64, ctypes.c_int64]
    emulator = Emulator(disassemble(library, name))
    for a in VALUES:
        for b in VALUES:
            if name == "divide" and b == 0:
                continue
            emulator.call(name, (a, b))
            assert ctypes.c_int64(emulator.result).value == native(a, b), (name, a, b)


@pytest.mark.parametrize(
    "symbol", ["gemm_z1_z1_s32_8x32x4__avx2_shuffle", "gemm_u4_z4_s32_6x16x4__avx2_maddubs",
               "gemm_z1_z1_s32_12x16x32__avx512vpopcntdq_popcount"]
)  # fmt: skip
def test_a_kernel_writes_every_output_and_reads_every_weight(symbol: str) -> None:
    """Whatever vectors it is written for: 11 rows of two panels, two taps."""
    spec = kernel(symbol)
    rows, cols, taps, k = 11, 2 * spec.tile[1], 2, 4 * spec.k_group
    library = build_kernel_library(spec)
    emulator = Emulator(disassemble(library, symbol), segments(library.read_bytes()))
    pointers, acc = emulator.memory.place(8 * rows * taps), emulator.memory.place(4 * rows * cols)
    for i in range(rows * taps):
        emulator.memory.write(pointers + 8 * i, 8, 0x7000_0000_0000_0000 + (i << 20))
    weights = 0x7100_0000_0000_0000
    trace = emulator.call(symbol, (rows, cols, taps, k, pointers, rows, weights, acc, cols))
    written, read_rows = set(), set()
    for position, address in zip(trace.path, trace.addresses, strict=True):
        operand = memory_operand(trace.codes[position])
        if operand and operand[0] == 0 and acc <= address < acc + 4 * rows * cols:
            width = {"ZMMWORD": 64, "YMMWORD": 32, "XMMWORD": 16}[trace.codes[position].operands[0].split(" ")[0]]
            written |= set(range(address, address + width, 4))
        if address >> 48 == 0x7000:
            read_rows.add((address & 0xFFFF_FFFF) >> 20)
    assert written == set(range(acc, acc + 4 * rows * cols, 4))
    assert read_rows == set(range(rows * taps))


def test_what_is_unknown_is_named() -> None:
    from soniq_dse.native.disassembly import Code

    codes = [Code(16, "cpuid", (), "cpuid"), Code(18, "ret", (), "ret")]
    with pytest.raises(UserError, match="cpuid: expected an instruction that the emulator knows"):
        Emulator({"f": codes}).call("f", ())


def test_a_call_without_end_is_stopped() -> None:
    from soniq_dse.native.disassembly import Code

    codes = [Code(16, "jmp", (), "jmp 10 <f>", target=16), Code(18, "ret", (), "ret")]
    with pytest.raises(UserError, match="at most 1000 instructions"):
        Emulator({"f": codes}).call("f", (), limit=1000)
