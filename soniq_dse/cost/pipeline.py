"""Loops and whole calls of kernels, followed through the simulated core (``core.py``)."""

from __future__ import annotations

from dataclasses import replace

from soniq_dse.cost import Base, Calls, LoopCost
from soniq_dse.cost.calls import CallCosts
from soniq_dse.cost.core import Core, Operation, Timeline
from soniq_dse.cost.incore import InCore
from soniq_dse.cost.registers import reads_and_writes, registers_in
from soniq_dse.cost.remembered import place_of, recall, remember
from soniq_dse.kernels.code import KernelCode
from soniq_dse.records.cost import HotLoop
from soniq_dse.records.hardware import HardwareModel

_PASSES, _INSTRUCTIONS = 8, 1200
"""A loop is followed for at least so many passes and instructions; its second half counts as steady."""


class Pipeline(Base):
    """The simulated cycles of a pass, beside the bound."""

    def loop_cost(self, loop: HotLoop, hw: HardwareModel) -> LoopCost:
        """The bound of one pass, and what it takes in steady state."""
        bound, path = InCore().loop_cost(loop, hw), place_of("loop", hw, loop.identity())
        known = recall(path)
        cycles = known if isinstance(known, float) else steady_cycles(loop, hw)
        if cycles != known:
            remember(path, cycles)
        simulated = max(bound.cycles, cycles)
        return replace(bound, contended_cycles=max(bound.contended_cycles, simulated), simulated_cycles=simulated)

    def calls(self, code: KernelCode, hw: HardwareModel) -> Calls | None:
        """Calls followed whole, from the kernel's first instruction to its last."""
        return CallCosts(hw, code)


def steady_cycles(loop: HotLoop, hw: HardwareModel) -> float:
    """Simulated cycles of a pass, once passes follow one another steadily.

    Raises:
        UserError: as ``follow``.
    """
    line, _ = follow(loop, hw, max(_PASSES, -(-_INSTRUCTIONS // len(loop.instructions))))
    n, half = len(loop.instructions), len(line.retired) // len(loop.instructions) // 2
    passes = len(line.retired) // n - half
    return (line.retired[-1] - line.retired[half * n - 1]) / passes


def follow(loop: HotLoop, hw: HardwareModel, passes: int) -> tuple[Timeline, list[Operation]]:
    """The timeline of ``passes`` passes of a loop, and its operations. Operands that do not move keep their address.

    Raises:
        UserError: the descriptor has no figures for a vector instruction of the loop.
    """
    core = Core(hw, loop.symbol)
    operations = core.operations(loop.instructions)
    written = set().union(*(reads_and_writes(ins)[1] for ins in loop.instructions))
    addresses = []
    for n, ins in enumerate(loop.instructions * passes):
        memory = next((operand for operand in ins.operands if "[" in operand), "")
        moves = any(register in written for register in registers_in(memory))
        addresses.append(-n - 1 if moves or not memory else hash(memory.partition("[")[2]))
    return core.run(operations * passes, addresses), operations
