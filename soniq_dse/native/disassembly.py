"""The hot loop of a compiled kernel, read back from its library by objdump.

The hot loop is, among the innermost loops of the kernel's function and of the local functions it calls, the one with
the most vector instructions per k. Its multiply-accumulates are not guessed from instruction counts: they are ``rows x
cols`` of the tile times the k elements by which the loop's weight pointer moves, and that must agree with how far its
activation pointer moves.
"""

from __future__ import annotations

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
    """Bodies of the loops of one function that hold no further loop: what a backward jump spans."""
    start = codes[0].address if codes else 0
    spans = {
        (code.target, code.address)
        for code in codes
        if _JUMP.match(code.mnemonic) and code.target is not None and start <= code.target < code.address
    }
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [[code for code in codes if first <= code.address <= last] for first, last in sorted(inner)]


def k_per_iteration(loop: list[Code], tile: TileShape) -> int | None:
    """k elements that one pass of ``loop`` consumes: by how far the pointer of its loads moves, in packed bytes per k.

    None where no two pointers agree, as in the loops of epilogues and tails.
    """
    moves = {_advance(code, loop) for code in loop if _loads(code)} - {0}
    by_weights = {Fraction(move) / tile.weight_bytes_per_k for move in moves}
    by_activations = {Fraction(move) / tile.activation_bytes_per_k for move in moves}
    agreed = {k for k in by_weights & by_activations if k > 0 and k.denominator == 1}
    return int(max(agreed)) if agreed else None


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
    found: list[tuple[int, int, list[Code]]] = []
    for codes in disassemble(library, symbol).values():
        for loop in innermost_loops(codes):
            k = k_per_iteration(loop, tile)
            if k is not None and (vectors := _vector_operations(loop)):
                # Loops over fewer rows (tails) move as far with fewer instructions: vectors per k tell the full tile.
                found.append((round(1000 * vectors / k), k, loop))
    if not found:
        raise UserError(f"{symbol}: expected a loop whose loads advance along k, got none; give macs_per_iteration")
    _, k, loop = max(found, key=lambda entry: entry[:2])
    return HotLoop(
        symbol=symbol,
        compiler=compiler,
        flags=flags,
        source_sha256=source_sha256,
        macs_per_iteration=macs_per_iteration or tile.rows * tile.cols * k,
        instructions=tuple(_record(code) for code in loop),
    )


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
        width_bits=_width_bits(code),
        loads=_loads(code),
        stores=_stores(code),
        text=code.text,
    )


def _width_bits(code: Code) -> int:
    # Masks (kmov, compares into k) count as scalar unless a vector register stands beside them.
    found = [bits for name, bits in _REGISTER_BITS.items() if any(name in operand for operand in code.operands)]
    return max(found, default=0)


def _memory_operand(code: Code) -> tuple[int, re.Match[str]] | None:
    if code.mnemonic.startswith(_NO_ACCESS):
        return None
    for index, operand in enumerate(code.operands):
        found = _MEMORY.search(operand)
        if found:
            return index, found
    return None


def _loads(code: Code) -> bool:
    memory = _memory_operand(code)
    return memory is not None and (memory[0] > 0 or not _STORE_ONLY.match(code.mnemonic))


def _stores(code: Code) -> bool:
    memory = _memory_operand(code)
    return (
        memory is not None
        and memory[0] == 0
        and bool(_STORE_ONLY.match(code.mnemonic) or _READ_MODIFY.match(code.mnemonic))
    )


def _vector_operations(loop: list[Code]) -> int:
    return sum(_width_bits(code) > 0 for code in loop)


def _advance(code: Code, loop: list[Code]) -> int:
    """Bytes by which the address of ``code``'s memory operand moves in one pass of ``loop``."""
    memory = _memory_operand(code)
    if memory is None:
        return 0
    total = 0
    for term in re.split(r"(?=[+-])", memory[1][2].replace(" ", "")):
        register, _, scale = term.lstrip("+").partition("*")
        total += sum(_increment(other, register) for other in loop) * int(scale or 1)
    return total


def _increment(code: Code, register: str) -> int:
    if not code.operands or code.operands[0] != register:
        return 0
    if code.mnemonic in ("inc", "dec"):
        return 1 if code.mnemonic == "inc" else -1
    if code.mnemonic in ("add", "sub"):
        step = _immediate(code.operands[1])
        return step if code.mnemonic == "add" else -step
    if code.mnemonic == "lea":
        found = re.fullmatch(rf"\[{register}([+-]0x[0-9a-f]+)\]", code.operands[1].replace(" ", ""))
        return int(found[1], 16) if found else 0
    return 0


def _immediate(operand: str) -> int:
    try:
        value = int(operand, 16)
    except ValueError:
        return 0
    return value - 2**64 if value >= 2**63 else value
