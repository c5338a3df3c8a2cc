"""Run the scalar part of compiled x86-64 code: which path a call takes, and which memory each instruction touches.

Addresses and branches of our kernels follow from sizes and pointers alone, never from what vectors compute, so vector
arithmetic is skipped: vector registers only carry what moves put there (pointers that a compiler keeps in them). No
instruction set is needed to run this, and the path is that of the machine code itself, whatever compiler made it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from soniq_dse.errors import UserError
from soniq_dse.native.disassembly import Code, memory_operand
from soniq_dse.native.x86_operands import REGISTERS
from soniq_dse.native.x86_state import M64, Memory, State
from soniq_dse.native.x86_steps import Step, Translator

_STACK_BYTES = 1 << 20
_ENDS = 0x7FFF_FFFF_0000_0000
"""The return address of the outermost call."""
_ARGUMENTS = (7, 6, 2, 1, 8, 9)
"""Registers of the first integer arguments (System V AMD64 ABI, section 3.2.3): rdi rsi rdx rcx r8 r9."""


@dataclass(frozen=True)
class Trace:
    """What one call ran: ``path`` are positions in ``codes`` in order, ``addresses`` those of memory operands, or 0."""

    codes: Sequence[Code]
    path: list[int]
    addresses: list[int]


class Emulator:
    """Functions of one library, ready to be called again and again.

    Args:
        functions: from ``disassemble``.
        image: (address, bytes) of the library, for what scalar code reads of it (jump tables).
    """

    def __init__(self, functions: Mapping[str, Sequence[Code]], image: Sequence[tuple[int, bytes]] = ()) -> None:
        self.codes = [code for codes in functions.values() for code in codes]
        self._entry = {name: codes[0].address for name, codes in functions.items() if codes}
        self._at = {code.address: i for i, code in enumerate(self.codes)}
        self.memory = Memory(image)
        self._stack = self.memory.place(_STACK_BYTES)
        self._state = State(self.memory)
        self._addresses = [self._address_of(i) for i in range(len(self.codes))]
        self._steps: list[Step | None] = [self._first_met(i) for i in range(len(self.codes))]

    def call(self, name: str, arguments: Sequence[int], *, limit: int = 2_000_000) -> Trace:
        """The trace of ``name(*arguments)``; integers and pointers only.

        Raises:
            UserError: it runs more than ``limit`` instructions, or something that this module does not know.
        """
        registers = self._state.registers
        registers[4] = self._stack + _STACK_BYTES - 4096
        for i, value in enumerate(arguments[6:]):
            self.memory.write(registers[4] + 8 * i, 8, value & M64)
        registers[4] -= 8
        self.memory.write(registers[4], 8, _ENDS)
        for register, value in zip(_ARGUMENTS, arguments, strict=False):
            registers[register] = value & M64
        path: list[int] = []
        touched: list[int] = []
        steps, addresses, i = self._steps, self._addresses, self._at[self._entry[name]]
        while i >= 0:
            path.append(i)
            find, step = addresses[i], steps[i]
            address = find() if find else 0
            touched.append(address)
            following = step(address) if step else None
            i = i + 1 if following is None else following
            if len(path) > limit:
                raise UserError(f"{name}: expected at most {limit} instructions a call, got more")
        return Trace(self.codes, path, touched)

    @property
    def result(self) -> int:
        """What the last call returned: rax, unsigned."""
        return self._state.registers[0]

    def _first_met(self, position: int) -> Step:
        """Translates an instruction when it is first run: most of a kernel's variants never are."""

        def run(address: int) -> int | None:
            translator = Translator(self._state, self.codes[position], self._following(position), self._goto)
            step = self._steps[position] = translator.step()
            return step(address) if step else None

        return run

    def _following(self, position: int) -> int:
        """The address behind an instruction; 0 behind the last."""
        return self.codes[position + 1].address if position + 1 < len(self.codes) else 0

    def _address_of(self, position: int) -> Callable[[], int] | None:
        code = self.codes[position]
        found = memory_operand(code)
        if found is None:
            return None
        registers = self._state.registers
        base, displacement = [], 0
        for sign, term in re.findall(r"([+-]?)([^+-]+)", found[1][2].replace(" ", "")):
            name, _, scale = term.partition("*")
            if name == "rip":
                displacement += self._following(position)
            elif name in REGISTERS:
                base.append((REGISTERS[name][0], int(scale or 1)))
            else:
                displacement += int(term, 16) * (-1 if sign == "-" else 1)
        if len(base) == 1 and base[0][1] == 1:
            only = base[0][0]
            return lambda: (registers[only] + displacement) & M64
        if len(base) == 2:
            (a, times_a), (b, times_b) = base
            return lambda: (registers[a] * times_a + registers[b] * times_b + displacement) & M64
        return lambda: (sum(registers[r] * times for r, times in base) + displacement) & M64

    def _goto(self, address: int) -> int:
        """The position of an instruction; -1 for the end of the outermost call.

        Raises:
            UserError: no function that was read back has it.
        """
        if address == _ENDS:
            return -1
        if address not in self._at:
            raise UserError(f"compiled code: expected a jump into a known function, got one to {address:#x}")
        return self._at[address]
