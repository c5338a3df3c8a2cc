"""CPU kernels against the best INT8 library of every shape, one thread: the goals K1-K7."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks._frame import Goal, Result, main
from benchmarks._interleave import LimitedPeers, Sample, interleave, sampler
from benchmarks._ours import Ours, choose, gemm, layer
from benchmarks._peers import PEERS, Shape, is_present, prepare
from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.library import build_kernels
from soniq_dse.native.timing import cycles_per_second
from soniq_dse.records.palette import Level

GEMMS = (
    Shape(16, 1024, 1024), Shape(128, 1024, 1024), Shape(256, 512, 2304), Shape(1024, 128, 1152), Shape(1024, 64, 576),
)  # fmt: skip
GEMVS = (Shape(1, 4096, 4096), Shape(1, 16384, 4096))
WIDE = (Shape.conv(64, 56), Shape.conv(128, 28), Shape.conv(256, 14), Shape.conv(512, 7))
NARROW = (Shape.conv(16, 32), Shape.conv(32, 16), Shape.conv(64, 8))
DEEP, GEMV = GEMMS[2], GEMVS[0]
QUICK = (DEEP, GEMV, WIDE[0], NARROW[0])

SINGLE = ("w1a1", "w1a2", "w1a4", "w2a2", "w2a4", "w4a4", "w4a8", "w2a8", "w8a8", "w4", "w2")
AVX2_LEVELS = ("w1a1", "w2a2", "w8a8")
MIXES = ((("w1a1", 0.8), ("w4a4", 0.2)), (("w1a1", 0.8), ("w2a2", 0.2)))
CONV_LEVELS = ("w1a1", "w2a2", "w4a4", "w8a8")
NO_AMX, AVX2 = "AVX512_CORE_VNNI", "AVX2"
AVX2_FEATURES = ("avx2", "fma")
GFNI = "gfni"


@dataclass(frozen=True)
class Measured:
    """Seconds of one of our kernels on a shape and of its peers there, all taken in turns."""

    shape: Shape
    ours: Ours
    isa: str
    run_s: float
    both_s: float
    clock_hz: float
    int8_s: dict[str, float]
    no_amx_s: dict[str, float]
    fp32_s: float

    @property
    def key(self) -> tuple[str, str, str]:
        """What goals ask for: shape, kind of level, instruction set."""
        return self.shape.name, kind_of(self.ours.label), self.isa

    def per_cycle(self, seconds: float) -> float:
        """MAC per core cycle."""
        return self.shape.macs / (seconds * self.clock_hz)

    def gain(self, *, packing: bool = True) -> float | None:
        """Times the best INT8 library; None without one."""
        return min(self.int8_s.values()) / (self.both_s if packing else self.run_s) if self.int8_s else None

    def row(self) -> dict[str, object]:
        """A row of the table."""
        best, free = _best(self.int8_s), _best(self.no_amx_s)
        return {
            "shape": self.shape.name,
            "level": self.ours.label,
            "isa": self.isa,
            "kernel": " ".join(self.ours.kernels),
            "padding of k": self.ours.waste,
            "MAC/cycle": self.per_cycle(self.run_s),
            "MAC/cycle with packing": self.per_cycle(self.both_s),
            "best INT8 peer": best or "missing",
            "its MAC/cycle": self.per_cycle(self.int8_s[best]) if best else "",
            "x best": self.gain(packing=False) or "",
            "x best, with packing": self.gain() or "",
            "best INT8 peer without AMX": free or "missing",
            "its MAC/cycle without AMX": self.per_cycle(self.no_amx_s[free]) if free else "",
            "x that, with packing": self.no_amx_s[free] / self.both_s if free else "",
            "torch fp32 MAC/cycle": self.per_cycle(self.fp32_s) if self.fp32_s else "",
        }


def kind_of(label: str) -> str:
    """``81% w1a1+19% w4a4`` -> ``w1a1+w4a4``: the shares are rounded to whole segments."""
    return "+".join(part.split()[-1] for part in label.split("+"))


def _best(seconds: dict[str, float]) -> str | None:
    return min(seconds, key=lambda name: seconds[name]) if seconds else None


def our_calls(shape: Shape, features: Sequence[str]) -> list[Ours]:
    """Everything of ours on a shape: single products and mixes, or convolutions."""
    mixes = [[(Level.parse(name), share) for name, share in mix] for mix in MIXES]
    if shape.size:
        single = [[(Level.parse(name), 1.0)] for name in CONV_LEVELS]
        return [layer(shape, mix, features) for mix in (*single, *mixes)]
    return [gemm(shape, Level.parse(name), features) for name in SINGLE] + [
        layer(shape, mix, features) for mix in mixes
    ]


def gfni_calls(features: Sequence[str]) -> list[Ours]:
    """The deep product and the first mix by the GFNI kernel, which the runtime does not prefer; none without it."""
    level = Level.parse("w1a1")
    if choose(level, DEEP.rows, DEEP.cols, features, GFNI).algorithm != GFNI:
        return []
    mix = [(Level.parse(name), share) for name, share in MIXES[0]]
    return [gemm(DEEP, level, features, GFNI), layer(DEEP, mix, features, GFNI)]


def build_all(shapes: Iterable[Shape], features: Sequence[str]) -> None:
    """Compile side by side what the shapes need."""
    wanted = [
        choose(Level.parse(name), shape.rows, shape.cols, chosen)
        for shape in shapes
        for names, chosen in ((CONV_LEVELS if shape.size else SINGLE, features), (AVX2_LEVELS, AVX2_FEATURES))
        for name in names
    ]
    build_kernels(wanted)


def measure_shape(
    shape: Shape, features: Sequence[str], limited: dict[str, LimitedPeers], rounds: int, sample_s: float
) -> list[Measured]:
    """All of ours and all peers on one shape, interleaved."""
    groups = [(ours, "host") for ours in our_calls(shape, features)]
    if shape in GEMMS:
        groups += [(gemm(shape, Level.parse(name), AVX2_FEATURES), "avx2") for name in AVX2_LEVELS]
    if shape == DEEP:
        groups += [(ours, GFNI) for ours in gfni_calls(features)]
    samples: dict[str, Sample] = {}
    for index, (ours, _) in enumerate(groups):
        samples[f"{index} run"] = sampler(ours.run, sample_s)
        samples[f"{index} both"] = sampler(ours.pack_and_run, sample_s)
    samples |= {name: sampler(call, sample_s) for name, call in prepare(shape, PEERS).items()}
    for isa, peers in limited.items():
        if isa == NO_AMX or shape in GEMMS:
            samples |= {f"{isa} {name}": one for name, one in peers.samplers(shape, sample_s).items()}
    samples["clock"] = lambda: 1 / cycles_per_second()
    seconds = interleave(samples, rounds)
    int8 = {peer.name: seconds[peer.name] for peer in PEERS if peer.bits == 8 and peer.name in seconds}
    under = {
        isa: {name.removeprefix(f"{isa} "): s for name, s in seconds.items() if name.startswith(f"{isa} ")}
        for isa in limited
    }
    return [
        Measured(
            shape, ours, isa, seconds[f"{index} run"], seconds[f"{index} both"], 1 / seconds["clock"],
            under[AVX2] if isa == "avx2" else int8, {} if isa == "avx2" else under[NO_AMX], seconds["torch fp32"],
        )
        for index, (ours, isa) in enumerate(groups)
    ]  # fmt: skip


class Goals:
    """The goals K1-K7 from what was measured; the value of one whose parts are missing is None."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        self._found = {one.key: one for one in measured}

    def all(self) -> list[Goal]:
        """Every goal, in order."""
        return [*self._products(), *self._convolutions_and_mixes(), *self._vectors(), *self._avx2(), *self._narrow()]

    def _products(self) -> Iterable[Goal]:
        deep = DEEP.name
        yield self._speed("K1a", f"W1A1 by popcount, {deep}, kernel alone", DEEP, "w1a1", 320)
        yield self._speed("K1b", f"W1A1 by GFNI, {deep}, kernel alone", DEEP, "w1a1", 380, isa=GFNI)
        for letter, shape in zip("cde", GEMMS, strict=False):
            yield self._gain(f"K1{letter}", f"W1A1 with packing, {shape.name}", [shape], ["w1a1"], 5.5)
        speeds = [("w2a2", 150), ("w1a2", 240), ("w1a4", 190), ("w2a4", 93)]
        speeds += [(name, 62) for name in ("w4a4", "w4a8", "w2a8", "w8a8")]
        for letter, (name, least) in zip("abcdefgh", speeds, strict=True):
            yield self._speed(f"K2{letter}", f"{name.upper()}, {deep}, kernel alone", DEEP, name, least)
        for letter, name in zip("ijkl", ("w4a4", "w4a8", "w2a8", "w8a8"), strict=True):
            what = f"{name.upper()} with packing, slowest of all GEMM and GEMV shapes"
            yield self._gain(f"K2{letter}", what, [*GEMMS, *GEMVS], [name], 1)

    def _convolutions_and_mixes(self) -> Iterable[Goal]:
        for letter, shape, least in zip("abc", (WIDE[2], WIDE[3], WIDE[0]), (300, 300, 250), strict=True):
            what = f"W1A1 {shape.name} with packing and epilogue"
            yield self._speed(f"K3{letter}", what, shape, "w1a1", least, packing=True)
        yield self._speed("K4a", f"80 % W1A1 + 20 % W4A4 by popcount, {DEEP.name}", DEEP, "w1a1+w4a4", 165)
        yield self._speed("K4b", f"80 % W1A1 + 20 % W4A4 by GFNI, {DEEP.name}", DEEP, "w1a1+w4a4", 175, isa=GFNI)
        yield self._speed("K4c", f"80 % W1A1 + 20 % W2A2, {DEEP.name}", DEEP, "w1a1+w2a2", 230)

    def _vectors(self) -> Iterable[Goal]:
        levels = [("w1a1", 10.0), ("w2a2", 5.0), ("w1a2", 6.5), ("w1a1+w4a4", 6.0)]
        for letter, (name, least) in zip("abcd", levels, strict=True):
            yield self._gain(f"K5{letter}", f"{name.upper()} with packing, {GEMV.name}", [GEMV], [name], least)
        for letter, name, least in (("e", "w4", 3.0), ("f", "w2", 5.0)):
            one = self._found.get((GEMV.name, name, "host"))
            value = one.fp32_s / one.both_s if one and one.fp32_s else None
            yield Goal(
                f"K5{letter}", f"{name.upper()} weight-only against torch fp32, {GEMV.name}", "x", value, at_least=least
            )

    def _avx2(self) -> Iterable[Goal]:
        for letter, name, least in (("a", "w1a1", 4.0), ("b", "w2a2", 2.0), ("c", "w8a8", 1.0)):
            what = f"{name.upper()} on AVX2 with packing against oneDNN limited to AVX2, slowest GEMM shape"
            yield self._gain(f"K6{letter}", what, GEMMS, [name], least, isa="avx2")

    def _narrow(self) -> Iterable[Goal]:
        kinds = [*CONV_LEVELS, *("+".join(name for name, _ in mix) for mix in MIXES)]
        found = [self._found.get((shape.name, kind, "host")) for shape in NARROW for kind in kinds]
        waste = max(one.ours.waste for one in found if one) * 100 if all(found) else None
        yield Goal("K7a", "largest padding of k in narrow convolutions", "%", waste, at_most=15)
        for letter, shape in zip("bcd", NARROW, strict=True):
            yield self._gain(f"K7{letter}", f"W1A1 {shape.name} with packing and epilogue", [shape], ["w1a1"], 1)
        what = "slowest of all levels and narrow convolutions, with packing and epilogue"
        yield self._gain("K7e", what, NARROW, kinds, 1)

    def _speed(
        self, id_: str, what: str, shape: Shape, kind: str, least: float, *, packing: bool = False, isa: str = "host"
    ) -> Goal:
        one = self._found.get((shape.name, kind, isa))
        value = one.per_cycle(one.both_s if packing else one.run_s) if one else None
        return Goal(id_, what, "MAC/cycle", value, at_least=least)

    def _gain(
        self, id_: str, what: str, shapes: Iterable[Shape], kinds: Iterable[str], least: float, isa: str = "host"
    ) -> Goal:
        asked = [(shape.name, kind, isa) for kind in kinds for shape in shapes]
        gains = [self._found[key].gain() if key in self._found else None for key in asked]
        known = [gain for gain in gains if gain is not None]
        return Goal(id_, what, "x best INT8", min(known) if len(known) == len(gains) else None, at_least=least)


