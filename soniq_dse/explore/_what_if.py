"""What if the machine were another: how the latency of every design would change, by the bounds of the kernels' loops.

The bounds are quick, so that each question is asked of all designs. Both sides of a ratio are bounds, with kernels
chosen anew: what a figure is worth, not a latency.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from soniq_dse.cost.network import estimate
from soniq_dse.errors import UserError
from soniq_dse.explore._plan import Plan
from soniq_dse.hardware.whatif import what_if
from soniq_dse.records.design import Assignment
from soniq_dse.records.front import WhatIf
from soniq_dse.records.gpu import GpuModel, Machine
from soniq_dse.records.hardware import HardwareModel, SimdWidth
from soniq_dse.records.workload import Workload

Asked = tuple[Workload, Assignment | None]
"""A network, and its levels; None: all in fp32."""
MODEL = "incore"
SLOWER, WIDER = 0.5, 2.0


def what_ifs(plan: Plan, designs: Mapping[str, Asked]) -> tuple[WhatIf, ...]:
    """The answers for ``designs`` (by id): the user's questions, then those worth asking of this machine."""
    asked = [(setting, (setting,)) for setting in plan.options.what_if]
    before = _latencies(plan, plan.hardware, designs)
    found = []
    for label, settings in (*asked, *_questions(plan.hardware)):
        try:
            after = _latencies(plan, what_if(plan.hardware, settings), designs)
        except UserError:  # a machine that the question would make impossible
            continue
        ratios = {identity: after[identity] / us for identity, us in before.items() if us and identity in after}
        found.append(WhatIf(label=label, settings=settings, latency_ratio=ratios))
    return tuple(found)


def _latencies(plan: Plan, machine: Machine, designs: Mapping[str, Asked]) -> dict[str, float]:
    batch, threads = plan.options.batch, plan.options.threads
    return {
        identity: estimate(machine, graph, assignment, batch=batch, threads=threads, model=MODEL).latency_us
        for identity, (graph, assignment) in designs.items()
    }


def _questions(machine: Machine) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(question, settings): a figure twice as good, or one more unit of a kind."""
    if isinstance(machine, GpuModel):
        yield _twice("memory twice as fast", "memory.read_gb_per_s", machine.memory.read_gb_per_s.value)
        yield _twice("L2 cache twice as fast", "l2.read_bytes_per_cycle", machine.l2.read_bytes_per_cycle.value)
        yield _twice("launches in half the time", "overhead.launch_us", machine.overhead.launch_us.value, SLOWER)
        return
    yield from _cpu_questions(machine)


def _cpu_questions(machine: HardwareModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    width = 2 * max(simd.width_bits for simd in machine.simd)
    if width in get_args(SimdWidth.model_fields["width_bits"].annotation):
        yield f"vectors of {width} bits", (f"simd_width_bits={width}",)
    roles: Sequence[str] = [port.role for port in machine.ports]
    for role, words in (("vector", "one more vector pipe"), ("load", "one more load per cycle")):
        if role in roles:
            yield words, (f"ports.{role}={roles.count(role) + 1}",)
    for cache in machine.caches[:2]:
        rate = cache.read_bytes_per_cycle.value
        yield _twice(f"{cache.name} cache twice as fast", f"caches.{cache.name}.read_bytes_per_cycle", rate)
    if machine.memory is not None:
        rate = machine.memory.read_gb_per_s_one_core.value
        yield _twice("memory twice as fast for one core", "memory.read_gb_per_s_one_core", rate)
    if machine.overhead is not None and machine.overhead.call_ns is not None:
        yield _twice("calls in half the time", "overhead.call_ns", machine.overhead.call_ns.value, SLOWER)


def _twice(words: str, field: str, value: float, factor: float = WIDER) -> tuple[str, tuple[str, ...]]:
    return words, (f"{field}={factor * value:.6g}",)
