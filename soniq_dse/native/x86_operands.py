"""Operands of x86-64 instructions as functions that read and write them."""

from __future__ import annotations

from collections.abc import Callable

from soniq_dse.native.disassembly import Code
from soniq_dse.native.x86_state import State

WIDTHS = {"BYTE": 8, "WORD": 16, "DWORD": 32, "QWORD": 64, "XMMWORD": 128, "YMMWORD": 256, "ZMMWORD": 512}
_NAMES = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")


def _register_names() -> dict[str, tuple[int, int, int]]:
    """Name -> (number, bits, shift)."""
    names: dict[str, tuple[int, int, int]] = {}
    for i, name in enumerate(_NAMES):
        names |= {"r" + name: (i, 64, 0), "e" + name: (i, 32, 0), name: (i, 16, 0)}
        names[name[0] + "l" if i < 4 else name + "l"] = (i, 8, 0)
        if i < 4:
            names[name[0] + "h"] = (i, 8, 8)
    for i in range(8, 16):
        names |= {f"r{i}{suffix}": (i, bits, 0) for suffix, bits in (("", 64), ("d", 32), ("w", 16), ("b", 8))}
    return names


REGISTERS = _register_names()


class Operands:
    """Those of one instruction; each function takes the address of its memory operand."""

    def __init__(self, state: State, code: Code) -> None:
        self.code, self.registers, self.memory = code, state.registers, state.memory
        self.bits = self._operand_bits()

    def _operand_bits(self) -> int:
        for operand in self.code.operands:
            if operand in REGISTERS:
                return REGISTERS[operand][1]
            width = WIDTHS.get(operand.split(" ")[0])
            if width:
                return width
        return 64

    def read(self, index: int, bits: int | None = None) -> Callable[[int], int]:
        """The value of an operand, unsigned; of memory and numbers without a width, ``bits`` of it."""
        operand, registers, read = self.code.operands[index], self.registers, self.memory.read
        if operand in REGISTERS:
            number, own, shift = REGISTERS[operand]
            mask = (1 << own) - 1
            if own == 64:
                return lambda address: registers[number]
            return lambda address: registers[number] >> shift & mask
        if "[" in operand:
            n_bytes = (WIDTHS.get(operand.split(" ")[0]) or bits or self.bits) // 8
            return lambda address: read(address, n_bytes)
        value = int(operand, 16) & ((1 << (bits or self.bits)) - 1)
        return lambda address: value

    def write(self, index: int = 0) -> Callable[[int, int], None]:
        """Sets an operand to the low bits of a value; 32 bits clear the upper half of a register."""
        operand, registers, write = self.code.operands[index], self.registers, self.memory.write
        if operand in REGISTERS:
            number, bits, shift = REGISTERS[operand]
            mask = (1 << bits) - 1
            if bits >= 32:

                def replace(address: int, value: int) -> None:
                    registers[number] = value & mask

                return replace

            def merge(address: int, value: int) -> None:
                registers[number] = registers[number] & ~(mask << shift) | (value & mask) << shift

            return merge
        n_bytes = (WIDTHS.get(operand.split(" ")[0]) or self.bits) // 8
        mask = (1 << 8 * n_bytes) - 1
        return lambda address, value: write(address, n_bytes, value & mask)
