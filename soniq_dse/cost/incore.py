"""The bound of ports, issue width and recurrences: what a loop takes at best with all data in the nearest cache.

Ports by the best assignment (``hardware/ports.py``); loads and stores hold theirs. What each instruction asks of the
core: ``instructions.py``.
"""

from __future__ import annotations

import itertools

from soniq_dse.cost import Base, LoopCost
from soniq_dse.cost.instructions import Use, fuses, use_of
from soniq_dse.cost.registers import longest_recurrence
from soniq_dse.hardware.ports import evenly_spread, port_bound, port_loads, role_of
from soniq_dse.records.cost import Bound, HotLoop
from soniq_dse.records.hardware import HardwareModel


class InCore(Base):
    """Ports, issue width, recurrences: the largest of the three."""

    def loop_cost(self, loop: HotLoop, hw: HardwareModel) -> LoopCost:
        """The bound of one pass; it names which of the three holds."""
        listed = loop.instructions
        fused = [fuses(*pair) for pair in itertools.pairwise(listed)]
        uses = [
            Use(0, None, latency_cycles=1.0) if is_fused else use_of(hw, loop.symbol, ins)
            for ins, is_fused in zip(listed, [*fused, False], strict=True)
        ]
        loads = port_loads((timing, 1.0) for use in uses for timing in use.timings)
        ports = port_bound(loads)
        issue = sum(use.slots for use in uses) / hw.issue_width.value
        latency = longest_recurrence(listed, [use.chain_cycles for use in uses])
        named: list[tuple[float, Bound, str]] = [
            (ports.cycles, _bound_of(role_of(hw, ports)), ports.text),
            (issue, "issue", f"issue width {hw.issue_width.value:g}"),
            (latency, "latency", "the longest recurrence"),
        ]
        cycles, bound, text = max(named, key=lambda entry: entry[0])
        assumed = sorted({ins.mnemonic for ins, use in zip(listed, uses, strict=True) if use.assumed})
        contended = max(cycles, evenly_spread(loads).cycles)
        return LoopCost(cycles, contended, bound, text, latency, tuple(assumed))


def _bound_of(role: str) -> Bound:
    if role == "load":
        return "load"
    return "store" if role == "store" else "port"
