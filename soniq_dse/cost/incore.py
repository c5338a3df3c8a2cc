"""The bound of ports, issue width and recurrences: what a loop takes at best with all data in the nearest cache.

Ports by the best assignment (``hardware/ports.py``); loads and stores hold theirs, a memory operand adds a load. Moves
between registers and zeroing leave no micro-operation; a compare before a branch is one with it. A vector instruction
that the descriptor does not know is refused by name; scalar bookkeeping takes the figures of its class, and the
result says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from soniq_dse.cost import Base, LoopCost
from soniq_dse.cost.registers import longest_recurrence
from soniq_dse.errors import UserError, nearest
from soniq_dse.hardware.ports import evenly_spread, port_bound, port_loads, role_of
from soniq_dse.records.cost import Bound, HotLoop, LoopInstruction
from soniq_dse.records.hardware import HardwareModel, InstructionTiming, MicroOp

_MOVE = re.compile(r"^(v?mov(dq[ua]|[ua]p)[sd]?\d*|v?lddqu|mov|movabs|vp?broadcast\w+)$")
_REGISTER_MOVE = re.compile(r"^(v?mov(dq[ua]|[ua]p)[sd]?\d*|mov)$")
_BROADCAST = re.compile(r"^vp?broadcast")
_ZEROING = re.compile(r"^(v?p?xor[dq]?|vxorp[sd])$")
_FREE = re.compile(r"^(nop|endbr|vzero)")
_JUMP = re.compile(r"^(j[a-z]+|loop\w*)$")
_FUSES = re.compile(r"^(cmp|test|add|sub|inc|dec|and)$")
# The three forms of a fused multiply-add differ in the order of their operands alone; descriptors list one.
_FMA_FORM = re.compile(r"^(vfn?m(?:add|sub))(?:132|213)(\w+)$")
# A scalar instruction that the descriptor does not list takes the figures of the first listed one of its class.
_CLASSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (_JUMP, "jcc"),
    (re.compile(r"^(cmp|test|bt)$"), "cmp"),
    (re.compile(r"^(movzx|movsxd?|movabs|cmov\w+|set\w+|xchg|cdqe?|cqo)$"), "mov"),
    (re.compile(r"^lea$"), "lea"),
    (re.compile(r"^(imul|mul\w*)$"), "imul"),
    (re.compile(r"."), "add"),
)


@dataclass(frozen=True)
class _Use:
    """What one instruction asks of the core: issue slots, timings that hold ports, latency, assumed or not."""

    slots: int
    timings: tuple[InstructionTiming, ...]
    latency_cycles: float
    assumed: bool = False


class InCore(Base):
    """Ports, issue width, recurrences: the largest of the three."""

    def loop_cost(self, loop: HotLoop, hw: HardwareModel) -> LoopCost:
        """The bound of one pass; it names which of the three holds."""
        fused = _fused(loop.instructions)
        uses = [
            _Use(0, (), 1.0) if i in fused else _use(hw, loop.symbol, ins) for i, ins in enumerate(loop.instructions)
        ]
        loads = port_loads((timing, 1.0) for use in uses for timing in use.timings)
        ports = port_bound(loads)
        issue = sum(use.slots for use in uses) / hw.issue_width.value
        latency = longest_recurrence(loop.instructions, [use.latency_cycles for use in uses])
        named: list[tuple[float, Bound, str]] = [
            (ports.cycles, _bound_of(role_of(hw, ports)), ports.text),
            (issue, "issue", f"issue width {hw.issue_width.value:g}"),
            (latency, "latency", "the longest recurrence"),
        ]
        cycles, bound, text = max(named, key=lambda entry: entry[0])
        assumed = sorted({ins.mnemonic for ins, use in zip(loop.instructions, uses, strict=True) if use.assumed})
        contended = max(cycles, evenly_spread(loads).cycles)
        return LoopCost(cycles, contended, bound, text, latency, tuple(assumed))


def _bound_of(role: str) -> Bound:
    if role == "load":
        return "load"
    return "store" if role == "store" else "port"


def _fused(instructions: Iterable[LoopInstruction]) -> frozenset[int]:
    """Positions of compares and counters that run as one with the branch behind them."""
    listed = list(instructions)
    return frozenset(
        i
        for i, ins in enumerate(listed[:-1])
        if _FUSES.match(ins.mnemonic) and _JUMP.match(listed[i + 1].mnemonic) and not ins.loads and not ins.stores
    )


def _use(hw: HardwareModel, symbol: str, ins: LoopInstruction) -> _Use:
    if _FREE.match(ins.mnemonic):
        return _Use(1, (), 0.0)
    if ins.mnemonic.startswith("prefetch"):
        return _Use(1, (_timing(hw, symbol, "load", 0),), 0.0)
    if ins.loads and not ins.stores and _MOVE.match(ins.mnemonic):
        load = "load_broadcast" if _BROADCAST.match(ins.mnemonic) else "load"
        return _Use(1, (_timing(hw, symbol, load, ins.width_bits),), _load_latency(hw))
    if ins.stores and not ins.loads and _MOVE.match(ins.mnemonic):
        return _Use(1, (_timing(hw, symbol, "store", ins.width_bits),), 0.0)
    if _leaves_no_operation(ins):
        return _Use(1, (), 0.0)
    timing, assumed = _operation(hw, symbol, ins)
    memory = []
    if ins.loads:
        broadcast = "BCST" in ins.text or "{1to" in ins.text
        memory.append(_timing(hw, symbol, "load_broadcast" if broadcast else "load", ins.width_bits))
    if ins.stores:
        memory.append(_timing(hw, symbol, "store", ins.width_bits))
    latency = timing.latency_cycles.value if timing.latency_cycles else 1.0
    unknown = timing.latency_cycles is None and ins.width_bits > 0
    return _Use(timing.issue_slots, (timing, *memory), latency, assumed or unknown)


def _leaves_no_operation(ins: LoopInstruction) -> bool:
    """Moves between registers and zeroing idioms are done while renaming (128 bits and more, and 64-bit scalars)."""
    if ins.loads or ins.stores or any("{" in operand for operand in ins.operands):
        return False
    registers = all(re.match(r"^([xyz]mm|[re]?[a-ds]|r\d)", operand) for operand in ins.operands)
    if _REGISTER_MOVE.match(ins.mnemonic):
        return registers
    return bool(_ZEROING.match(ins.mnemonic)) and len(set(ins.operands[-2:])) == 1


def _operation(hw: HardwareModel, symbol: str, ins: LoopInstruction) -> tuple[InstructionTiming, bool]:
    """The timing of what an instruction computes, and whether it is that of its class."""
    found = hw.timing(ins.mnemonic, ins.width_bits)
    if found is not None:
        return found, False
    if ins.width_bits > 0:
        return _timing(hw, symbol, _FMA_FORM.sub(r"\g<1>231\2", ins.mnemonic), ins.width_bits), False
    for pattern, name in _CLASSES:
        listed = hw.timing(name, 0)
        if pattern.match(ins.mnemonic) and listed is not None:
            return listed, name != "jcc"
    return _any_scalar(hw), True


def _any_scalar(hw: HardwareModel) -> InstructionTiming:
    """One cycle on any scalar pipe: the stand-in where a descriptor lists no scalar instruction of a class."""
    ports = tuple(port.name for port in hw.ports if port.role == "scalar") or tuple(port.name for port in hw.ports)
    width = hw.issue_width
    return InstructionTiming(
        latency_cycles=width.model_copy(update={"value": 1.0, "kind": "assumed"}),
        reciprocal_throughput_cycles=width.model_copy(update={"value": 1.0 / len(ports), "kind": "assumed"}),
        micro_ops=(MicroOp(ports=ports),),
        ports_kind="assumed",
        ports_source=width.source,
    )


def _timing(hw: HardwareModel, symbol: str, mnemonic: str, width_bits: int) -> InstructionTiming:
    found = hw.timing(mnemonic, width_bits)
    if found is not None:
        return found
    instruction = hw.instructions.get(mnemonic)
    listed = [str(width) for width in instruction.widths] if instruction else []
    hint = f"; it has {', '.join(listed)} bits" if listed else nearest(mnemonic, hw.instructions)
    raise UserError(
        f"{symbol}: expected a timing of {mnemonic} at {width_bits} bits in descriptor {hw.name}, got none{hint}; "
        f"add it under instructions.{mnemonic}.widths.{width_bits}"
    )


def _load_latency(hw: HardwareModel) -> float:
    return hw.caches[0].latency_cycles.value
