"""Which registers an x86-64 instruction reads and writes, and the longest recurrence of a loop.

Operands are in Intel order, the destination first. Flags and masks' own dependences are left out: no kernel carries one
around its loop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from soniq_dse.records.cost import LoopInstruction

_REGISTER = re.compile(
    r"\b([xyz]mm\d+|k[0-7]|r\d+[dwb]?|[re]?(?:ax|bx|cx|dx|si|di|bp|sp)|[abcd][lh]|(?:si|di|bp|sp)l)\b"
)
_READS_TARGET = re.compile(
    r"^(vpdp|vfn?m(add|sub)|vpternlog|vperm[it]2|vpmadd52|vdp|add|adc|sub|sbb|and|or|xor|inc|dec|neg|not|sh[lr]|sa[lr]|"
    r"ro[lr]|cmov|bts|btr)"
)
_WRITES_NOTHING = re.compile(r"^(cmp|test|j[a-z]+|prefetch|nop|vptest$|vtest|endbr|vzero|push|ret|loop)")
_CLEARS = re.compile(r"^(v?p?xor|v?p?sub|vxorp)")


def name_of(register: str) -> str:
    """The register behind a name: ``zmm3``, ``xmm3`` are ``v3``; ``eax``, ``rax`` are ``ax``; ``r8d`` is ``r8``."""
    if register[1:3] == "mm":
        return "v" + register[3:]
    if register[0] == "r" and register[1].isdigit():
        return register.rstrip("dwb")
    plain = register.lstrip("re") if len(register) == 3 else register
    return plain[0] + "x" if len(plain) == 2 and plain[1] in "lh" else plain.removesuffix("l")


def registers_in(operand: str) -> list[str]:
    """The registers that an operand names, an address's too, each by ``name_of``."""
    return [name_of(register) for register in _REGISTER.findall(operand)]


def reads_and_writes(instruction: LoopInstruction) -> tuple[frozenset[str], frozenset[str]]:
    """Registers read (addresses included) and written."""
    named = [registers_in(operand) for operand in instruction.operands]
    if not named:
        return frozenset(), frozenset()
    mnemonic, target = instruction.mnemonic, instruction.operands[0]
    sources = [name for names in named[1:] for name in names]
    if "[" in target or _WRITES_NOTHING.match(mnemonic):
        return frozenset(named[0] + sources), frozenset()
    if _is_cleared(instruction):
        return frozenset(), frozenset(named[0][:1])
    written, masks = named[0][:1], named[0][1:]
    merges = bool(masks) and "{z}" not in target
    two_operand_multiply = mnemonic == "imul" and len(named) == 2
    if merges or two_operand_multiply or (_READS_TARGET.match(mnemonic) and not _has_own_target(instruction)):
        sources += written
    return frozenset(sources + masks), frozenset(written)


def longest_recurrence(instructions: Sequence[LoopInstruction], latencies: Sequence[float]) -> float:
    """Cycles per pass that the loop-carried dependences need: the maximum cycle mean over passes.

    A pass maps the times at which registers are ready to the times at which it leaves them ready: a matrix over
    (max, +). Its eigenvalue is the cycle mean (Baccelli et al., Synchronization and Linearity, 1992, theorem 3.23),
    here by Karp's formula.
    """
    accesses = [reads_and_writes(instruction) for instruction in instructions]
    carried = sorted(_live_in(accesses))
    if not carried:
        return 0.0
    index = {register: i for i, register in enumerate(carried)}
    never = np.full(len(carried), -np.inf)
    ready = {register: np.where(np.arange(len(carried)) == i, 0.0, -np.inf) for register, i in index.items()}
    for (reads, writes), latency in zip(accesses, latencies, strict=True):
        start = np.max([never, *(ready.get(register, never) for register in reads)], axis=0)
        for register in writes:
            ready[register] = start + latency
    return max(0.0, _max_cycle_mean(np.stack([ready[register] for register in carried])))


def _has_own_target(instruction: LoopInstruction) -> bool:
    """Three-operand forms of what otherwise changes its target (``vpandd`` is not ``and``; BMI ``shlx``)."""
    return instruction.mnemonic in ("shlx", "shrx", "sarx", "andn", "rorx")


def _is_cleared(instruction: LoopInstruction) -> bool:
    sources = instruction.operands[1:] if len(instruction.operands) > 2 else instruction.operands
    return bool(_CLEARS.match(instruction.mnemonic)) and len(sources) > 1 and len(set(sources)) == 1


def _live_in(accesses: Sequence[tuple[frozenset[str], frozenset[str]]]) -> set[str]:
    """Registers read before they are written, and written later in the pass."""
    written: set[str] = set()
    live: set[str] = set()
    for reads, writes in accesses:
        live |= reads - written
        written |= writes
    return live & written


def _max_cycle_mean(weights: np.ndarray) -> float:
    """Karp's formula; ``weights[i, j]`` is the length of the edge j -> i, -inf where there is none."""
    n = len(weights)
    walks = np.full((n + 1, n), -np.inf)
    walks[0] = 0.0  # as if a source led everywhere
    for length in range(n):
        walks[length + 1] = np.max(weights + walks[length], axis=1)
    finite = np.isfinite(walks[n])
    if not finite.any():
        return float("-inf")
    lengths = np.arange(n)[:, None]
    with np.errstate(invalid="ignore"):
        means = (walks[n][finite] - walks[:n, finite]) / (n - lengths)
    return float(np.max(np.min(means, axis=0)))
