"""What instructions read and write, and recurrences worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from soniq_dse.cost.registers import _max_cycle_mean, longest_recurrence, name_of, reads_and_writes
from soniq_dse.records.cost import LoopInstruction


def instruction(text: str) -> LoopInstruction:
    mnemonic, _, rest = text.partition(" ")
    operands = tuple(part for part in rest.split(",") if part)
    return LoopInstruction(mnemonic=mnemonic, operands=operands, width_bits=0, loads="[" in rest, text=text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("zmm3", "v3"), ("xmm31", "v31"), ("rax", "ax"), ("eax", "ax"), ("al", "ax"), ("r8d", "r8"), ("r10", "r10"),
     ("rsi", "si"), ("sil", "si"), ("dl", "dx"), ("k1", "k1")],
)  # fmt: skip
def test_names(name: str, expected: str) -> None:
    assert name_of(name) == expected


@pytest.mark.parametrize(
    ("text", "reads", "writes"),
    [
        ("vpaddq zmm1,zmm2,zmm3", {"v2", "v3"}, {"v1"}),
        ("vpdpbusd zmm1,zmm2,zmm3", {"v1", "v2", "v3"}, {"v1"}),
        ("vpxorq zmm1,zmm0,QWORD BCST [rax+rcx*8]", {"v0", "ax", "cx"}, {"v1"}),
        ("vpxor xmm1,xmm1,xmm1", set(), {"v1"}),
        ("xor eax,eax", set(), {"ax"}),
        ("vmovdqu8 zmm1{k1},zmm2", {"v1", "k1", "v2"}, {"v1"}),
        ("vmovdqu8 zmm1{k1}{z},ZMMWORD PTR [rdi]", {"k1", "di"}, {"v1"}),
        ("vmovdqu64 ZMMWORD PTR [rdi],zmm1", {"di", "v1"}, set()),
        ("add rax,0x40", {"ax"}, {"ax"}),
        ("lea rax,[rcx+0x8]", {"cx"}, {"ax"}),
        ("cmp rax,rdx", {"ax", "dx"}, set()),
        ("imul eax,ecx", {"ax", "cx"}, {"ax"}),
        ("imul eax,ecx,0x5", {"cx"}, {"ax"}),
        ("jne", set(), set()),
    ],
)
def test_reads_and_writes(text: str, reads: set[str], writes: set[str]) -> None:
    assert reads_and_writes(instruction(text)) == (frozenset(reads), frozenset(writes))


# Loop, latencies, cycles a pass that its recurrences need.
RECURRENCES = [
    # An accumulator: its own latency.
    (["vpdpbusd zmm1,zmm2,zmm3"], [5.0], 5.0),
    # The same accumulator twice: both latencies.
    (["vpdpbusd zmm1,zmm2,zmm3", "vpdpbusd zmm1,zmm4,zmm3"], [5.0, 5.0], 10.0),
    # Nothing is carried: zmm1 is written before it is read.
    (["vpaddq zmm1,zmm2,zmm3", "vpaddq zmm4,zmm1,zmm2"], [1.0, 1.0], 0.0),
    # Two registers that swap: 1 -> 2 takes 3 cycles, 2 -> 1 takes 1; two passes for 4 cycles: 2 a pass.
    (["vpsadbw zmm5,zmm1,zmm9", "vpaddq zmm1,zmm2,zmm9", "vmovdqa64 zmm2,zmm5"], [3.0, 1.0, 0.0], 2.0),
    # The pointer (1) is shorter than the sum (4).
    (["vfmadd231ps zmm1,zmm2,ZMMWORD PTR [rax]", "add rax,0x40"], [4.0, 1.0], 4.0),
    # A chain through a temporary: shift (1), then add (1), of what the pass before left.
    (["vpsrlw zmm3,zmm1,0x8", "vpaddw zmm1,zmm3,zmm2"], [1.0, 1.0], 2.0),
]


@pytest.mark.parametrize(("texts", "latencies", "cycles"), RECURRENCES)
def test_longest_recurrence(texts: list[str], latencies: list[float], cycles: float) -> None:
    assert longest_recurrence([instruction(text) for text in texts], latencies) == pytest.approx(cycles)


def test_max_cycle_mean_against_all_cycles() -> None:
    """Against the maximum over all simple cycles of small random graphs, listed one by one."""
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(5)
    for _ in range(40):
        n = int(rng.integers(1, 6))
        weights = np.where(rng.random((n, n)) < 0.5, rng.integers(0, 9, (n, n)).astype(float), -np.inf)
        graph = networkx.DiGraph([(j, i) for i in range(n) for j in range(n) if np.isfinite(weights[i, j])])
        means = [
            sum(weights[b, a] for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True)) / len(cycle)
            for cycle in networkx.simple_cycles(graph)
        ]
        assert _max_cycle_mean(weights) == pytest.approx(max(means, default=-np.inf))
