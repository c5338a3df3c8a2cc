"""The hot loop of a compiled kernel, read back from its library by objdump.

The hot loop is, among the innermost loops of the kernel's function and of the local functions it calls, the one with
the most vector instructions per k; functions that do several taps at once are left out. Its multiply-accumulates are
not guessed from instruction counts: they are ``rows x cols`` of the tile times the k elements by which the loop's
weight pointer moves, and that must agree with how far its activation pointer moves.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.records.cost import HotLoop, LoopInstruction

_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(.*?)\s*(?:#.*)?$")
_FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
_TARGET = re.compile(r"^([0-9a-f]+) <([^>+]+)(?:\+0x[0-9a-f]+)?>$")
_MEMORY = re.compile(r"(?:(\w+) (?:PTR|BCST) )?(?:\w\w:)?\[([^\]]+)\]")
_REGISTER_BITS = {"zmm": 512, "ymm": 256, "xmm": 128}
_STORE_ONLY = re.compile(r"^(v?mov|vpmov|vcompress|vpcompress|vextract|vpscatter|mov|set|vpextr|vcvtps2ph|vmovnt)")
_READ_MODIFY = re.compile(r"^(add|sub|inc|dec|neg|not|and|or|xor|sal|shl|shr|sar|xchg)")
_NO_ACCESS = ("lea", "nop", "prefetch")
_JOINED = "joined_tile"
"""In the name of a function that does several taps at once: its pointers tell those of one."""
_JUMP = re.compile(r"^(j[a-z]+|loop[a-z]*)$")


@dataclass(frozen=True)
class Code:
    """One instruction: ``target`` is the address a direct jump or call goes to, ``callee`` its function."""

    address: int
    mnemonic: str
    operands: tuple[str, ...]
    text: str
    target: int | None = None
    callee: str | None = None


@dataclass(frozen=True)
class TileShape:
    """What a full tile does: ``rows x cols`` outputs; packed bytes per k element of one row and of all its columns."""

    rows: int
    cols: int
    activation_bytes_per_k: Fraction
    weight_bytes_per_k: Fraction


def disassemble(library: Path, symbol: str) -> dict[str, list[Code]]:
    """Functions of an x86-64 library by name: ``symbol`` and every local function that it calls, directly or not.

    Raises:
        MissingCapabilityError: objdump is not there.
        UserError: the library has no such symbol.
    """
    objdump = shutil.which("objdump")
    if objdump is None:
        raise MissingCapabilityError(
            "objdump: expected it on PATH, got none; install binutils (Debian package binutils)"
        )
    command = [objdump, "-d", "-w", "--no-show-raw-insn", "-M", "intel", str(library)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    functions = _parse(said.stdout)
    if symbol not in functions:
        raise UserError(f"{library.name}: expected the function {symbol}, got {said.stderr.strip() or 'others only'}")
    reached, todo = {}, [symbol]
    while todo:
        name = todo.pop()
        if name in reached or name not in functions:
            continue
        reached[name] = functions[name]
        todo += [code.callee for code in functions[name] if code.callee and code.callee != name]
    return reached


def innermost_loops(codes: list[Code]) -> list[list[Code]]:
    """Bodies of the innermost loops of one function: what a backward jump spans, where no shorter span overlaps it.

    An outer loop may jump into the middle of its inner one (compilers rotate loops), so containing is not the test. A
    span with a return is no loop: cold code jumps back to the function's exit.
    """
    start = codes[0].address if codes else 0
    returns = [code.address for code in codes if code.mnemonic == "ret"]
    spans = {
        (code.target, code.address)
        for code in codes
        if _JUMP.match(code.mnemonic) and code.target is not None and start <= code.target < code.address
    }
    spans = {s for s in spans if not any(s[0] <= address <= s[1] for address in returns)}
    inner = [s for s in spans if not any(o != s and _overlap(s, o) and o[1] - o[0] <= s[1] - s[0] for o in spans)]
    return [[code for code in codes if first <= code.address <= last] for first, last in sorted(inner)]


def k_per_iteration(loop: list[Code], tile: TileShape) -> int | None:
    """k elements that one pass of ``loop`` consumes: by how far the pointers of its loads move, in packed bytes per k.

    None where no pointer to weights agrees with another one to activations, as in the loops of epilogues. Weights may
    have been spread to a byte each before the loop.
    """
    moves = {
        pointer: Fraction(_advance(pointer, loop)) for pointer in {_pointer(code) for code in loop if _loads(code)}
    }
    agreed = {
        moves[weights] / per_k
        for weights, activations in itertools.permutations(moves, 2)
        for per_k in {tile.weight_bytes_per_k, Fraction(tile.cols)}
        if moves[weights] * tile.activation_bytes_per_k == moves[activations] * per_k
    }
    found = [int(k) for k in agreed if k > 0 and k.denominator == 1]
    return max(found, default=None)


def hot_loop(
    library: Path,
    symbol: str,
    tile: TileShape,
    *,
    compiler: str,
    flags: tuple[str, ...],
    source_sha256: str,
    macs_per_iteration: int | None = None,
) -> HotLoop:
    """The hot loop of ``symbol``; ``macs_per_iteration`` overrides what its pointers say.

    Raises:
        UserError: no loop of the kernel can be understood.
        MissingCapabilityError: objdump is not there.
    """
    found: list[tuple[Fraction, int, list[Code]]] = []
    for name, codes in disassemble(library, symbol).items():
        for loop in innermost_loops([] if _JOINED in name else codes):
            k = k_per_iteration(loop, tile)
            if k is not None and (vectors := _vector_operations(loop)):
                # Loops over fewer rows (tails) move as far with fewer instructions: vectors per k tell the full tile.
                found.append((Fraction(vectors, k), k, loop))
    if not found:
        raise UserError(f"{symbol}: expected a loop whose loads advance along k, got none; give macs_per_iteration")
    _, k, loop = max(found, key=lambda entry: entry[0])
    return HotLoop(
        symbol=symbol,
        compiler=compiler,
        flags=flags,
        source_sha256=source_sha256,
        macs_per_iteration=macs_per_iteration or tile.rows * tile.cols * k,
        weight_bits=float(8 * tile.weight_bytes_per_k / tile.cols),
        instructions=tuple(_record(code) for code in loop),
    )


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _parse(listing: str) -> dict[str, list[Code]]:
    functions: dict[str, list[Code]] = {}
    codes: list[Code] = []
    for line in listing.splitlines():
        header = _FUNCTION.match(line)
        if header:
            codes = functions.setdefault(header[1], [])
            continue
        found = _LINE.match(line)
        if found and found[2]:
            codes.append(_code(int(found[1], 16), found[2]))
    return functions


def parse_line(line: str) -> Code:
    """``1129: mov rax,rcx`` -> its instruction."""
    address, _, text = line.partition(": ")
    return _code(int(address, 16), text)


def record_of(code: Code) -> LoopInstruction:
    """The instruction as records hold it."""
    return _record(code)


def _code(address: int, text: str) -> Code:
    mnemonic, _, rest = text.partition(" ")
    while mnemonic in ("rep", "repz", "repnz", "lock", "bnd", "notrack", "data16", "cs", "{vex}", "{evex}"):
        mnemonic, _, rest = rest.strip().partition(" ")
    rest = rest.strip()
    target = _TARGET.match(rest)
    if target:
        return Code(address, mnemonic, (), text, int(target[1], 16), target[2] if "+" not in rest else None)
    operands = tuple(part.strip() for part in re.split(r",(?![^\[]*\])", rest) if part.strip())
    return Code(address, mnemonic, operands, " ".join(text.split()))


def _record(code: Code) -> LoopInstruction:
    return LoopInstruction(
        mnemonic=code.mnemonic,
        operands=code.operands,
        width_bits=width_bits(code),
        loads=_loads(code),
        stores=_stores(code),
        text=code.text,
    )


def width_bits(code: Code) -> int:
    """The widest vector register among the operands; 0 for a scalar instruction."""
    # Masks (kmov, compares into k) count as scalar unless a vector register stands beside them.
    found = [bits for name, bits in _REGISTER_BITS.items() if any(name in operand for operand in code.operands)]
    return max(found, default=0)


def memory_operand(code: Code) -> tuple[int, re.Match[str]] | None:
    """(position, match) of the operand in memory: group 1 is its size by name, group 2 its address."""
    if code.mnemonic.startswith(_NO_ACCESS):
        return None
    for index, operand in enumerate(code.operands):
        found = _MEMORY.search(operand)
        if found:
            return index, found
    return None


def _loads(code: Code) -> bool:
    memory = memory_operand(code)
    return memory is not None and (memory[0] > 0 or not _STORE_ONLY.match(code.mnemonic))


def _stores(code: Code) -> bool:
    memory = memory_operand(code)
    return (
        memory is not None
        and memory[0] == 0
        and bool(_STORE_ONLY.match(code.mnemonic) or _READ_MODIFY.match(code.mnemonic))
    )


def _vector_operations(loop: list[Code]) -> int:
    return sum(width_bits(code) > 0 for code in loop)


Pointer = tuple[tuple[str, int], ...]
"""The registers of an address with their scales; displacements do not move."""


def _pointer(code: Code) -> Pointer:
    memory = memory_operand(code)
    return _terms(memory[1][2]) if memory else ()


def _terms(address: str) -> Pointer:
    terms = []
    for term in re.split(r"[+-]", address.replace(" ", "")):
        register, _, scale = term.partition("*")
        if not register.startswith("0x") and register != "rip":
            terms.append((register, int(scale or 1)))
    return tuple(terms)


def _advance(pointer: Pointer, loop: list[Code], depth: int = 0) -> int:
    """Bytes by which an address moves in one pass of ``loop``."""
    return sum(scale * _register_advance(register, loop, depth) for register, scale in pointer)


def _register_advance(register: str, loop: list[Code], depth: int) -> int:
    """How far a register moves in one pass: its increments, or those of what it is computed from in every pass."""
    if depth > 4:  # a cycle of copies: no induction variable
        return 0
    total, factor = 0, 1
    for code in loop:
        if not code.operands or code.operands[0] != register:
            continue
        source = code.operands[1] if len(code.operands) > 1 else ""
        if code.mnemonic in ("inc", "dec"):
            total += 1 if code.mnemonic == "inc" else -1
        elif code.mnemonic in ("add", "sub"):
            total += _immediate(source) if code.mnemonic == "add" else -_immediate(source)
        elif code.mnemonic in ("shl", "sal"):
            factor *= 2 ** _immediate(source)
        elif code.mnemonic == "mov" and re.fullmatch(r"r\w+", source):
            total += _register_advance(source, loop, depth + 1)
        elif code.mnemonic == "lea":
            terms = _terms(source.strip("[]"))
            displacement = re.search(r"([+-]0x[0-9a-f]+)\]$", source.replace(" ", ""))
            own = int(displacement[1], 16) if displacement and any(name == register for name, _ in terms) else 0
            total += own + _advance(tuple(term for term in terms if term[0] != register), loop, depth + 1)
    return total * factor


def _immediate(operand: str) -> int:
    try:
        value = int(operand, 16)
    except ValueError:
        return 0
    return value - 2**64 if value >= 2**63 else value
