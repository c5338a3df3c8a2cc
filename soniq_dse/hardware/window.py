"""How far a core looks ahead: issue width, reorder buffer, scheduler, store forwarding, branch prediction.

Sizes of queues show where two slow chains no longer run side by side (after Wong, "Measuring reorder buffer capacity",
2013, who takes cache misses; square roots do not depend on what else the memory serves): between them stand ``nop``,
which fill the reorder buffer, or vector additions to what the first chain computes, which fill the scheduler. Branches
follow a random register that never repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from soniq_dse.hardware.microbench import Effort, Reading, measure_bodies, measure_loops, measure_slot

_CHAIN = 8
"""Square roots in a row: about 20 cycles each, so that they outlast the dispatch of what stands between two chains."""
_COARSE, _MOST_ENTRIES, _MOST_WAITING = 16, 640, 320
_SERIAL = 1.5
"""Chains one after the other take twice as long as side by side; this is the middle, with half a chain retired."""
_LOOKS = 4
"""A busy sibling thread holds its share of the queues: the most of so many looks counts."""
_BRANCHES = 4000
_CHAINED_LINES = 2000
"""Of four lines, each of many cycles, per sample."""
_STORED = 64


@dataclass(frozen=True)
class Window:
    """Readings of a core's window: entries and branches as counts, the rest in cycles. None where none showed."""

    issue_width: Reading
    reorder_buffer_entries: Reading | None
    scheduler_entries: Reading | None
    vector_forwarding_cycles: Reading
    scalar_forwarding_cycles: Reading
    mispredict_cycles: Reading


def measure_window(width_bits: int, effort: Effort) -> Window:
    """The window of this processor; ``width_bits`` of the vectors that are stored and loaded again."""
    vector, scalar = measure_bodies(_forwarding(width_bits), effort)
    slot = measure_slot(effort)
    short = replace(effort, sample_instructions=_CHAINED_LINES)
    return Window(
        issue_width=Reading(float(round(1 / slot.value)), slot.spread / slot.value**2, slot.samples),
        reorder_buffer_entries=_side_by_side("nop", _MOST_ENTRIES, short),
        scheduler_entries=_side_by_side("vpaddd %%xmm2, %%xmm2, %%xmm4", _MOST_WAITING, short),
        vector_forwarding_cycles=vector.scaled(2),
        scalar_forwarding_cycles=Reading(max(0.0, round(scalar.value - 1, 1)), scalar.spread, scalar.samples),
        mispredict_cycles=_mispredict(effort),
    )


def _forwarding(width_bits: int) -> list[list[str]]:
    """A vector stored and loaded in turns; an addition to memory in turns, of which the addition takes one cycle."""
    register = {128: "xmm", 256: "ymm", 512: "zmm"}[width_bits]
    move, place = "vmovdqu64" if width_bits == 512 else "vmovdqu", f"{_STORED}(%[p])"
    return [[f"{move} %%{register}2, {place}", f"{move} {place}, %%{register}2"] * 12, [f"add %%r8, {place}"] * 24]


def _side_by_side(between: str, most: int, effort: Effort) -> Reading | None:
    """How many instructions from the start of a chain to that of the next one the core holds; None: more than ``most``.

    The first serial count is looked for in steps of ``_COARSE`` and then one by one. Give or take half a chain.
    """
    counts = range(_COARSE, most + 1, _COARSE)
    looks = [_first_serial(between, counts, effort) for _ in range(_LOOKS)]
    if None in looks:
        return None
    coarse = max(count for count in looks if count is not None)
    fine = _first_serial(between, range(coarse - _COARSE + 1, coarse + 1), effort) or coarse
    return Reading(float(fine + _CHAIN // 2), 0.0, effort.samples)


def _first_serial(between: str, counts: Sequence[int], effort: Effort) -> int | None:
    bodies = [_two_chains(between, count) for count in (1, *counts)]
    side_by_side, *times = [reading.value * len(bodies[0]) for reading in measure_bodies(bodies, effort)]
    return next((n for n, time in zip(counts, times, strict=True) if time > _SERIAL * side_by_side), None)


def _two_chains(between: str, count: int) -> list[str]:
    """Two chains of square roots, each behind ``count`` instructions, as four lines."""
    chains = [f".rept {_CHAIN}\\n\\tsqrtsd %%xmm{n}, %%xmm{n}\\n\\t.endr" for n in (2, 3)]
    fillers = [f".rept {count}\\n\\t{between.replace('xmm2', f'xmm{n}')}\\n\\t.endr" for n in (2, 3)]
    return [chains[0], fillers[0], chains[1], fillers[1]]


def _mispredict(effort: Effort) -> Reading:
    """Twice what a branch on a random bit takes longer than one always taken: it goes wrong every other time."""
    random, always = measure_loops([_branch(1), _branch(0)], _BRANCHES, effort)
    return Reading(2 * (random.value - always.value), 2 * (random.spread + always.spread), random.samples)


def _branch(mask: int) -> str:
    """A xorshift generator (Marsaglia, 2003) whose state goes on from call to call: predictors learn what repeats."""
    lines = ["1:"]
    for shift in ("shl $13", "shr $7", "shl $17"):
        lines += ["mov %[x], %%r11", f"{shift}, %%r11", "xor %%r11, %[x]"]
    lines += ["mov %[x], %%r12", f"and ${mask}, %%r12", "jz 7f", "nop", "7:", "dec %[n]", "jnz 1b"]
    text = "".join(f'"{line}\\n\\t"' for line in lines)
    return (
        f"{{ (void)p; (void)bytes; static uint64_t x = 88172645463325252ull; asm volatile({text}"
        ' : [n] "+r"(n), [x] "+r"(x) : : "r11", "r12", "cc"); }'
    )
