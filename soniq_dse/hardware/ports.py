"""How fast ports can take a set of micro-operations at best.

With each micro-operation free to use any of its ports, and fractions of it allowed, the least time is

    max over sets S of ports of  (cycles of the micro-operations that fit only ports in S) / |S|

(the max-flow min-cut theorem for this bipartite flow; equal to the optimum of the linear program that spreads
micro-operations over ports). Only unions of the port sets that occur can attain the maximum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from soniq_dse.records.hardware import HardwareModel, InstructionTiming


@dataclass(frozen=True)
class PortBound:
    """``cycles`` that the busiest set of ports needs, and that set, sorted (empty where nothing was asked)."""

    cycles: float
    ports: tuple[str, ...]

    @property
    def text(self) -> str:
        """``port p5`` or ``ports p0, p5``."""
        return f"port{'s' if len(self.ports) > 1 else ''} {', '.join(self.ports)}"


def port_loads(uses: Iterable[tuple[InstructionTiming, float]]) -> dict[frozenset[str], float]:
    """Cycles per set of admissible ports, over ``uses``: an instruction's timing and how often it runs."""
    loads: dict[frozenset[str], float] = {}
    for timing, count in uses:
        for micro_op in timing.micro_ops:
            ports = frozenset(micro_op.ports)
            loads[ports] = loads.get(ports, 0.0) + count * micro_op.cycles
    return loads


def port_bound(loads: Mapping[frozenset[str], float]) -> PortBound:
    """The least time in which ports can take ``loads`` (cycles per set of admissible ports), and what bounds it.

    Of equal sets the smallest is named.
    """
    unions: set[frozenset[str]] = set()
    for ports in loads:
        unions |= {ports | other for other in unions} | {ports}
    best = PortBound(0.0, ())
    for candidate in sorted(unions, key=lambda ports: (len(ports), sorted(ports))):
        cycles = sum(load for ports, load in loads.items() if ports <= candidate) / len(candidate)
        if cycles > best.cycles * (1 + 1e-12):
            best = PortBound(cycles, tuple(sorted(candidate)))
    return best


def evenly_spread(loads: Mapping[frozenset[str], float]) -> PortBound:
    """The time of the busiest port where every micro-operation is spread evenly over its ports, and that port.

    What a scheduler reaches that binds micro-operations to ports without looking ahead: it lies on or above
    ``port_bound``, and measured loops lie between the two.
    """
    busy: dict[str, float] = {}
    for ports, load in loads.items():
        for port in ports:
            busy[port] = busy.get(port, 0.0) + load / len(ports)
    if not busy:
        return PortBound(0.0, ())
    cycles = max(busy.values())
    return PortBound(cycles, tuple(sorted(port for port, load in busy.items() if load > cycles * (1 - 1e-12))))


def issue_slots(uses: Iterable[tuple[InstructionTiming, float]]) -> float:
    """Slots of the issue width over ``uses``."""
    return sum(count * timing.issue_slots for timing, count in uses)


def role_of(hw: HardwareModel, bound: PortBound) -> str:
    """Role that all ports of a bound share (``vector``, ``load`` ...); ``mixed`` where they differ."""
    roles = {port.role for port in hw.ports if port.name in bound.ports}
    return roles.pop() if len(roles) == 1 else "mixed"
