"""Timelines of the simulated core worked by hand, on the shipped Zen 3 descriptor (six a cycle, retire eight).

Cycle 0 dispatches the first six; an operation issues at the earliest a cycle later.
"""

from __future__ import annotations

import pytest

from soniq_dse.cost.core import Core, Timeline
from soniq_dse.cost.pipeline import Pipeline
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.cost import HotLoop, LoopInstruction
from soniq_dse.records.hardware import HardwareModel


@pytest.fixture(scope="module")
def hw() -> HardwareModel:
    return load_hardware("avx2")


def instructions(*texts: str) -> tuple[LoopInstruction, ...]:
    made = []
    for text in texts:
        mnemonic, _, rest = text.partition(" ")
        operands = tuple(part for part in rest.split(",") if part)
        memory = "[" in rest and mnemonic != "lea"
        stores = memory and "[" in operands[0]
        width = 256 if "ymm" in rest else 0
        made.append(LoopInstruction(mnemonic=mnemonic, operands=operands, width_bits=width, loads=memory and not stores,
                                    stores=stores, text=text))  # fmt: skip
    return tuple(made)


def run(hw: HardwareModel, *texts: str, **how: object) -> tuple[Timeline, Core]:
    core = Core(hw, "kernel")
    return core.run(core.operations(instructions(*texts)), **how), core  # type: ignore[arg-type]


def names(core: Core, line: Timeline) -> list[str]:
    return [core.ports[port] if port >= 0 else "" for port in line.port]


def test_a_chain_takes_its_latencies(hw: HardwareModel) -> None:
    """vpmaddwd 3 cycles, vpaddd 1: issued at 1, 4, 5; done at 4, 5, 6; retired a cycle after it is done, in order."""
    line, _ = run(hw, "vpmaddwd ymm1,ymm2,ymm3", "vpaddd ymm1,ymm1,ymm4", "vpaddd ymm1,ymm1,ymm4")
    assert line.dispatched == [0, 0, 0]
    assert (line.issued, line.done, line.retired) == ([1, 4, 5], [4, 5, 6], [5, 6, 7])


def test_six_a_cycle_are_dispatched_and_moves_are_renamed_away(hw: HardwareModel) -> None:
    """Eight register moves: six in cycle 0, two in cycle 1; none issues, a copy is ready with its source."""
    line, core = run(hw, *[f"vmovdqa ymm{i},ymm{i + 1}" for i in range(8)])
    assert line.dispatched == [0] * 6 + [1] * 2
    assert names(core, line) == [""] * 8


def test_a_load_feeds_its_operation(hw: HardwareModel) -> None:
    """The load issues at 1 and arrives 8 later; the addition runs then, and is done at 10."""
    line, _ = run(hw, "vpaddd ymm1,ymm2,YMMWORD PTR [rax]")
    assert (line.ready, line.issued, line.done) == ([9], [9], [10])


def test_operations_are_bound_to_a_scheduler_by_their_slot(hw: HardwareModel) -> None:
    """Multiply and add in turns: all multiplies lie in odd slots from the end, so all go to fp3, one a cycle.

    The adds go to the scheduler of fp0 and fp1, the last that is free: fp1, fp0 at 1, fp1 at 2.
    """
    line, core = run(hw, *["vpmaddwd ymm1,ymm2,ymm3", "vpaddd ymm4,ymm2,ymm3"] * 3)
    assert names(core, line) == ["fp3", "fp1", "fp3", "fp0", "fp3", "fp1"]
    assert line.issued == [1, 1, 2, 1, 3, 2]


def test_a_wrong_guess_holds_back_what_follows(hw: HardwareModel) -> None:
    """cmp runs with its branch: the pair issues at 1 and is done at 2; 15 cycles later the next one is dispatched."""
    line, _ = run(hw, "cmp rax,rbx", "jne 10", "add rcx,rdx", wrong=frozenset({1}))
    assert line.done[1] == 2
    assert line.dispatched == [0, 0, 17]


def test_the_reorder_buffer_is_a_window(hw: HardwareModel) -> None:
    """A chain of 43 x 6 multiplies retires the first at 5; the 257th instruction waits for its place."""
    line, _ = run(hw, *["vpmaddwd ymm1,ymm1,ymm3"] + ["nop"] * 300)
    assert line.retired[0] == 5
    assert line.dispatched[255] == 42
    assert line.dispatched[256] >= line.retired[0]
    late, _ = run(hw, *["vpmaddwd ymm1,ymm1,ymm3"] * 20, *["nop"] * 300)
    assert late.done[19] == 61  # twenty in a row, from cycle 1
    assert late.dispatched[19 + 256] == late.retired[19] == 62


def loop(*texts: str) -> HotLoop:
    return HotLoop(symbol="kernel", compiler="", flags=(), source_sha256="", macs_per_iteration=1,
                   instructions=instructions(*texts))  # fmt: skip


# texts of a pass, cycles in steady state
STEADY = [
    # Kept in memory between passes: 10 cycles from the store to the load, one to add.
    (("vpaddd ymm1,ymm2,YMMWORD PTR [rsp+0x20]", "vmovdqa YMMWORD PTR [rsp+0x20],ymm1"), 11.0),
    # Twelve shuffles on two pipes.
    (tuple(f"vpshufb ymm{i},ymm13,ymm14" for i in range(12)), 6.0),
    # Four loads of 256 bits, two a cycle; the address moves, so no store is met.
    ((*(f"vmovdqa ymm{i},YMMWORD PTR [rax+{32 * i}]" for i in range(4)), "add rax,rbx"), 2.0),
    # Two pairs of a kind: slots alternate between the schedulers, and all four pipes stay busy.
    (("vpmaddwd ymm1,ymm13,ymm14", "vpmaddwd ymm2,ymm13,ymm14", "vpaddd ymm3,ymm13,ymm14", "vpaddd ymm4,ymm13,ymm14"),
     1.0),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "cycles"), STEADY)
def test_steady_state(hw: HardwareModel, texts: tuple[str, ...], cycles: float) -> None:
    cost = Pipeline().loop_cost(loop(*texts), hw)
    assert cost.expected_cycles == pytest.approx(cycles, rel=0.02)
    assert cost.cycles <= cost.expected_cycles <= cost.contended_cycles


def test_in_turns_two_kinds_lose_what_one_scheduler_cannot_run(hw: HardwareModel) -> None:
    """Multiply and add in turns could take half a cycle a pair; one pipe, and what overflows, take more."""
    cost = Pipeline().loop_cost(loop(*["vpmaddwd ymm1,ymm13,ymm14", "vpaddd ymm2,ymm13,ymm14"] * 6), hw)
    assert cost.cycles == pytest.approx(3.0)
    assert 3.3 <= cost.expected_cycles <= 6.0
