"""A core cycle by cycle: when each instruction of a path is dispatched, issued, done and retired, and why it waited.

In program order, ``issue_width`` instructions a cycle are renamed and dispatched while the reorder buffer and a
scheduler have room; each micro-operation takes the earliest free cycle of one of its ports once its operands are there,
older ones first; of ports that are free at once, the last: documents number the ports that multiply first, and what
can go anywhere is seen to leave those alone more often than not. Where several schedulers feed the ports of an
operation (``Port.queue``), it is bound to one of them by its slot in the dispatch group, if that one has room: ports of
the others may then stand idle, which is what keeps loops above the pure bound. Instructions retire in order. A load
waits for a store to its address. A branch that the predictor gets wrong holds back what follows until it is done, and
then for the time of a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappush, heappushpop

from soniq_dse.cost.instructions import JUMP, Use, fuses, use_of
from soniq_dse.cost.registers import reads_and_writes, registers_in
from soniq_dse.records.cost import LoopInstruction
from soniq_dse.records.hardware import HardwareModel, InstructionTiming

_HORIZON = 4096


@dataclass(frozen=True)
class Operation:
    """An instruction as the core sees it: registers by number, ports by number with the cycles they are held."""

    slots: int
    address: tuple[int, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    load: tuple[tuple[tuple[int, ...], float], ...]
    load_cycles: int
    work: tuple[tuple[tuple[int, ...], float], ...]
    latency_cycles: int
    store: tuple[tuple[tuple[int, ...], float], ...]
    is_vector: bool
    queues: tuple[int, ...]
    forward_cycles: int
    is_branch: bool
    assumed: bool


@dataclass
class Timeline:
    """Cycles per instruction of a path, first to last. ``port`` names where it ran (empty: renamed away)."""

    dispatched: list[int]
    ready: list[int]
    issued: list[int]
    done: list[int]
    retired: list[int]
    port: list[int]

    def append(self, dispatched: int, ready: int, issued: int, done: int, port: int) -> None:
        """Note an instruction."""
        self.dispatched.append(dispatched)
        self.ready.append(ready)
        self.issued.append(issued)
        self.done.append(done)
        self.port.append(port)

    @property
    def cycles(self) -> int:
        """Until the last instruction retired."""
        return self.retired[-1] if self.retired else 0


class Core:
    """A machine's core: instructions translated once, then run along any path.

    Raises:
        UserError: (when an instruction is first met) a vector instruction that the descriptor does not know.
    """

    def __init__(self, hw: HardwareModel, symbol: str) -> None:
        self.hw, self.symbol = hw, symbol
        self.ports = [port.name for port in hw.ports]
        self._vector = {i for i, port in enumerate(hw.ports) if port.role == "vector"}
        names = [port.queue or port.role for port in hw.ports]
        self._queues = [sorted(set(names)).index(name) for name in names]
        self._registers: dict[str, int] = {"flags": 0}

    def operations(self, instructions: Sequence[LoopInstruction]) -> list[Operation]:
        """Instructions that follow one another in memory, compares fused with their branches."""
        uses = [use_of(self.hw, self.symbol, ins) for ins in instructions]
        made = []
        for i, (ins, use) in enumerate(zip(instructions, uses, strict=True)):
            following = instructions[i + 1] if i + 1 < len(instructions) else None
            made.append(self._operation(ins, use, fused=following is not None and fuses(ins, following)))
        return made

    def _operation(self, ins: LoopInstruction, use: Use, *, fused: bool) -> Operation:
        reads, writes = reads_and_writes(ins)
        memory = next((operand for operand in ins.operands if "[" in operand), "")
        address = set(registers_in(memory)) if ins.loads or ins.stores else set()
        elsewhere = {name for operand in ins.operands if operand is not memory for name in registers_in(operand)}
        sources = {name for name in reads if name in elsewhere or name not in address}
        if JUMP.match(ins.mnemonic) or ins.mnemonic.startswith(("cmov", "set", "adc", "sbb")):
            sources.add("flags")
        sets_flags = ins.width_bits == 0 and not ins.mnemonic.startswith(("mov", "lea", "j", "cmov", "set", "not", "k"))
        number = self._number
        ports = [micro for timing in use.memory for micro in self._micro_ops(timing)]
        n_loads = len(self._micro_ops(use.memory[0])) if ins.loads or ins.mnemonic.startswith("prefetch") else 0
        work = self._micro_ops(use.operation) if use.operation and not fused else ()
        return Operation(
            slots=0 if fused else use.slots,
            address=tuple(map(number, sorted(address))),
            sources=tuple(map(number, sorted(sources))),
            targets=tuple(map(number, sorted(writes | ({"flags"} if sets_flags else set())))),
            load=tuple(ports[:n_loads]),
            load_cycles=round(use.load_cycles),
            work=work,
            latency_cycles=0 if fused else round(use.latency_cycles),
            store=tuple(ports[n_loads:]),
            is_vector=any(port in self._vector for ports_, _ in work for port in ports_),
            queues=tuple(sorted({self._queues[port] for ports_, _ in work for port in ports_})),
            forward_cycles=self._forward_cycles(ins),
            is_branch=bool(JUMP.match(ins.mnemonic)) and ins.mnemonic not in ("jmp", "call", "ret"),
            assumed=use.assumed,
        )

    def _micro_ops(self, timing: InstructionTiming) -> tuple[tuple[tuple[int, ...], float], ...]:
        return tuple((tuple(self.ports.index(p) for p in micro.ports), micro.cycles) for micro in timing.micro_ops)

    def _forward_cycles(self, ins: LoopInstruction) -> int:
        forwarding = self.hw.store_forwarding
        if forwarding is None:
            return round(self.hw.caches[0].latency_cycles.value)
        return round((forwarding.vector_cycles if ins.width_bits else forwarding.scalar_cycles).value)

    def _number(self, register: str) -> int:
        return self._registers.setdefault(register, len(self._registers))

    def run(
        self, path: Sequence[Operation], addresses: Sequence[int] | None = None, wrong: frozenset[int] = frozenset()
    ) -> Timeline:
        """Simulate ``path``.

        Args:
            addresses: of the memory operands, 0 where there is none; None: no load meets a store.
            wrong: positions of branches that the predictor gets wrong.
        """
        found = addresses if addresses is not None else list(range(-len(path), 0))
        return _State(self.hw, self._queues).run(path, found, wrong, len(self._registers))


class _State:
    """What the core holds between two instructions of a path. Lists and locals only: this is the innermost loop."""

    def __init__(self, hw: HardwareModel, queues: Sequence[int]) -> None:
        self._width, self._window = int(hw.issue_width.value), int(hw.reorder_buffer_entries.value)
        self._retire_width = int(hw.retire_width.value) if hw.retire_width else self._width
        self._restart = round(hw.branches.mispredict_cycles.value) if hw.branches else 0
        self._queues = queues
        n_vector = len({queues[i] for i, port in enumerate(hw.ports) if port.role == "vector"})
        self._capacity = max(1, int(hw.scheduler_entries.value) // max(1, n_vector))
        self._fed: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
        self._waiting: list[list[int]] = [[] for _ in range(max(queues) + 1)]
        self._busy = [bytearray(_HORIZON) for _ in queues]
        self._owed = [0.0] * len(queues)

    def run(
        self, path: Sequence[Operation], addresses: Sequence[int], wrong: frozenset[int], n_registers: int
    ) -> Timeline:
        """The timeline of ``path``."""
        ready = [0] * n_registers
        stored: dict[int, int] = {}
        line = Timeline([], [], [], [], [], [])
        retired, width, window, retire_width = line.retired, self._width, self._window, self._retire_width
        cycle, left, last = 0, width, 0
        for n, op in enumerate(path):
            # Dispatch: a slot, a place in the reorder buffer, a place in a scheduler.
            at = retired[n - window] if n >= window and retired[n - window] > cycle else cycle
            if op.is_vector:
                at = max(at, self._room(op))
            if at > cycle:
                cycle, left = at, width
            if left < op.slots:
                cycle, left = cycle + 1, width
            left -= op.slots
            start = issued = cycle + 1
            port, address_ready = -1, start
            if op.load:
                for r in op.address:
                    start = max(start, ready[r])
                address_ready = start
                for ports, held in op.load:
                    port, issued = self._issue(ports, held, start)
                start = issued + op.load_cycles
                if addresses[n] in stored and stored[addresses[n]] + op.forward_cycles > start:
                    start = stored[addresses[n]] + op.forward_cycles
            for r in op.sources:
                start = max(start, ready[r])
            done = start
            for ports, held in op.work:
                if op.is_vector:
                    port, issued = self._issue_steered(ports, held, start, cycle, left)
                else:
                    port, issued = self._issue(ports, held, start)
                done = max(done, issued + op.latency_cycles)
            for r in op.targets:
                ready[r] = done
            if op.store:
                for r in op.address:
                    done = max(done, ready[r])
                for ports, held in op.store:
                    port, issued = self._issue(ports, held, done)
                stored[addresses[n]] = done = max(done, issued)
            # Retirement: in order, so many a cycle.
            last = max(done + 1, last)
            if n >= retire_width and retired[n - retire_width] >= last:
                last = retired[n - retire_width] + 1
            retired.append(last)
            line.append(cycle, start if op.work or op.store else address_ready, issued, done, port)
            if n in wrong:
                cycle, left = done + self._restart, width
        return line

    def _room(self, op: Operation) -> int:
        """The first cycle at which a scheduler that can take ``op`` has a free entry."""
        first = self._free_entry(op.queues[0])
        for queue in op.queues[1:]:
            first = min(first, self._free_entry(queue))
        return first

    def _free_entry(self, queue: int) -> int:
        waiting = self._waiting[queue]
        return waiting[0] if len(waiting) == self._capacity else 0

    def _issue_steered(self, ports: tuple[int, ...], held: float, ready: int, cycle: int, slot: int) -> tuple[int, int]:
        """``_issue`` on the ports of one scheduler: they take turns by slot, as far as they have room."""
        fed = self._fed.get(ports)
        if fed is None:
            queues = self._queues
            found = sorted({queues[port] for port in ports})
            fed = self._fed[ports] = [(q, tuple(port for port in ports if queues[port] == q)) for q in found]
        queue, own = fed[slot % len(fed)]
        if len(fed) > 1 and self._free_entry(queue) > cycle:
            queue, own = min(fed, key=lambda one: self._free_entry(one[0]))
        port, issued = self._issue(own, held, ready)
        waiting = self._waiting[queue]  # the latest issues: the first of as many as it holds frees an entry
        if len(waiting) < self._capacity:
            heappush(waiting, issued)
        else:
            heappushpop(waiting, issued)
        return port, issued

    def _issue(self, ports: tuple[int, ...], held: float, ready: int) -> tuple[int, int]:
        """(port, cycle) of the earliest start at or after ``ready``; of ports free at once, the last."""
        best, at = -1, 0
        for port in reversed(ports):
            busy = self._busy[port]
            if ready + _HORIZON > len(busy):
                busy.extend(bytes(ready + 4 * _HORIZON - len(busy)))
            free = busy.find(0, ready)
            if held > 1:
                while any(busy[free : free + int(held)]):
                    free = busy.find(0, free + 1)
            if best < 0 or free < at:
                best, at = port, free
                if free == ready:
                    break
        if held == 1:
            self._busy[best][at] = 1
            return best, at
        owed = self._owed[best] + held
        whole = int(owed)
        self._owed[best] = owed - whole
        self._busy[best][at : at + whole] = b"\1" * whole
        return best, at
