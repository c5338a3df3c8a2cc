"""x86-64 instructions as functions of a machine's state: those that decide addresses and branches."""

from __future__ import annotations

import re
from collections.abc import Callable

from soniq_dse.errors import UserError
from soniq_dse.native.disassembly import Code, width_bits
from soniq_dse.native.x86_operands import REGISTERS, WIDTHS, Operands
from soniq_dse.native.x86_state import CONDITIONS, M64, State

Step = Callable[[int], "int | None"]
"""Executes one instruction, given the address of its memory operand; the position to go on at where it jumps."""
LARGEST_COPY_BYTES = 1 << 20
_PLAIN_MOVE = re.compile(r"^v?mov(dq[ua]\d*|[ua]p[sd]|d|q)$")


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


class Translator(Operands):
    """One instruction: ``goto`` gives the position of an address, ``following`` is that of the instruction behind."""

    def __init__(self, state: State, code: Code, following: int, goto: Callable[[int], int]) -> None:
        super().__init__(state, code)
        self.state, self.following, self.goto = state, following, goto

    def step(self) -> Step | None:
        """None where there is nothing to do but to go on."""
        code, mnemonic = self.code, self.code.mnemonic
        if width_bits(code) > 0 or mnemonic.startswith(("k", "v", "nop", "prefetch", "endbr", "xchg", "sfence", "cs")):
            return self._vector_move() if width_bits(code) > 0 else None
        special = getattr(self, f"_{mnemonic}", None)
        if special is not None:
            made: Step | None = special()
            return made
        if mnemonic in _BINARY:
            return self._binary(_BINARY[mnemonic])
        if mnemonic.startswith("j"):
            return self._jump_if(mnemonic[1:])
        if mnemonic.startswith("cmov"):
            return self._move_if(mnemonic[4:])
        if mnemonic.startswith("set"):
            return self._set_if(mnemonic[3:])
        return self._unknown

    def _unknown(self, address: int) -> int | None:
        raise UserError(f"{self.code.text}: expected an instruction that the emulator knows, got {self.code.mnemonic}")

    # -- arithmetic

    def _binary(self, compute: Callable[[int, int, int], tuple[int, bool]]) -> Step:
        """Two operands, the first one the target; ``compute`` gives the result and whether it subtracted."""
        state, bits = self.state, self.bits
        mask, left, right = (1 << bits) - 1, self.read(0), self._right()
        keep = self.code.mnemonic not in ("cmp", "test")
        write = self.write() if keep else None
        arithmetic = self.code.mnemonic in ("add", "inc", "sub", "dec", "cmp")

        def run(address: int) -> None:
            a, b = left(address), right(address)
            value, subtracted = compute(a, b, bits)
            value &= mask
            # Of a result that never carries or overflows, only its sign and whether it is zero remain.
            state.flags = (value, a, b, bits, subtracted) if arithmetic else (value, value, 0, bits, False)
            if write:
                write(address, value)

        return run

    def _right(self) -> Callable[[int], int]:
        if len(self.code.operands) < 2:
            return lambda address: 1
        return self.read(1)

    def _imul(self) -> Step:
        n = len(self.code.operands)
        if n == 1:
            return self._wide_multiply()
        left, right, write = self.read(0 if n == 2 else 1), self.read(n - 1), self.write()
        return lambda address: write(address, left(address) * right(address))

    def _wide_multiply(self) -> Step:
        registers, source, signed = self.registers, self.read(0), self.code.mnemonic == "imul"

        def run(address: int) -> None:
            a, b = registers[0], source(address)
            product = _signed(a, 64) * _signed(b, 64) if signed else a * b
            registers[0], registers[2] = product & M64, product >> 64 & M64

        return run

    _mul = _wide_multiply

    def _mulx(self) -> Step:
        registers, high, low, source = self.registers, self.write(0), self.write(1), self.read(2)

        def run(address: int) -> None:
            product = registers[2] * source(address)
            low(address, product)
            high(address, product >> 64)

        return run

    def _div(self) -> Step:
        registers, source, bits = self.registers, self.read(0), self.bits
        mask, signed = (1 << bits) - 1, self.code.mnemonic == "idiv"

        def run(address: int) -> None:
            whole, by = (registers[2] & mask) << bits | registers[0] & mask, source(address)
            if signed:
                whole, by = _signed(whole, 2 * bits), _signed(by, bits)
            quotient = abs(whole) // abs(by) * (1 if (whole < 0) == (by < 0) else -1) if by else 0
            registers[0], registers[2] = quotient & mask, (whole - quotient * by) & mask

        return run

    _idiv = _div

    def _lea(self) -> Step:
        registers, write = self.registers, self.write()
        terms = []
        displacement = 0
        inner = self.code.operands[1].split("[", 1)[1].rstrip("]").replace(" ", "")
        for sign, term in re.findall(r"([+-]?)([^+-]+)", inner):
            name, _, scale = term.partition("*")
            if name in REGISTERS:
                terms.append((REGISTERS[name][0], int(scale or 1)))
            elif name == "rip":
                displacement += self.following
            else:
                displacement += int(term, 16) * (-1 if sign == "-" else 1)
        return lambda address: write(address, sum(registers[r] * times for r, times in terms) + displacement & M64)

    def _mov(self) -> Step:
        read, write = self.read(1), self.write()
        return lambda address: write(address, read(address))

    _movabs = _movzx = _mov

    def _movsx(self) -> Step:
        source = self.code.operands[1]
        bits = REGISTERS[source][1] if source in REGISTERS else WIDTHS[source.split(" ")[0]]
        read, write = self.read(1, bits), self.write()
        return lambda address: write(address, _signed(read(address), bits))

    _movsxd = _movsx

    def _neg(self) -> Step:
        state, read, write, bits = self.state, self.read(0), self.write(), self.bits

        def run(address: int) -> None:
            b = read(address)
            value = -b & ((1 << bits) - 1)
            state.flags = (value, 0, b, bits, True)
            write(address, value)

        return run

    def _not(self) -> Step:
        read, write = self.read(0), self.write()
        return lambda address: write(address, ~read(address))

    def _shlx(self) -> Step:
        shift, bits = _SHIFTS[self.code.mnemonic[:3]], self.bits
        read, by, write = self.read(1), self.read(2), self.write()
        return lambda address: write(address, shift(read(address), by(address), bits)[0])

    _shrx = _sarx = _shlx

    def _pdep(self) -> Step:
        read, places, write = self.read(1), self.read(2), self.write()

        def run(address: int) -> None:
            value, mask, result = read(address), places(address), 0
            while mask:
                lowest = mask & -mask
                result |= lowest if value & 1 else 0
                value >>= 1
                mask ^= lowest
            write(address, result)

        return run

    def _bt(self) -> Step:
        state, read, by, bits = self.state, self.read(0), self.read(1), self.bits

        def run(address: int) -> None:
            carry = read(address) >> (by(address) % bits) & 1
            state.flags = (1, 0, carry, bits, True)

        return run

    def _cqo(self) -> Step:
        registers = self.registers

        def run(address: int) -> None:
            registers[2] = M64 if registers[0] >> 63 else 0

        return run

    def _cdq(self) -> Step:
        registers = self.registers

        def run(address: int) -> None:
            registers[2] = 0xFFFF_FFFF if registers[0] >> 31 & 1 else 0

        return run

    def _cdqe(self) -> Step:
        registers = self.registers

        def run(address: int) -> None:
            registers[0] = _signed(registers[0] & 0xFFFF_FFFF, 32) & M64

        return run

    # -- control

    def _move_if(self, suffix: str) -> Step:
        holds, read, write = self.state.condition(suffix), self.read(1), self.write()
        own = self.read(0)
        return lambda address: write(address, read(address) if holds() else own(address))

    def _set_if(self, suffix: str) -> Step:
        holds, write = self.state.condition(suffix), self.write()
        return lambda address: write(address, int(holds()))

    def _jump_if(self, suffix: str) -> Step:
        if suffix not in CONDITIONS or self.code.target is None:
            return self._unknown
        holds, goto, target = self.state.condition(suffix), self.goto, self.code.target
        return lambda address: goto(target) if holds() else None

    def _jmp(self) -> Step:
        goto, target = self.goto, self.code.target
        if target is not None:
            return lambda address: goto(target)
        read = self.read(0)
        return lambda address: goto(read(address))

    def _call(self) -> Step:
        goto, target, push = self.goto, self.code.target, self._pushing()
        following = self.following
        if self.code.callee and self.code.callee.endswith("@plt"):
            return self._library_call(self.code.callee.removesuffix("@plt"))
        read = self.read(0) if target is None else None

        def run(address: int) -> int:
            to = target if read is None else read(address)
            push(following)
            return goto(to if to is not None else 0)

        return run

    def _library_call(self, name: str) -> Step:
        """memcpy and memset, as far as they matter to pointers; their cost is not in the trace."""
        registers, memory = self.registers, self.memory

        def run(address: int) -> None:
            to, source, n = registers[7], registers[6], registers[2]
            if name == "memcpy" and n <= LARGEST_COPY_BYTES:
                memory.write(to, n, memory.read(source, n))
            registers[0] = to

        return run

    def _pushing(self) -> Callable[[int], None]:
        registers, write = self.registers, self.memory.write

        def push(value: int) -> None:
            registers[4] -= 8
            write(registers[4], 8, value)

        return push

    def _push(self) -> Step:
        push, read = self._pushing(), self.read(0)
        return lambda address: push(read(address) & M64)

    def _pop(self) -> Step:
        registers, read, write = self.registers, self.memory.read, self.write()

        def run(address: int) -> None:
            value = read(registers[4], 8)
            registers[4] += 8
            write(address, value)

        return run

    def _leave(self) -> Step:
        registers, read = self.registers, self.memory.read

        def run(address: int) -> None:
            registers[4] = registers[5] + 8
            registers[5] = read(registers[5], 8)

        return run

    def _ret(self) -> Step:
        registers, read, goto = self.registers, self.memory.read, self.goto

        def run(address: int) -> int:
            registers[4] += 8
            return goto(read(registers[4] - 8, 8))

        return run

    # -- vectors

    def _vector_move(self) -> Step | None:
        code, vectors, registers = self.code, self.state.vectors, self.registers
        read, write = self.memory.read, self.memory.write
        operands = [operand.split("{")[0] for operand in code.operands]
        names = ["v" + o[3:] if o[1:3] == "mm" else o for o in operands]
        if code.mnemonic == "vpextrq" and operands[0] in REGISTERS:
            number, shift = REGISTERS[operands[0]][0], 64 * int(operands[2], 16)

            def extract(address: int) -> None:
                registers[number] = vectors.get(names[1], 0) >> shift & M64

            return extract
        if code.mnemonic == "vpinsrq" and operands[2] in REGISTERS:
            number = REGISTERS[operands[2]][0]

            def insert(address: int) -> None:
                vectors[names[0]] = vectors.get(names[1], 0) & M64 | registers[number] << 64

            return insert
        if not _PLAIN_MOVE.match(code.mnemonic) or len(operands) != 2:
            return None
        n_bytes = {"q": 8, "d": 4}.get(code.mnemonic[4:], width_bits(code) // 8)
        mask = (1 << 8 * n_bytes) - 1
        target, source = names
        if "[" in target:
            return lambda address: write(address, n_bytes, vectors.get(source, 0) & mask)
        if target in REGISTERS:
            number = REGISTERS[target][0]

            def to_scalar(address: int) -> None:
                registers[number] = vectors.get(source, 0) & mask

            return to_scalar

        def to_vector(address: int) -> None:
            if "[" in source:
                vectors[target] = read(address, n_bytes)
            elif source in REGISTERS:
                vectors[target] = registers[REGISTERS[source][0]] & mask
            else:
                vectors[target] = vectors.get(source, 0) & mask

        return to_vector


def _arithmetic_right(a: int, b: int, bits: int) -> tuple[int, bool]:
    return _signed(a, bits) >> (b & (63 if bits == 64 else 31)), False


_SHIFTS: dict[str, Callable[[int, int, int], tuple[int, bool]]] = {
    "shl": lambda a, b, bits: (a << (b & (63 if bits == 64 else 31)), False),
    "shr": lambda a, b, bits: (a >> (b & (63 if bits == 64 else 31)), False),
    "sar": _arithmetic_right,
}
_BINARY: dict[str, Callable[[int, int, int], tuple[int, bool]]] = {
    "add": lambda a, b, bits: (a + b, False),
    "inc": lambda a, b, bits: (a + b, False),
    "sub": lambda a, b, bits: (a - b, True),
    "dec": lambda a, b, bits: (a - b, True),
    "cmp": lambda a, b, bits: (a - b, True),
    "test": lambda a, b, bits: (a & b, False),
    "and": lambda a, b, bits: (a & b, False),
    "or": lambda a, b, bits: (a | b, False),
    "xor": lambda a, b, bits: (a ^ b, False),
    "sal": _SHIFTS["shl"],
    **_SHIFTS,
}
