"""Loops whose bound is worked by hand on the shipped descriptors."""

from __future__ import annotations

import pytest

from soniq_dse.cost.incore import InCore
from soniq_dse.errors import UserError
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.cost import HotLoop, LoopInstruction


def loop_of(*texts: str) -> HotLoop:
    instructions = []
    for text in texts:
        mnemonic, _, rest = text.partition(" ")
        operands = tuple(part for part in rest.split(",") if part)
        memory = "[" in rest and mnemonic != "lea"
        stores = memory and "[" in operands[0]
        width = max((b for n, b in (("zmm", 512), ("ymm", 256), ("xmm", 128)) if n in rest), default=0)
        instructions.append(
            LoopInstruction(
                mnemonic=mnemonic,
                operands=operands,
                width_bits=width,
                loads=memory and not stores,
                stores=stores,
                text=text,
            )
        )
    return HotLoop(
        symbol="kernel", compiler="", flags=(), source_sha256="", macs_per_iteration=1, instructions=tuple(instructions)
    )


COUNT = ("add rax,0x40", "cmp rax,rdx", "jne 10")
POPCOUNT = ("vpxorq zmm4,zmm0,zmm1", "vpopcntq zmm4,zmm4", "vpaddq zmm2,zmm2,zmm4")

# machine, loop, cycles, bound, its words
WORKED = [
    # Xeon 6: xor and add on p0, p5, popcount on p5: 3 operations on 2 ports = 1.5; three loads' worth less.
    ("granite_rapids", (*POPCOUNT, *COUNT), 1.5, "port", "ports p0, p5"),
    # Zen 4: each holds a pipe twice; 6 / 4 = 1.5.
    ("avx512", (*POPCOUNT, *COUNT), 1.5, "port", "ports fp0, fp1, fp2, fp3"),
    # Zen 4, four 512-bit loads of 2 cycles on two pipes: 4 cycles.
    ("avx512", (*[f"vmovdqu64 zmm{i},ZMMWORD PTR [rax+0x{64 * i:x}]" for i in range(4)], *COUNT), 4.0, "load",
     "ports ld0, ld1"),
    # Zen 4, four accumulators of vpdpbusd, a cycle each on fp0, fp1, latency 4: 4 of either; ports are named first.
    ("avx512", (*[f"vpdpbusd zmm{i},zmm8,zmm9" for i in range(4)], *COUNT), 4.0, "port", "ports fp0, fp1"),
    # The same with one accumulator: 4 x latency 4.
    ("avx512", (*["vpdpbusd zmm0,zmm8,zmm9"] * 4, *COUNT), 16.0, "latency", "the longest recurrence"),
    # Zen 4, two 512-bit stores of 2 cycles on one pipe.
    ("avx512", ("vmovdqu64 ZMMWORD PTR [rax],zmm0", "vmovdqu64 ZMMWORD PTR [rax+0x40],zmm0", *COUNT), 4.0, "store",
     "port st0"),
    # Eleven register moves and the fused compare and branch leave no port busy: 11 + add + jne = 13 slots, 6 a cycle.
    ("avx512", (*[f"vmovdqa64 zmm{i},zmm16" for i in range(11)], *COUNT), 13 / 6, "issue", "issue width 6"),
]  # fmt: skip


@pytest.mark.parametrize(("machine", "texts", "cycles", "bound", "words"), WORKED)
def test_bound(machine: str, texts: tuple[str, ...], cycles: float, bound: str, words: str) -> None:
    cost = InCore().loop_cost(loop_of(*texts), load_hardware(machine))
    assert (cost.bound, cost.bound_text) == (bound, words)
    assert cost.cycles == pytest.approx(cycles, rel=1e-9)


def test_even_spread_is_the_upper_price() -> None:
    """Xeon 6: popcount whole on p5, half of xor and of add: 2 cycles, against 1.5 at best."""
    cost = InCore().loop_cost(loop_of(*POPCOUNT), load_hardware("granite_rapids"))
    assert (cost.contended_cycles, cost.expected_cycles) == (pytest.approx(2.0), pytest.approx(1.75))


def test_memory_operand_adds_a_load() -> None:
    """Zen 4: four embedded broadcasts hold a load slot each, two a cycle; their adds take 4 x 2 / 4 = 2 cycles too."""
    hw = load_hardware("avx512")
    adds = [f"vpaddd zmm{i},zmm8,DWORD BCST [rax+0x{4 * i:x}]" for i in range(4)]
    assert InCore().loop_cost(loop_of(*adds), hw).cycles == pytest.approx(2.0)
    whole = [f"vpaddd zmm{i},zmm8,ZMMWORD PTR [rax+0x{64 * i:x}]" for i in range(4)]
    cost = InCore().loop_cost(loop_of(*whole), hw)
    assert (cost.cycles, cost.bound) == (pytest.approx(4.0), "load")


def test_vector_instruction_without_data_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"kernel: expected a timing of vpconflictd at 512 bits in descriptor avx512"):
        InCore().loop_cost(loop_of("vpconflictd zmm0,zmm1"), load_hardware("avx512"))


def test_width_without_data_names_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"vpermb at 1024 bits|vpmovdb at 256 bits .* it has 512 bits"):
        InCore().loop_cost(loop_of("vpmovdb xmm0,ymm1"), load_hardware("avx512"))


def test_scalar_bookkeeping_is_assumed_and_said() -> None:
    cost = InCore().loop_cost(loop_of("rol rcx,0x3", *POPCOUNT), load_hardware("avx512"))
    assert cost.assumed == ("rol",)
