"""CPU kernels against the best INT8 library of every shape: the goals K1-K7 for one thread, T1 for two."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks._frame import Goal, Result, Row, main
from benchmarks._interleave import LimitedPeers, Sample, idle_share, interleave, least_wall_seconds, sampler
from benchmarks._ours import Features, Ours, choose, gemm, layer, part_of, solo
from benchmarks._peers import PEERS, Shape, is_present, prepare
from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.library import build_kernels
from soniq_dse.native.timing import cycles_per_second
from soniq_dse.records.palette import Level

GEMMS = (
    Shape(16, 1024, 1024), Shape(128, 1024, 1024), Shape(256, 512, 2304), Shape(1024, 128, 1152), Shape(1024, 64, 576),
)  # fmt: skip
GEMVS = (Shape(1, 4096, 4096), Shape(1, 16384, 4096))
TRANSFORMER = (
    Shape(128, 768, 768), Shape(128, 3072, 768), Shape(128, 768, 3072), Shape(1, 3072, 768), Shape(1, 768, 3072),
)  # fmt: skip
"""Prefill of 128 tokens and decode of one: width 768."""
WIDE = (Shape.conv(64, 56), Shape.conv(128, 28), Shape.conv(256, 14), Shape.conv(512, 7))
NARROW = (Shape.conv(16, 32), Shape.conv(32, 16), Shape.conv(64, 8))
RESNET18 = (
    Shape.conv(3, 224, 64, kernel=7, stride=2), Shape.conv(64, 56, 128, stride=2),
    Shape.conv(64, 56, 128, kernel=1, stride=2), Shape.conv(256, 14, 512, stride=2),
)  # fmt: skip
RESNET20 = (Shape.conv(3, 32, 16), Shape.conv(16, 32, 32, stride=2))
MOBILENETV2 = (
    Shape.conv(24, 56, 144, kernel=1), Shape.conv(144, 56, groups=144), Shape.conv(192, 14, 64, kernel=1),
    Shape.conv(96, 14, 576, kernel=1), Shape.conv(576, 14, groups=576), Shape.conv(960, 7, 320, kernel=1),
)  # fmt: skip
"""Pointwise and depthwise. What ResNet-18 and ResNet-20 have besides is in WIDE and NARROW."""
DEEP, GEMV = GEMMS[2], GEMVS[0]
QUICK = (DEEP, GEMV, WIDE[0], NARROW[0])
SHAPES = (*GEMMS, *GEMVS, *TRANSFORMER, *WIDE, *NARROW, *RESNET18, *RESNET20, *MOBILENETV2)
PASSES = 3

NARROW_LEVELS = ("w1a1", "w1a2", "w1a4", "w2a2", "w2a4")
WIDE_LEVELS = ("w4a4", "w4a8", "w2a8", "w8a8", "w4", "w2")
SINGLE = (*NARROW_LEVELS, *WIDE_LEVELS)
AVX2_LEVELS = ("w1a1", "w2a2", "w8a8")
MIXES = ((("w1a1", 0.8), ("w4a4", 0.2)), (("w1a1", 0.8), ("w2a2", 0.2)))
CONV_LEVELS = ("w1a1", "w2a2", "w4a4", "w8a8")
NO_AMX, AVX2 = "AVX512_CORE_VNNI", "AVX2"
AVX2_FEATURES = ("avx2", "fma")
POPCOUNT, GFNI = "popcount", "gfni"


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
    float_s: dict[str, float]

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

    def row(self) -> Row:
        """A row as it is kept."""
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
            **{
                f"{name} MAC/cycle": self.per_cycle(seconds) if seconds else ""
                for name, seconds in self.float_s.items()
            },
        }


def kind_of(label: str) -> str:
    """``81% w1a1+19% w4a4`` -> ``w1a1+w4a4``: the shares are rounded to whole segments."""
    return "+".join(part.split()[-1] for part in label.split("+"))


def _best(seconds: dict[str, float]) -> str | None:
    return min(seconds, key=lambda name: seconds[name]) if seconds else None


@dataclass(frozen=True)
class Scaling:
    """Wall seconds of one layer by one thread and by two; ``idle``: the share of the cores that nobody used."""

    shape: Shape
    level: str
    one_s: float
    two_s: float
    idle: float

    @property
    def gain(self) -> float:
        """Times one thread."""
        return self.one_s / self.two_s

    def row(self, like: Row) -> Row:
        """A row as it is kept, with the keys of ``like``."""
        told = {"shape": self.shape.name, "level": self.level, "isa": "2 threads"}
        told |= {"kernel": f"{self.gain:.2f} times one thread, cores {self.idle:.0%} idle before"}
        told |= {"MAC/cycle with packing": self.shape.macs / self.two_s / cycles_per_second()}
        return dict.fromkeys(like, "") | told


def two_threads(features: Features) -> list[Scaling]:
    """Compute-bound layers by one thread and by two, in turns."""
    found = []
    for shape, name in ((DEEP, "w1a1"), (DEEP, "w8a8"), (WIDE[1], "w1a1"), (WIDE[1], "w4a4"), (WIDE[2], "w8a8")):
        calls = [solo(shape, mix_of([(name, 1.0)]), features, threads=threads).pack_and_run for threads in (1, 2)]
        idle = idle_share()
        one_s, two_s = least_wall_seconds(calls)
        found.append(Scaling(shape, name, one_s, two_s, idle))
    return found


def our_calls(shape: Shape, features: Features) -> list[tuple[Ours, str]]:
    """Everything of ours on a shape, with the kind of its row: single products and mixes, or convolutions."""
    mixes = [mix_of(mix) for mix in MIXES]
    if shape.size:
        single = [mix_of([(name, 1.0)]) for name in CONV_LEVELS]
        depthwise = shape.groups > 1
        return [(layer(shape, mix, features), "host") for mix in (single if depthwise else (*single, *mixes))]
    calls = [(gemm(shape, Level.parse(name), features), "host") for name in SINGLE]
    calls += [(layer(shape, mix, features), "host") for mix in mixes]
    if shape in GEMMS:
        calls += [(gemm(shape, Level.parse(name), AVX2_FEATURES), "avx2") for name in AVX2_LEVELS]
    if shape == DEEP:
        calls += [call for algorithm in (POPCOUNT, GFNI) for call in _forced(features, algorithm)]
    return [(ours, isa) for ours, isa in calls if ours is not None]


def mix_of(named: Iterable[tuple[str, float]]) -> list[tuple[Level, float]]:
    """Levels by name."""
    return [(Level.parse(name), share) for name, share in named]


def _forced(features: Features, algorithm: str) -> list[tuple[Ours | None, str]]:
    """The deep product and the first mix by a kernel that the runtime may not prefer; none without it."""
    level = Level.parse("w1a1")
    if choose(part_of(DEEP, level), features, algorithm)[0].algorithm != algorithm:
        return []
    mix = mix_of(MIXES[0])
    return [(gemm(DEEP, level, features, algorithm), algorithm), (layer(DEEP, mix, features, algorithm), algorithm)]


def build_all(shapes: Iterable[Shape], features: Features) -> None:
    """Compile side by side what the products need."""
    wanted = [
        choose(part_of(shape, Level.parse(name)), chosen)[0]
        for shape in shapes
        if not shape.size
        for names, chosen in ((SINGLE, features), (AVX2_LEVELS, AVX2_FEATURES))
        for name in names
    ]
    build_kernels(spec for spec in wanted if spec.features)


def measure_shape(
    shape: Shape, features: Features, limited: dict[str, LimitedPeers], rounds: int, sample_s: float
) -> list[Measured]:
    """All of ours and all peers on one shape, interleaved."""
    groups = our_calls(shape, features)
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
    floats = {peer.name: seconds.get(peer.name, 0.0) for peer in PEERS if peer.bits > 8}
    under = {
        isa: {name.removeprefix(f"{isa} "): s for name, s in seconds.items() if name.startswith(f"{isa} ")}
        for isa in (NO_AMX, AVX2)
    }
    return [
        Measured(
            shape, ours, isa, seconds[f"{index} run"], seconds[f"{index} both"], 1 / seconds["clock"],
            under[AVX2] if isa == "avx2" else int8, {} if isa == "avx2" else under[NO_AMX], floats,
        )
        for index, (ours, isa) in enumerate(groups)
    ]  # fmt: skip


class Goals:
    """The goals K1-K7 from what was measured; the value of one whose parts are missing is None."""

    def __init__(self, measured: Sequence[Measured], scaling: Sequence[Scaling] = ()) -> None:
        self._found = {one.key: one for one in measured}
        self._scaling = scaling

    def all(self) -> list[Goal]:
        """Every goal, in order."""
        one_thread = (self._products, self._convolutions_and_mixes, self._vectors, self._avx2, self._narrow)
        return [*(goal for goals in one_thread for goal in goals()), self._threads()]

    def _products(self) -> Iterable[Goal]:
        deep = DEEP.name
        popcount = POPCOUNT if (deep, "w1a1", POPCOUNT) in self._found else "host"
        yield self._speed("K1a", f"W1A1 without GFNI, {deep}, kernel alone", DEEP, "w1a1", 320, isa=popcount)
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
        popcount = POPCOUNT if (DEEP.name, "w1a1+w4a4", POPCOUNT) in self._found else "host"
        what = f"80 % W1A1 + 20 % W4A4 without GFNI, {DEEP.name}"
        yield self._speed("K4a", what, DEEP, "w1a1+w4a4", 165, isa=popcount)
        yield self._speed("K4b", f"80 % W1A1 + 20 % W4A4 by GFNI, {DEEP.name}", DEEP, "w1a1+w4a4", 175, isa=GFNI)
        yield self._speed("K4c", f"80 % W1A1 + 20 % W2A2, {DEEP.name}", DEEP, "w1a1+w2a2", 230)

    def _vectors(self) -> Iterable[Goal]:
        levels = [("w1a1", 10.0), ("w2a2", 5.0), ("w1a2", 6.5), ("w1a1+w4a4", 6.0)]
        for letter, (name, least) in zip("abcd", levels, strict=True):
            yield self._gain(f"K5{letter}", f"{name.upper()} with packing, {GEMV.name}", [GEMV], [name], least)
        for letter, name, least in (("e", "w4", 3.0), ("f", "w2", 5.0)):
            one = self._found.get((GEMV.name, name, "host"))
            value = one.float_s["torch fp32"] / one.both_s if one and one.float_s.get("torch fp32") else None
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

    def _threads(self) -> Goal:
        what = "two threads against one, slowest of the compute-bound layers, wall clock"
        gains = [one.gain for one in self._scaling]
        return Goal("T1", what, "x one thread", min(gains, default=None), at_least=1.8)

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


def tables(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows -> a line per shape and a column per level: MAC/cycle with packing, and times the best INT8 library."""
    host = [row for row in rows if row["isa"] == "host"]
    mixes = ["+".join(name for name, _ in mix) for mix in MIXES]
    products = [row for row in host if not _is_layer(row)]
    asked = {
        "Products, narrow levels, with packing": (products, NARROW_LEVELS),
        "Products, wide levels and weight-only, with packing": (products, WIDE_LEVELS),
        "Products through the layer driver, mixed": (products, mixes),
        "Convolutions with packing and epilogue": ([row for row in host if _is_layer(row)], (*CONV_LEVELS, *mixes)),
        "Limited to AVX2, libraries too": ([row for row in rows if row["isa"] == "avx2"], AVX2_LEVELS),
        "By a kernel that is not preferred": ([row for row in rows if row["isa"] in (POPCOUNT, GFNI)], None),
        "Two threads, wall clock": ([row for row in rows if row["isa"] == "2 threads"], None),
    }
    found = {heading: _pivoted(some, columns) for heading, (some, columns) in asked.items() if some}
    return {f"{heading}: MAC/cycle (x best INT8)": lines for heading, lines in found.items() if lines}


