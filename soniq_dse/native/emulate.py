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
from soniq_dse.native.disassembly import Code, memory_operand, width_bits

_M64 = 2**64 - 1
_STACK_BYTES = 1 << 20
_ENDS = 0x7FFF_FFFF_0000_0000
"""The return address of the outermost call."""
_WIDTHS = {"BYTE": 8, "WORD": 16, "DWORD": 32, "QWORD": 64, "XMMWORD": 128, "YMMWORD": 256, "ZMMWORD": 512}
_NAMES = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_ARGUMENTS = (7, 6, 2, 1, 8, 9)
"""Registers of the first integer arguments (System V AMD64 ABI, section 3.2.3): rdi rsi rdx rcx r8 r9."""
_CONDITIONS = {
    "e": "z", "ne": "nz", "l": "l", "ge": "nl", "le": "le", "g": "nle", "b": "c", "ae": "nc", "be": "be", "a": "nbe",
    "s": "s", "ns": "ns", "z": "z", "nz": "nz", "nb": "nc", "c": "c", "nc": "nc", "nae": "c",
}  # fmt: skip
_PLAIN_MOVE = re.compile(r"^v?mov(dq[ua]\d*|[ua]p[sd]|d|q)$")


@dataclass(frozen=True)
class Trace:
    """What one call ran: ``path`` are positions in ``codes`` in order, ``addresses`` those of memory operands, or 0."""

    codes: Sequence[Code]
    path: list[int]
    addresses: list[int]


class Memory:
    """Buffers at multiples of 2**40 bytes; what lies outside reads as zero and swallows what is written."""

    def __init__(self, image: Sequence[tuple[int, bytes]] = ()) -> None:
        self._image = image
        self.image_reads: dict[int, bytes] = {}
        self._buffers: dict[int, bytearray] = {}
        self._placed = 16

    def place(self, n_bytes: int) -> int:
        """The address of a new buffer."""
        self._placed += 1
        self._buffers[self._placed] = bytearray(n_bytes)
        return self._placed << 40

    def forget(self, address: int) -> None:
        """Drop a buffer."""
        self._buffers.pop(address >> 40)

    def read(self, address: int, n_bytes: int) -> int:
        """The unsigned integer at ``address``."""
        if address >> 40 == 0:
            return self._read_image(address, n_bytes)
        buffer = self._buffers.get(address >> 40)
        if buffer is None:
            return 0
        first = address & 0xFF_FFFF_FFFF
        return int.from_bytes(buffer[first : first + n_bytes], "little")

    def _read_image(self, address: int, n_bytes: int) -> int:
        for start, segment in self._image:
            if start <= address < start + len(segment):
                self.image_reads[address] = data = segment[address - start : address - start + n_bytes]
                return int.from_bytes(data, "little")
        return 0

    def write(self, address: int, n_bytes: int, value: int) -> None:
        """Put an unsigned integer at ``address``."""
        buffer = self._buffers.get(address >> 40)
        if buffer is not None:
            first = address & 0xFF_FFFF_FFFF
            if first + n_bytes <= len(buffer):
                buffer[first : first + n_bytes] = value.to_bytes(n_bytes, "little")


