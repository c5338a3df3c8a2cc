"""What a microbenchmark runs: one instruction at one vector width, as unrolled assembly with or without dependences.

Operands follow a *form* (three registers, an accumulator, an immediate ...). Registers 0 and 1 are only read, 2-13 are
written, so that the same text runs with and without AVX-512 register names. A new instruction is one line of
``X86_PROBES``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CHAINS = 12
"""Independent destinations: covers latency / reciprocal throughput up to 12 (5 cycles at two a cycle needs 10)."""
UNROLL = 48
"""Instructions per pass of the loop: its counter and branch add one fused micro-operation to 48."""
NOPS = 30
"""No-operations to an instruction where its micro-operations are counted: more than run while it holds its port."""

Form = Literal[
    "binary", "accumulate", "unary", "immediate", "binary_immediate", "narrow", "halve", "broadcast", "load", "store",
    "scalar", "compare", "to_scalar", "widen", "update", "address", "extend", "shift",
]  # fmt: skip
# AT&T operand order: {d} destination, {a}, {b} sources, {x}, {xd} their 128-bit names, {h}, {hd} those at half
# width, {s} a scalar, {o} an offset in bytes.
_OPERANDS: dict[Form, str] = {
    "binary": "{b}, {a}, {d}",
    "accumulate": "{b}, {c}, {d}",
    "unary": "{a}, {d}",
    "immediate": "$4, {a}, {d}",
    "binary_immediate": "$0x96, {b}, {a}, {d}",
    "narrow": "{a}, {xd}",
    "halve": "{a}, {hd}",
    "broadcast": "{x}, {d}",
    "widen": "{h}, {d}",
    "load": "{o}(%[p]), {d}",
    "store": "{a}, 2048+{o}(%[p])",
    "scalar": "{a}, {d}",
    "compare": "{b}, {a}",
    "to_scalar": "{x}, {s}",
    "update": "{c}, {d}",
    "address": "8({a}), {d}",
    "extend": "{a}b, {d}d",
    "shift": "$4, {d}",
}
_WITHOUT_LATENCY = frozenset({"narrow", "halve", "load", "store", "compare", "to_scalar"})
_REGISTER = {128: "xmm", 256: "ymm", 512: "zmm"}
_SCALARS = ("r10", "r11", "r12", "r13", "r14", "r15")
_SCALAR_SOURCES = ("r8", "r9")


@dataclass(frozen=True)
class Probe:
    """An instruction to be timed. ``name`` is its key in a descriptor where that differs from the mnemonic."""

    mnemonic: str
    form: Form
    width_bits: int
    features: tuple[str, ...] = ()
    name: str = ""

    @property
    def key(self) -> str:
        """The descriptor's name of the instruction."""
        return self.name or self.mnemonic

    @property
    def has_latency(self) -> bool:
        """Whether its result can feed itself."""
        return self.form not in _WITHOUT_LATENCY

    def line(self, chain: int, *, dependent: bool, step: int = 0) -> str:
        """One instruction writing register 2 + ``chain``; ``dependent``: it also reads what it writes."""
        target = 2 + chain % CHAINS
        source = target if dependent else 0
        half = "ymm" if self.width_bits == 512 else "xmm"
        operands = _OPERANDS[self.form].format(
            d=self._register(target),
            a=self._register(source),
            b=self._register(1),
            c=self._register(0),
            x=f"%%xmm{source}",
            h=f"%%{half}{source}",
            hd=f"%%{half}{target}",
            xd=f"%%xmm{target}",
            s=f"%%{_SCALARS[chain % len(_SCALARS)]}",
            o=max(self.width_bits // 8, 8) * (step % 8),
        )
        return f"{self.mnemonic} {operands}"

    def _register(self, index: int) -> str:
        if self.width_bits == 0:
            return "%%" + (_SCALAR_SOURCES[index] if index < 2 else _SCALARS[(index - 2) % len(_SCALARS)])
        return f"%%{_REGISTER[self.width_bits]}{index}"


def throughput_body(mix: Sequence[Probe]) -> list[str]:
    """About ``UNROLL`` instructions, ``mix`` over and over, that never wait for one another.

    Each probe of the mix goes through all destinations by itself: were they dealt out in turn, an accumulating one
    could meet its own results in a few of them only, and its latency would pass for a shared pipe. Two accumulating
    ones have half of the destinations each, lest they wait for one another.
    """
    accumulating = [probe for probe in dict.fromkeys(mix) if probe.form == "accumulate"]
    share = CHAINS // max(1, len(accumulating))
    seen: dict[Probe, int] = {}
    body = []
    for i in range(UNROLL // len(mix) * len(mix)):
        probe = mix[i % len(mix)]
        chain = seen[probe] = seen.get(probe, -1) + 1
        if probe in accumulating:
            chain = chain % share + share * accumulating.index(probe)
        body.append(probe.line(chain, dependent=False, step=i))
    return body


def latency_body(probe: Probe) -> list[str]:
    """``UNROLL`` instructions, each waiting for the one before."""
    return [probe.line(0, dependent=True) for _ in range(UNROLL)]


def slots_body(probe: Probe) -> list[str]:
    """An instruction among so many ``nop`` that the front end alone sets the time."""
    lines = [probe.line(chain, dependent=False, step=chain) for chain in range(3)]
    return [text for line in lines for text in (line, *["nop"] * NOPS)]


def front_end_bodies() -> list[list[str]]:
    """Rows that the front end alone can set the time of, up to six a cycle: moves between registers, which are done
    while renaming, and additions, vector logic and loads in equal parts. Rows of ``nop`` would not do: some processors
    fuse one with its neighbour.
    """
    moves = ["mov %%r8, %%r10"] * UNROLL
    mixed = []
    for i in range(UNROLL // 3):
        low, high = _SCALARS[i % 3], _SCALARS[3 + i % 3]
        mixed += [f"add %%r8, %%{low}", f"vpand %%xmm0, %%xmm1, %%xmm{2 + i % CHAINS}"]
        mixed += [f"mov {8 * (i % 8)}(%[p]), %%{high}"]
    return [moves, mixed]


def _vector(form: Form, *features: str, names: str) -> list[Probe]:
    """Probes at 128, 256 and 512 bits; below 512 an AVX-512 instruction needs ``avx512vl`` besides its own feature."""
    wide = any(feature.startswith("avx512") for feature in features)
    return [
        Probe(name, form, width, (*features, *(("avx512vl",) if wide and width < 512 else ())))
        for name in names.split()
        for width in (128, 256, 512)
    ]


def _up_to_avx2(form: Form, names: str, at_512: str = "avx512bw") -> list[Probe]:
    """Probes of instructions that exist as AVX2 (128 and 256 bits) and as AVX-512."""
    return [
        Probe(name, form, width, ("avx2",) if width < 512 else (at_512,))
        for name in names.split()
        for width in (128, 256, 512)
    ]


X86_PROBES: tuple[Probe, ...] = (
    *_vector("accumulate", "avx512_vnni", names="vpdpbusd vpdpwssd"),
    *_vector("unary", "avx512_vpopcntdq", names="vpopcntq vpopcntd"),
    *_vector("unary", "avx512_bitalg", names="vpopcntb"),
    *_vector("binary", "avx512f", names="vpxorq vpxord vpandq vpandd vporq vpord"),
    *_vector("binary_immediate", "avx512f", names="vpternlogq vpternlogd"),
    *_vector("binary", "avx512vbmi", names="vpermb"),
    *_vector("accumulate", "avx512vbmi", names="vpermi2b vpermt2b"),
    *_vector("accumulate", "avx512f", names="vpermi2q vpermt2q"),
    *_vector("binary_immediate", "gfni", "avx512f", names="vgf2p8affineqb"),
    *[Probe(name, "binary", width, ("avx2",)) for name in ("vpxor", "vpand", "vpor") for width in (128, 256)],
    *_up_to_avx2("binary", "vpaddb vpaddw vpsubb vpsubw vpshufb vpsadbw vpmaddubsw vpmaddwd vpunpcklbw vpunpckhbw"),
    *_up_to_avx2("binary", "vpaddd vpaddq vpsubd vpmulld vpunpckldq vpunpcklqdq", "avx512f"),
    *_up_to_avx2("immediate", "vpsrlw vpsllw"),
    *_up_to_avx2("immediate", "vpsrld vpslld vpsrlq vpsllq", "avx512f"),
    *[
        Probe(name, "binary", width, ("avx2",) if width == 256 else ("avx512f",))
        for name in ("vpermd", "vpermps")
        for width in (256, 512)
    ],
    *_up_to_avx2("broadcast", "vpbroadcastd vpbroadcastq", "avx512f"),
    *_up_to_avx2("unary", "vcvtdq2ps vcvtps2dq", "avx512f"),
    *_up_to_avx2("binary", "vaddps vmulps vmaxps vminps", "avx512f"),
    *_up_to_avx2("accumulate", "vfmadd132ps vfmadd213ps vfmadd231ps", "avx512f"),
    *_up_to_avx2("broadcast", "vpmovzxbd vpmovsxbd vpmovsxbq", "avx512f"),
    *_up_to_avx2("widen", "vpmovzxbw vpmovsxbw"),
    Probe("vpmovdb", "narrow", 512, ("avx512f",)),
    Probe("vpmovqd", "halve", 512, ("avx512f",)),
    Probe("vmovq", "to_scalar", 128, ("avx2",)),
    Probe("mov", "load", 0, (), "load"),
    *[Probe("vmovdqu", "load", width, ("avx2",), "load") for width in (128, 256)],
    Probe("vmovdqu64", "load", 512, ("avx512f",), "load"),
    *[
        Probe("vpbroadcastq", "load", width, ("avx2",) if width < 512 else ("avx512f",), "load_broadcast")
        for width in (128, 256, 512)
    ],
    *[Probe("vmovdqu", "store", width, ("avx2",), "store") for width in (128, 256)],
    Probe("vmovdqu64", "store", 512, ("avx512f",), "store"),
    Probe("mov", "store", 0, (), "store"),
    *[Probe(name, "update", 0) for name in ("add", "sub", "imul", "and")],
    Probe("mov", "scalar", 0),
    Probe("cmp", "compare", 0),
    Probe("lea", "address", 0),
    Probe("movzbl", "extend", 0, (), "movzx"),
    Probe("shl", "shift", 0),
)
"""What the CPU kernels emit, on x86-64, with the features (names of ``/proc/cpuinfo``) that each needs."""

LANDMARKS = (
    "vpaddd", "vpand", "vpandd", "vpsrld", "vpshufb", "vpermd", "vpmaddwd", "vpdpbusd", "vpsadbw",
    "vpopcntq", "vgf2p8affineqb", "vaddps", "vfmadd231ps", "vcvtdq2ps",
)  # fmt: skip
"""One instruction of each kind of vector unit: which of them share pipes tells the pipes apart."""
YARDSTICKS = ("vpaddd", "vpsrld", "vpshufb", "vpermd", "vpmaddwd", "vaddps", "vfmadd231ps")
"""The landmarks that every other vector instruction is mixed with."""