def notes() -> list[str]:
    """How to read the table."""
    absent = [peer.name for peer in PEERS if not is_present(peer)]
    return [
        *([f"Missing peers: {', '.join(absent)}; ratios are against the others.", ""] if absent else []),
        "Thread CPU time, medians over interleaved rounds, one thread; MAC without padding; a cycle is one dependent "
        "addition.",
        "",
        "Goals are judged against the strongest library as it runs by default: where the processor has AMX, oneDNN, "
        "OpenVINO and onnxruntime use it. Without AMX: oneDNN (torch) and OpenVINO in a process with "
        f"ONEDNN_MAX_CPU_ISA={NO_AMX}; rows with isa avx2 name peers under ONEDNN_MAX_CPU_ISA={AVX2}.",
        "",
        "Products give raw sums, as MatMulInteger does; convolutions and mixes run the layer driver with its epilogue "
        "to u8 codes, as their peers do. Shares of a mix are rounded to segments of 64 channels in wide layers. "
        "Rows with isa gfni run the GFNI kernel, which the runtime does not prefer, against the same peers as host.",
    ]  # fmt: skip


def measure(quick: bool) -> Result:
    """Four shapes shortly, or all."""
    features = detect_host().features
    shapes = QUICK if quick else (*GEMMS, *GEMVS, *WIDE, *NARROW)
    build_all(shapes, features)
    measured: list[Measured] = []
    with contextlib.ExitStack() as stack:
        limited = {isa: LimitedPeers(isa) for isa in (NO_AMX, AVX2)}
        for peers in limited.values():
            stack.callback(peers.close)
        for shape in shapes:
            measured += measure_shape(shape, features, limited, 3 if quick else 9, 2e-3 if quick else 8e-3)
    return Result(Goals(measured).all(), [one.row() for one in measured], notes())


if __name__ == "__main__":
    main("kernels", "CPU kernels", measure)