Step = Callable[[int], "int | None"]
"""Executes one instruction, given the address of its memory operand; the position to go on at where it jumps."""


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
        self._registers = [0] * 16
        self._vectors: dict[str, int] = {}
        self._flags = (0, 0, 0, 64, True)  # result, left, right, bits, whether it was a subtraction
        self._addresses = [self._address_of(i) for i in range(len(self.codes))]
        self._steps: list[Step | None] = [self._first_met(i) for i in range(len(self.codes))]

    def call(self, name: str, arguments: Sequence[int], *, limit: int = 2_000_000) -> Trace:
        """The trace of ``name(*arguments)``; integers and pointers only.

        Raises:
            UserError: it runs more than ``limit`` instructions, or something that this module does not know.
        """
        registers = self._registers
        registers[4] = self._stack + _STACK_BYTES - 4096
        for i, value in enumerate(arguments[6:]):
            self.memory.write(registers[4] + 8 * i, 8, value & _M64)
        registers[4] -= 8
        self.memory.write(registers[4], 8, _ENDS)
        for register, value in zip(_ARGUMENTS, arguments, strict=False):
            registers[register] = value & _M64
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
        return self._registers[0]

    def _first_met(self, position: int) -> Step:
        """Translates an instruction when it is first run: most of a kernel's variants never are."""

        def run(address: int) -> int | None:
            step = self._steps[position] = _Translator(self, position, self.codes[position]).step()
            return step(address) if step else None

        return run

    def _address_of(self, position: int) -> Callable[[], int] | None:
        code = self.codes[position]
        found = memory_operand(code)
        if found is None:
            return None
        registers = self._registers
        base, displacement = [], 0
        for sign, term in re.findall(r"([+-]?)([^+-]+)", found[1][2].replace(" ", "")):
            name, _, scale = term.partition("*")
            if name == "rip":
                displacement += self.codes[position + 1].address if position + 1 < len(self.codes) else 0
            elif name in _REGISTERS:
                base.append((_REGISTERS[name][0], int(scale or 1)))
            else:
                displacement += int(term, 16) * (-1 if sign == "-" else 1)
        if len(base) == 1 and base[0][1] == 1:
            only = base[0][0]
            return lambda: (registers[only] + displacement) & _M64
        if len(base) == 2:
            (a, times_a), (b, times_b) = base
            return lambda: (registers[a] * times_a + registers[b] * times_b + displacement) & _M64
        return lambda: (sum(registers[r] * times for r, times in base) + displacement) & _M64

    def goto(self, address: int) -> int:
        """The position of an instruction; -1 for the end of the outermost call.

        Raises:
            UserError: no function that was read back has it.
        """
        if address == _ENDS:
            return -1
        if address not in self._at:
            raise UserError(f"compiled code: expected a jump into a known function, got one to {address:#x}")
        return self._at[address]

    def condition(self, name: str) -> Callable[[], bool]:
        """A test of the flags by its suffix (``ne``, ``le``, ...)."""
        kind = _CONDITIONS[name]

        def holds() -> bool:
            result, left, right, bits, subtracted = self._flags
            sign = result >> (bits - 1) & 1
            zero = result == 0
            if kind in ("z", "nz"):
                return zero == (kind == "z")
            if kind in ("s", "ns"):
                return bool(sign) == (kind == "s")
            carry = left < right if subtracted else result < left
            if kind in ("c", "nc"):
                return carry == (kind == "c")
            if kind in ("be", "nbe"):
                return (carry or zero) == (kind == "be")
            a, b = left >> (bits - 1) & 1, right >> (bits - 1) & 1
            overflow = sign != a and (a != b) == subtracted
            less = bool(sign) != overflow
            if kind in ("l", "nl"):
                return less == (kind == "l")
            return (less or zero) == (kind == "le")

        return holds


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


_REGISTERS = _register_names()


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