def _is_layer(row: Row) -> bool:
    return row["shape"].startswith(("conv", "depthwise"))


def _pivoted(rows: Sequence[Row], levels: Sequence[str] | None) -> list[Row]:
    """A line per shape; ``levels`` None: a line per row, with its kernel."""
    if levels is None:
        return [
            {"shape": row["shape"], "level": kind_of(row["level"]), "kernel": row["kernel"], "value": _cell(row)}
            for row in rows
        ]
    lines: dict[str, Row] = {}
    for row in rows:
        best = row["its MAC/cycle"]
        peer = f"{row['best INT8 peer']} {best:.3g}" if best else "missing"
        line = lines.setdefault(row["shape"], {"shape": row["shape"], "best INT8": peer, **dict.fromkeys(levels, "")})
        if kind_of(row["level"]) in levels:
            line[kind_of(row["level"])] = _cell(row)
    return [line for line in lines.values() if any(line[level] for level in levels)]


def _cell(row: Row) -> str:
    gain = row["x best, with packing"]
    return f"{row['MAC/cycle with packing']:.3g}" + (f" ({gain:.2g}x)" if gain else "")


def notes() -> list[str]:
    """How to read the tables."""
    absent = [peer.name for peer in PEERS if not is_present(peer)]
    amx = "amx-tile" in detect_host().features
    return [
        *([f"Missing peers: {', '.join(absent)}; ratios are against the others.", ""] if absent else []),
        "Thread CPU time, medians over interleaved rounds, one thread; MAC without padding; a cycle is one dependent "
        "addition. Kernels alone, their names and padding are in the kept JSON.",
        "",
        "Goals are judged against the strongest library as it runs by default"
        + (f", with AMX; the JSON has it under ONEDNN_MAX_CPU_ISA={NO_AMX} too." if amx else ".")
        + f" Limited to AVX2: oneDNN (torch) and OpenVINO in a process with ONEDNN_MAX_CPU_ISA={AVX2}.",
        "",
        "Products give raw sums, as MatMulInteger does; convolutions and mixes run the layer driver with its epilogue "
        "to u8 codes, as their peers do. Shares of a mix are rounded to segments of 64 channels in wide layers. "
        "Kernels are those that the cost model chooses, where a descriptor speaks of the host. Two threads: the least "
        "of several wall times of each, since other processes share the cores; how idle these were is in the JSON.",
    ]  # fmt: skip


def measure(quick: bool) -> Result:
    """Four shapes shortly, or all."""
    features = detect_host().features
    shapes = QUICK if quick else SHAPES
    build_all(shapes, features)
    measured: list[Measured] = []
    with contextlib.ExitStack() as stack:
        limited = {isa: LimitedPeers(isa) for isa in (NO_AMX, AVX2) if isa == AVX2 or "amx-tile" in features}
        for peers in limited.values():
            stack.callback(peers.close)
        for shape in shapes:
            measured += measure_shape(shape, features, limited, 3 if quick else 5, 2e-3 if quick else 5e-3)
    scaling = [] if quick else two_threads(features)
    rows = [one.row() for one in measured]
    return Result(Goals(measured, scaling).all(), rows + [one.row(rows[0]) for one in scaling], notes())


if __name__ == "__main__":
    main("kernels", "CPU kernels", measure, passes=PASSES, tables=tables)
