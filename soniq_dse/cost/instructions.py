"""What one compiled instruction asks of a core that a descriptor describes: slots, ports, latency.

Moves between registers and zeroing are done while renaming and leave no micro-operation. A memory operand adds the
machine's load or store. A vector instruction that the descriptor does not know is refused by name; scalar bookkeeping
takes the figures of its class, and the result says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from soniq_dse.errors import UserError, nearest
from soniq_dse.records.cost import LoopInstruction
from soniq_dse.records.hardware import HardwareModel, InstructionTiming, MicroOp

JUMP = re.compile(r"^(j[a-z]+|loop\w*|call|ret)$")
_MOVE = re.compile(r"^(v?mov(dq[ua]|[ua]p)[sd]?\d*|vmov[dq]|vmovs[sd]|v?lddqu|mov|mov[sz]xd?|movabs|v?p?broadcast\w+)$")
_REGISTER_MOVE = re.compile(r"^(v?mov(dq[ua]|[ua]p)[sd]?\d*|mov)$")
_BROADCAST = re.compile(r"^vp?broadcast")
_ZEROING = re.compile(r"^(v?p?xor[dq]?|vxorp[sd])$")
_FREE = re.compile(r"^(nop|endbr|vzero)")
_FUSES = re.compile(r"^(cmp|test|add|sub|inc|dec|and)$")
# The three forms of a fused multiply-add differ in the order of their operands alone; descriptors list one.
_FMA_FORM = re.compile(r"^(vfn?m(?:add|sub))(?:132|213)(\w+)$")
# A scalar instruction that the descriptor does not list takes the figures of the first listed one of its class.
_CLASSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (JUMP, "jcc"),
    (re.compile(r"^(cmp|test|bt)$"), "cmp"),
    (re.compile(r"^(movzx|movsxd?|movabs|cmov\w+|set\w+|xchg|cdqe?|cqo)$"), "mov"),
    (re.compile(r"^lea$"), "lea"),
    (re.compile(r"^(imul|mul\w*)$"), "imul"),
    (re.compile(r"."), "add"),
)
# What descriptors need not list apart, since it runs as its like does: bits of another width or another name.
_LIKE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^(?:vmov[dq]|vpinsr\w|vpextr\w|kmov\w|vpslldq|vpsrldq|vpalignr|vpack\w+|vpunpck\w+)$"), "vpshufb"),
    (re.compile(r"^v(?:insert|extract)[fi]\d+(?:x\d)?$"), "vpbroadcastd"),
    (re.compile(r"^vpbroadcast[bwq]$"), "vpbroadcastd"),
    (re.compile(r"^vpmov[sz]x(?:bw|wd|bd|dq)$"), "vpmovzxbw"),
    (re.compile(r"^(vp(?:and|or|xor|andn))[dq]?$"), r"\1"),
    (re.compile(r"^v(and|or|xor|andn)p[sd]$"), r"vp\1"),
)


@dataclass(frozen=True)
class Use:
    """What one instruction asks of the core: issue slots, timings that hold ports, latency, assumed or not.

    ``load_cycles`` is how long its memory operand takes to arrive, 0 without one; ``stores`` whether it writes memory.
    """

    slots: int
    operation: InstructionTiming | None
    memory: tuple[InstructionTiming, ...] = ()
    latency_cycles: float = 0.0
    load_cycles: float = 0.0
    stores: bool = False
    assumed: bool = False

    @property
    def chain_cycles(self) -> float:
        """From its register operands to its result; of a plain load, from its address."""
        return self.latency_cycles if self.operation else self.load_cycles + self.latency_cycles

    @property
    def timings(self) -> tuple[InstructionTiming, ...]:
        """All that hold ports."""
        return (self.operation, *self.memory) if self.operation else self.memory


_MEASURED_OFF = 0.01


def fuses(first: LoopInstruction, second: LoopInstruction) -> bool:
    """Whether a compare or counter runs as one with the branch behind it."""
    return (
        bool(_FUSES.match(first.mnemonic) and JUMP.match(second.mnemonic))
        and second.mnemonic not in ("call", "ret", "jmp")
        and not first.loads
        and not first.stores
    )


def use_of(hw: HardwareModel, symbol: str, ins: LoopInstruction) -> Use:
    """What ``ins`` asks of ``hw``; ``symbol`` names the kernel in errors.

    Raises:
        UserError: it is a vector instruction, and the descriptor has no figures for it.
    """
    if _FREE.match(ins.mnemonic):
        return Use(1, None)
    if ins.mnemonic.startswith("prefetch"):
        return Use(1, None, (_timing(hw, symbol, "load", 0),))
    if ins.loads and not ins.stores and _MOVE.match(ins.mnemonic):
        timing = _load(hw, symbol, ins, broadcast=bool(_BROADCAST.match(ins.mnemonic)))
        return Use(1, None, (timing,), load_cycles=_arrival(hw, timing))
    if ins.stores and not ins.loads and _MOVE.match(ins.mnemonic):
        return Use(1, None, (_timing(hw, symbol, "store", ins.width_bits),), stores=True)
    if _leaves_no_operation(ins):
        return Use(1, None)
    timing, assumed = _operation(hw, symbol, ins)
    memory, load_cycles = [], 0.0
    if ins.loads and timing.from_memory:
        timing = timing.model_copy(update={"micro_ops": timing.from_memory, "slots": None})
    if ins.loads:
        memory.append(_load(hw, symbol, ins, broadcast="BCST" in ins.text or "{1to" in ins.text))
        load_cycles = _arrival(hw, memory[0])
    if ins.stores:
        memory.append(_timing(hw, symbol, "store", ins.width_bits))
    in_lane = hw.timing(ins.mnemonic, 128) if ins.loads and timing.from_memory else None
    within = (in_lane or timing).latency_cycles  # what crosses no lanes takes as long as in the narrowest vector
    latency = _whole(within.value) if within else 1.0
    unknown = timing.latency_cycles is None and ins.width_bits > 0
    return Use(timing.issue_slots, timing, tuple(memory), latency, load_cycles, ins.stores, assumed or unknown)


def _load(hw: HardwareModel, symbol: str, ins: LoopInstruction, *, broadcast: bool) -> InstructionTiming:
    return _timing(hw, symbol, "load_broadcast" if broadcast else "load", ins.width_bits)


def _arrival(hw: HardwareModel, load: InstructionTiming) -> float:
    """Cycles from an address to the value in a register."""
    return load.latency_cycles.value if load.latency_cycles else _whole(hw.caches[0].latency_cycles.value)


def _whole(cycles: float) -> float:
    """A latency: a whole number of cycles, of which a measurement is a little off."""
    return float(round(cycles)) if abs(cycles - round(cycles)) < _MEASURED_OFF * cycles else cycles


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
        alike = _FMA_FORM.sub(r"\g<1>231\2", ins.mnemonic)
        for pattern, name in _LIKE:
            if pattern.match(alike):
                listed = hw.timing(pattern.sub(name, alike), ins.width_bits)
                if listed is not None:
                    return listed, True
        return _timing(hw, symbol, alike, ins.width_bits), False
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