class _Translator:
    """One instruction as a function of the emulator's state."""

    def __init__(self, machine: Emulator, position: int, code: Code) -> None:
        self.machine, self.position, self.code = machine, position, code
        self.registers, self.memory = machine._registers, machine.memory
        self.bits = self._operand_bits()

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

    # -- operands

    def _operand_bits(self) -> int:
        for operand in self.code.operands:
            if operand in _REGISTERS:
                return _REGISTERS[operand][1]
            width = _WIDTHS.get(operand.split(" ")[0])
            if width:
                return width
        return 64

    def _read(self, index: int, bits: int | None = None) -> Callable[[int], int]:
        operand, registers, read = self.code.operands[index], self.registers, self.memory.read
        if operand in _REGISTERS:
            number, own, shift = _REGISTERS[operand]
            mask = (1 << own) - 1
            if own == 64:
                return lambda address: registers[number]
            return lambda address: registers[number] >> shift & mask
        if "[" in operand:
            n_bytes = (_WIDTHS.get(operand.split(" ")[0]) or bits or self.bits) // 8
            return lambda address: read(address, n_bytes)
        value = int(operand, 16) & ((1 << (bits or self.bits)) - 1)
        return lambda address: value

    def _write(self, index: int = 0) -> Callable[[int, int], None]:
        operand, registers, write = self.code.operands[index], self.registers, self.memory.write
        if operand in _REGISTERS:
            number, bits, shift = _REGISTERS[operand]
            mask = (1 << bits) - 1
            if bits >= 32:

                def replace(address: int, value: int) -> None:
                    registers[number] = value & mask

                return replace

            def merge(address: int, value: int) -> None:
                registers[number] = registers[number] & ~(mask << shift) | (value & mask) << shift

            return merge
        n_bytes = (_WIDTHS.get(operand.split(" ")[0]) or self.bits) // 8
        mask = (1 << 8 * n_bytes) - 1
        return lambda address, value: write(address, n_bytes, value & mask)

    # -- arithmetic

    def _binary(self, compute: Callable[[int, int, int], tuple[int, bool]]) -> Step:
        """Two operands, the first one the target; ``compute`` gives the result and whether it subtracted."""
        machine, bits = self.machine, self.bits
        mask, left, right = (1 << bits) - 1, self._read(0), self._right()
        keep = self.code.mnemonic not in ("cmp", "test")
        write = self._write() if keep else None
        arithmetic = self.code.mnemonic in ("add", "inc", "sub", "dec", "cmp")

        def run(address: int) -> None:
            a, b = left(address), right(address)
            value, subtracted = compute(a, b, bits)
            value &= mask
            # Of a result that never carries or overflows, only its sign and whether it is zero remain.
            machine._flags = (value, a, b, bits, subtracted) if arithmetic else (value, value, 0, bits, False)
            if write:
                write(address, value)

        return run

    def _right(self) -> Callable[[int], int]:
        if len(self.code.operands) < 2:
            return lambda address: 1
        return self._read(1)

    def _imul(self) -> Step:
        n = len(self.code.operands)
        if n == 1:
            return self._wide_multiply()
        left, right, write = self._read(0 if n == 2 else 1), self._read(n - 1), self._write()
        return lambda address: write(address, left(address) * right(address))

    def _wide_multiply(self) -> Step:
        registers, source, signed = self.registers, self._read(0), self.code.mnemonic == "imul"

        def run(address: int) -> None:
            a, b = registers[0], source(address)
            product = _signed(a, 64) * _signed(b, 64) if signed else a * b
            registers[0], registers[2] = product & _M64, product >> 64 & _M64

        return run

    _mul = _wide_multiply

    def _mulx(self) -> Step:
        registers, high, low, source = self.registers, self._write(0), self._write(1), self._read(2)

        def run(address: int) -> None:
            product = registers[2] * source(address)
            low(address, product)
            high(address, product >> 64)

        return run

    def _div(self) -> Step:
        registers, source, bits = self.registers, self._read(0), self.bits
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
        registers, write = self.registers, self._write()
        terms = []
        displacement = 0
        inner = self.code.operands[1].split("[", 1)[1].rstrip("]").replace(" ", "")
        for sign, term in re.findall(r"([+-]?)([^+-]+)", inner):
            name, _, scale = term.partition("*")
            if name in _REGISTERS:
                terms.append((_REGISTERS[name][0], int(scale or 1)))
            elif name == "rip":
                displacement += self.machine.codes[self.position + 1].address
            else:
                displacement += int(term, 16) * (-1 if sign == "-" else 1)
        return lambda address: write(address, sum(registers[r] * times for r, times in terms) + displacement & _M64)

    def _mov(self) -> Step:
        read, write = self._read(1), self._write()
        return lambda address: write(address, read(address))

    _movabs = _movzx = _mov

    def _movsx(self) -> Step:
        source = self.code.operands[1]
        bits = _REGISTERS[source][1] if source in _REGISTERS else _WIDTHS[source.split(" ")[0]]
        read, write = self._read(1, bits), self._write()
        return lambda address: write(address, _signed(read(address), bits))

    _movsxd = _movsx

    def _neg(self) -> Step:
        machine, read, write, bits = self.machine, self._read(0), self._write(), self.bits

        def run(address: int) -> None:
            b = read(address)
            value = -b & ((1 << bits) - 1)
            machine._flags = (value, 0, b, bits, True)
            write(address, value)

        return run

    def _not(self) -> Step:
        read, write = self._read(0), self._write()
        return lambda address: write(address, ~read(address))

    def _shlx(self) -> Step:
        shift, bits = _SHIFTS[self.code.mnemonic[:3]], self.bits
        read, by, write = self._read(1), self._read(2), self._write()
        return lambda address: write(address, shift(read(address), by(address), bits)[0])

    _shrx = _sarx = _shlx

    def _pdep(self) -> Step:
        read, places, write = self._read(1), self._read(2), self._write()

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
        machine, read, by, bits = self.machine, self._read(0), self._read(1), self.bits

        def run(address: int) -> None:
            carry = read(address) >> (by(address) % bits) & 1
            machine._flags = (1, 0, carry, bits, True)

        return run

    def _cqo(self) -> Step:
        registers = self.registers

        def run(address: int) -> None:
            registers[2] = _M64 if registers[0] >> 63 else 0

        return run

    def _cdq(self) -> Step:
        registers = self.registers

        def run(address: int) -> None:
            registers[2] = 0xFFFF_FFFF if registers[0] >> 31 & 1 else 0

        return run

    def _cdqe(self) -> Step:
        registers = self.registers

        def run(address: int) -> None:
            registers[0] = _signed(registers[0] & 0xFFFF_FFFF, 32) & _M64

        return run

    # -- control

    def _move_if(self, suffix: str) -> Step:
        holds, read, write = self.machine.condition(suffix), self._read(1), self._write()
        own = self._read(0)
        return lambda address: write(address, read(address) if holds() else own(address))

    def _set_if(self, suffix: str) -> Step:
        holds, write = self.machine.condition(suffix), self._write()
        return lambda address: write(address, int(holds()))

    def _jump_if(self, suffix: str) -> Step:
        if suffix not in _CONDITIONS or self.code.target is None:
            return self._unknown
        holds, goto, target = self.machine.condition(suffix), self.machine.goto, self.code.target
        return lambda address: goto(target) if holds() else None

    def _jmp(self) -> Step:
        goto, target = self.machine.goto, self.code.target
        if target is not None:
            return lambda address: goto(target)
        read = self._read(0)
        return lambda address: goto(read(address))

    def _call(self) -> Step:
        goto, target, push = self.machine.goto, self.code.target, self._pushing()
        following = self.machine.codes[self.position + 1].address
        if self.code.callee and self.code.callee.endswith("@plt"):
            return self._library_call(self.code.callee.removesuffix("@plt"))
        read = self._read(0) if target is None else None

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
            if name == "memcpy" and n <= _STACK_BYTES:
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
        push, read = self._pushing(), self._read(0)
        return lambda address: push(read(address) & _M64)

    def _pop(self) -> Step:
        registers, read, write = self.registers, self.memory.read, self._write()

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
        registers, read, goto = self.registers, self.memory.read, self.machine.goto

        def run(address: int) -> int:
            registers[4] += 8
            return goto(read(registers[4] - 8, 8))

        return run

    # -- vectors

    def _vector_move(self) -> Step | None:
        code, vectors, registers = self.code, self.machine._vectors, self.registers
        read, write = self.memory.read, self.memory.write
        operands = [operand.split("{")[0] for operand in code.operands]
        names = ["v" + o[3:] if o[1:3] == "mm" else o for o in operands]
        if code.mnemonic == "vpextrq" and operands[0] in _REGISTERS:
            number, shift = _REGISTERS[operands[0]][0], 64 * int(operands[2], 16)

            def extract(address: int) -> None:
                registers[number] = vectors.get(names[1], 0) >> shift & _M64

            return extract
        if code.mnemonic == "vpinsrq" and operands[2] in _REGISTERS:
            number = _REGISTERS[operands[2]][0]

            def insert(address: int) -> None:
                vectors[names[0]] = vectors.get(names[1], 0) & _M64 | registers[number] << 64

            return insert
        if not _PLAIN_MOVE.match(code.mnemonic) or len(operands) != 2:
            return None
        n_bytes = {"q": 8, "d": 4}.get(code.mnemonic[4:], width_bits(code) // 8)
        mask = (1 << 8 * n_bytes) - 1
        target, source = names
        if "[" in target:
            return lambda address: write(address, n_bytes, vectors.get(source, 0) & mask)
        if target in _REGISTERS:
            number = _REGISTERS[target][0]

            def to_scalar(address: int) -> None:
                registers[number] = vectors.get(source, 0) & mask

            return to_scalar

        def to_vector(address: int) -> None:
            if "[" in source:
                vectors[target] = read(address, n_bytes)
            elif source in _REGISTERS:
                vectors[target] = registers[_REGISTERS[source][0]] & mask
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
