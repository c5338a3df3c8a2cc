"""Which pipes instructions run on, inferred from how fast each runs alone and how fast two run mixed.

An instruction that holds one of ``n`` pipes for ``c`` cycles has the reciprocal throughput ``r = c / n``. A mix in
which each of two instructions, alone, would take the same time T takes

    T * (1 + J),  J = (pipes of both) / (pipes of either)

so a mix measures how alike two sets of pipes are (J is the Jaccard index): no slower where they share none, twice as
slow where they are the same. Mixes are balanced for that: counts up to ``MOST`` of each, in proportion to the rates.

``infer_pipes`` looks for the sets that explain all rates with the fewest pipes. It is a beam search over instructions
from the widest set to the narrowest; a set takes some of the pipes known so far and any number of new ones, which are
interchangeable. The cost is the sum of squared relative errors of the mixes and ``PIPE_COST`` for each pipe. Equal
readings give equal answers. What it cannot tell: how pipes of different vector widths correspond (no mix crosses
widths, as wide vectors may close a pipe to narrow ones), and micro-operations behind the slowest one of an instruction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

TOLERANCE = 0.08
"""Relative error up to which a rate counts as explained: alignment and the loop's branch cost a few per cent."""
MOST = 3
"""Most copies of one instruction in a mix."""
PIPE_COST = 1e-3
"""A further pipe has to take away an error of 3 % in a mix to be worth while."""
MAX_PIPES = 8
_MAX_CYCLES = 4
_BEAM = 64
_BALANCED = math.log(1.15)


@dataclass(frozen=True, order=True)
class Mix:
    """How many copies of two instructions (by name) alternate."""

    first: str
    first_count: int
    second: str
    second_count: int


@dataclass(frozen=True)
class Occupation:
    """An instruction holds one of ``pipes`` (numbers) for ``cycles``."""

    pipes: frozenset[int]
    cycles: float


def balanced_mix(first: str, first_rate: float, second: str, second_rate: float) -> Mix:
    """The shortest mix of at most ``MOST`` copies each in which both, alone, take about the same time.

    Rates are reciprocal throughputs in cycles.
    """
    counts = [(n, m) for n, m in itertools.product(range(1, MOST + 1), repeat=2) if math.gcd(n, m) == 1]

    def imbalance(count: tuple[int, int]) -> float:
        return abs(math.log(count[0] * first_rate / (count[1] * second_rate)))

    n, m = min(counts, key=lambda count: (max(imbalance(count), _BALANCED), sum(count), imbalance(count)))
    return Mix(first, n, second, m)


def infer_pipes(rates: Mapping[str, float], mixes: Mapping[Mix, float], issue_width: float) -> dict[str, Occupation]:
    """The pipes of each instruction, from reciprocal throughputs and times of mixes (cycles).

    Pipes are numbered in the order in which they were needed, from 0. Mixes of instructions without a rate are ignored.
    """
    order = sorted(rates, key=lambda name: (rates[name], name))
    beam: list[_Partial] = [_Partial(0.0, 0, ())]
    for at, name in enumerate(order):
        met = [
            (order.index(other), mine, theirs, cycles)
            for other, mine, theirs, cycles in _partners(name, mixes)
            if other in order[:at]
        ]
        grown = [
            _Partial(
                partial.cost + PIPE_COST * new + _error(partial.taken, mask, cycles, met, issue_width),
                partial.pipes + new,
                (*partial.taken, (mask, cycles)),
            )
            for partial in beam
            for count, cycles in occupations(rates[name])
            for mask, new in _masks(partial.pipes, count)
        ]
        beam = sorted(grown)[:_BEAM]
    best = beam[0].taken
    return {name: Occupation(_pipes(mask), cycles) for name, (mask, cycles) in zip(order, best, strict=True)}


def occupations(rate: float) -> list[tuple[int, float]]:
    """(number of pipes, cycles) that give a reciprocal throughput: whole cycles where they can, fewest pipes first."""
    found = []
    for cycles in range(1, _MAX_CYCLES + 1):
        count = round(cycles / rate)
        if 1 <= count <= MAX_PIPES and abs(cycles / count - rate) <= TOLERANCE * rate:
            found.append((count, float(cycles)))
        uneven = [(count, round(rate * count, 3)) for count in range(1, MAX_PIPES + 1) if rate * count <= _MAX_CYCLES]
    return found or uneven or [(1, round(rate, 3))]


def mixed_cycles(mix: Mix, first: Occupation, second: Occupation, issue_width: float) -> float:
    """Cycles of one pass over a mix at best."""
    a, b = mix.first_count * first.cycles, mix.second_count * second.cycles
    together = (a + b) / len(first.pipes | second.pipes)
    issue = (mix.first_count + mix.second_count) / issue_width
    return max(a / len(first.pipes), b / len(second.pipes), together, issue)


def aligned(new: Mapping[str, Occupation], known: Mapping[str, Occupation]) -> dict[str, Occupation]:
    """``new`` with its pipes renumbered so that the instructions of both maps have the most alike pipes (Jaccard)."""
    size = 1 + max((pipe for use in (*new.values(), *known.values()) for pipe in use.pipes), default=-1)
    used = sorted({pipe for use in new.values() for pipe in use.pipes})
    common = [(new[name].pipes, known[name].pipes) for name in sorted(new.keys() & known.keys())]

    def likeness(targets: Iterable[int]) -> float:
        renamed = dict(zip(used, targets, strict=True))
        moved = [(frozenset(renamed[pipe] for pipe in mine), theirs) for mine, theirs in common]
        return sum(len(mine & theirs) / len(mine | theirs) for mine, theirs in moved)

    renamed = dict(zip(used, max(itertools.permutations(range(size), len(used)), key=likeness), strict=True))
    return {name: Occupation(frozenset(renamed[pipe] for pipe in use.pipes), use.cycles) for name, use in new.items()}


@dataclass(frozen=True, order=True)
class _Partial:
    """The first instructions placed: what it cost, pipes in use, and (bit mask of pipes, cycles) of each."""

    cost: float
    pipes: int
    taken: tuple[tuple[int, float], ...]


def _partners(name: str, mixes: Mapping[Mix, float]) -> list[tuple[str, int, int, float]]:
    """(other, copies of ``name``, copies of the other, cycles) of each mix that ``name`` is in."""
    found = [(m.second, m.first_count, m.second_count, t) for m, t in mixes.items() if m.first == name]
    return found + [(m.first, m.second_count, m.first_count, t) for m, t in mixes.items() if m.second == name]


def _error(
    taken: Sequence[tuple[int, float]],
    mask: int,
    cycles: float,
    met: Sequence[tuple[int, int, int, float]],
    issue_width: float,
) -> float:
    """Sum of squared relative errors of the mixes ``met`` of an instruction placed on ``mask``."""
    total, alone = 0.0, cycles / _size(mask)
    for index, mine, theirs, measured in met:
        other, other_cycles = taken[index]
        a, b = mine * cycles, theirs * other_cycles
        predicted = max(mine * alone, b / _size(other), (a + b) / _size(mask | other), (mine + theirs) / issue_width)
        total += (predicted / measured - 1) ** 2
    return total


def _masks(known: int, count: int) -> list[tuple[int, int]]:
    """(bit mask, pipes that are new) of the sets of ``count`` pipes; new ones follow the ``known`` ones."""
    found = []
    for new in range(max(0, count - known), min(count, MAX_PIPES - known) + 1):
        fresh = ((1 << new) - 1) << known
        found += [
            (fresh | sum(1 << pipe for pipe in old), new) for old in itertools.combinations(range(known), count - new)
        ]
    return found


def _size(mask: int) -> int:
    return mask.bit_count()


def _pipes(mask: int) -> frozenset[int]:
    return frozenset(pipe for pipe in range(MAX_PIPES) if mask >> pipe & 1)
