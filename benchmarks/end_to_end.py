"""Whole networks on the packed runtime against FP32 and the best INT8 library: goals E1 to E4, E3d in ``decode``."""

from __future__ import annotations

import argparse
import datetime
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks._frame import Goal, Result, Row, keep, kept_here, main
from benchmarks._interleave import idle_share
from benchmarks._network_peers import peer_calls, set_peer_threads
from benchmarks._networks import NETWORKS, Network, ours, random_network
from benchmarks._ours import Mix
from benchmarks._peers import Call
from soniq_dse.hardware.host import detect_host
from soniq_dse.native.timing import thread_seconds
from soniq_dse.records.palette import Level

NAME, TITLE = "end_to_end", "Whole networks, end to end"
RESNET18, RESNET18_LARGE, RESNET20, MOBILENETV2, VIT, DECODER = NETWORKS
OF_IMAGES = (RESNET18, RESNET18_LARGE, RESNET20, MOBILENETV2, VIT)
W1A1, W2A2, W4A4, W8A8 = "w1a1", "w2a2", "w4a4", "w8a8"
WITH_W2A2, WITH_W4A4 = "80% w1a1+20% w2a2", "80% w1a1+20% w4a4"
MIXES: Mapping[str, Mix] = {
    **{name: ((Level.parse(name), 1.0),) for name in (W1A1, W2A2, W4A4, W8A8)},
    WITH_W2A2: ((Level.parse(W1A1), 0.8), (Level.parse(W2A2), 0.2)),
    WITH_W4A4: ((Level.parse(W1A1), 0.8), (Level.parse(W4A4), 0.2)),
}
"""By label: levels and their shares of the channels, rounded to segments of 64 in wide layers."""
THREADS = (1, 2)
PARTS = tuple(itertools.product(NETWORKS, THREADS))
"""What is measured and kept at once: a network by a number of threads."""
QUICK = ((RESNET20, 1),)
PASSES, ROUNDS, QUICK_ROUNDS = 3, 11, 5
"""Each pass sets everything up anew: where pages of memory lie moves a network by some percent for good."""
SAMPLE_S = 4e-3
REST_S = 0.05
"""Between calls timed by the wall's clock: the last library's threads spin while they wait, on cores the next needs."""

Clock = Callable[[], float]
Part = tuple[str, int]
Rows = Mapping[Part, Sequence[Row]]


@dataclass(frozen=True)
class Measured:
    """Seconds of one run of a network by ours at a palette and by its peers, round by round, all taken in turns."""

    network: str
    palette: str
    threads: int
    ours_s: Sequence[float]
    int8_s: Mapping[str, Sequence[float]]
    f32_s: Mapping[str, Sequence[float]]
    weights_bytes: int
    idle: float
    measured: str
    """When and on what processor."""

    def gains(self, peers: Mapping[str, Sequence[float]]) -> list[float]:
        """Times the best of ``peers`` (that of the least median), round by round; none without one."""
        best = best_of(peers)
        return [] if best is None else [peer / mine for peer, mine in zip(peers[best], self.ours_s, strict=True)]

    @property
    def gain(self) -> float | None:
        """Times the best INT8 library, the median over rounds."""
        gains = self.gains(self.int8_s)
        return statistics.median(gains) if gains else None

    def row(self) -> Row:
        """A row as it is kept: microseconds are medians over rounds."""
        gains, int8, f32 = self.gains(self.int8_s), best_of(self.int8_s), best_of(self.f32_s)
        median = statistics.median(self.ours_s)
        return {
            "network": self.network,
            "palette": self.palette,
            "threads": self.threads,
            "us": 1e6 * median,
            "MAD us": 1e6 * statistics.median(abs(s - median) for s in self.ours_s),
            "best INT8": int8 or "missing",
            "its us": 1e6 * statistics.median(self.int8_s[int8]) if int8 else "",
            "x best INT8": self.gain or "",
            "lowest x": min(gains, default=""),
            "highest x": max(gains, default=""),
            "best FP32": f32 or "missing",
            "its FP32 us": 1e6 * statistics.median(self.f32_s[f32]) if f32 else "",
            "x best FP32": statistics.median(self.gains(self.f32_s)) if f32 else "",
            "weights KiB": self.weights_bytes / 1024,
            "idle share of cores": self.idle,
            "measured": self.measured,
            **{f"{name} INT8 us": 1e6 * statistics.median(seconds) for name, seconds in self.int8_s.items()},
            **{f"{name} FP32 us": 1e6 * statistics.median(seconds) for name, seconds in self.f32_s.items()},
        }


def best_of(peers: Mapping[str, Sequence[float]]) -> str | None:
    """The peer of the least median."""
    return min(peers, key=lambda name: statistics.median(peers[name])) if peers else None


def in_turns(
    calls: Mapping[str, Call], rounds: int, clock: Clock, *, sample_s: float = SAMPLE_S
) -> dict[str, list[float]]:
    """Seconds per call of each by ``clock``, in each round one sample of each, after a call that warms its caches."""
    rest_s = REST_S if clock is time.perf_counter else 0.0
    taken: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {name: _repeats(call, clock, sample_s) for name, call in calls.items()}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(rest_s)
            call()
            start = clock()
            for _ in range(repeats[name]):
                call()
            taken[name].append((clock() - start) / repeats[name])
    return taken


def _repeats(call: Call, clock: Clock, sample_s: float) -> int:
    call()
    start = clock()
    call()
    return max(1, round(sample_s / max(clock() - start, 1e-6)))


def joined(passes: Sequence[Measured]) -> Measured:
    """The rounds of all passes over one network and palette as those of one."""
    first = passes[0]

    def rounds(peers: Callable[[Measured], Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
        return {name: [second for one in passes for second in peers(one)[name]] for name in peers(first)}

    return replace(
        first,
        ours_s=[second for one in passes for second in one.ours_s],
        int8_s=rounds(lambda one: one.int8_s),
        f32_s=rounds(lambda one: one.f32_s),
        idle=min(one.idle for one in passes),
    )


class Prepared:
    """A network in memory at every palette and in every library, for one number of threads."""

    def __init__(self, network: Network, threads: int, *, tune: bool) -> None:
        self.network, self.threads = network, threads
        set_peer_threads(threads)
        self._packed = {label: random_network(network.topology, mix) for label, mix in MIXES.items()}
        self._int8, self._f32 = peer_calls(network, threads)
        executors = {label: ours(one, threads, tune=tune) for label, one in self._packed.items()}
        self.calls: dict[str, Call] = {label: executor.run_again for label, executor in executors.items()}
        self.calls |= {f"INT8 {name}": call for name, call in self._int8.items()}
        self.calls |= {f"FP32 {name}": call for name, call in self._f32.items()}

    def measure(self, rounds: int) -> list[Measured]:
        """Every palette, and all peers, in one set of rounds."""
        idle = idle_share()
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes")
        when = f"{now} on {detect_host().processor}"
        seconds = in_turns(self.calls, rounds, thread_seconds if self.threads == 1 else time.perf_counter)
        return [
            Measured(
                self.network.name,
                label,
                self.threads,
                seconds[label],
                {name: seconds[f"INT8 {name}"] for name in self._int8},
                {name: seconds[f"FP32 {name}"] for name in self._f32},
                packed.size_bytes,
                idle,
                when,
            )
            for label, packed in self._packed.items()
        ]


def goals_of(rows: Rows) -> list[Goal]:
    """Every goal, those of one thread only; what was not measured has no value."""
    by_palette = {(network, row["palette"]): row for (network, n), some in rows.items() if n == 1 for row in some}

    def goal(number: str, what: str, palette: str, least: float, networks: Collection[str]) -> Goal:
        found = [row for network in networks if (row := by_palette.get((network, palette))) and row["x best INT8"]]
        if len(found) < len(networks):
            return Goal(number, f"{what}, {palette}", "x best INT8", at_least=least)
        slowest = min(found, key=lambda row: float(row["x best INT8"]))
        value, when = slowest["x best INT8"], slowest["measured"]
        return Goal(number, f"{what}, {palette}", "x best INT8", value, at_least=least, measured=when)

    return [
        *(
            goal(f"E1{letter}", network, palette, least, [network])
            for letters, network in (("abcd", RESNET18), ("efgh", RESNET18_LARGE))
            for letter, palette, least in zip(
                letters, (W1A1, WITH_W2A2, WITH_W4A4, W2A2), (4.5, 3.5, 2.5, 2.2), strict=True
            )
        ),
        goal("E2a", RESNET20, W1A1, 3, [RESNET20]),
        goal("E2b", RESNET20, W2A2, 2, [RESNET20]),
        goal("E3a", DECODER, W1A1, 10, [DECODER]),
        goal("E3b", DECODER, WITH_W4A4, 6, [DECODER]),
        goal("E3c", DECODER, W2A2, 4.5, [DECODER]),
        goal("E4a", "slowest network of images", W4A4, 1, OF_IMAGES),
        goal("E4b", "slowest network of images", W8A8, 1, OF_IMAGES),
    ]


def tables(rows: Sequence[Row]) -> Mapping[str, Sequence[Row]]:
    """For the page: a table per network and number of threads."""
    shown: dict[str, list[Row]] = {}
    for row in rows:
        many = row["threads"] > 1
        heading = f"{row['network']}, {row['threads']} thread{'s' * many}"
        shown.setdefault(heading, []).append(
            {
                "palette": row["palette"],
                "us": row["us"],
                "MAD us": row["MAD us"],
                "best INT8": f"{row['best INT8']} {_us(row['its us'])}",
                "x best INT8": f"{row['x best INT8']:.2f} ({row['lowest x']:.2f} to {row['highest x']:.2f})"
                if row["x best INT8"]
                else "",
                "best FP32": f"{row['best FP32']} {_us(row['its FP32 us'])}",
                "x best FP32": row["x best FP32"],
                "weights KiB": row["weights KiB"],
            }
        )
    return shown


def _us(value: float | str) -> str:
    return f"{value:.4g} us" if isinstance(value, float) else ""


def notes() -> list[str]:
    """How it was measured."""
    from importlib import metadata

    versions = []
    for package in ("onnxruntime", "openvino", "torch"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} missing")
    return [
        "Random weights everywhere: these networks are timed, not used, and have no accuracy. One sample a run, fp32 "
        "in and out, the whole network: the first and the last layer are pinned to W8A8. Peers run the same graph, "
        "BatchNorm folded away, every layer INT8 (u8 activations, s8 weights per output channel) or FP32: "
        f"{', '.join(versions)}; the fastest of each kind counts.",
        "",
        f"All palettes and peers of a network take turns in one process, {ROUNDS} rounds in each of {PASSES} passes "
        "that set all up anew; microseconds are medians over rounds, MAD "
        "their median absolute deviation, and a gain is the median of the gains of single rounds, with the lowest and "
        "the highest. One thread: CPU time of the thread; two: the wall's clock. Weights lie as near as they stay "
        "from run to run: those of the decoder, 42 million, take 5 MB at w1a1.",
        "",
        "Shares of a mix are rounded to segments of 64 channels in layers of 256 and more. Kernels are the "
        "fastest for each part of a layer, measured as `soniq-dse run --autotune` does; a quick run takes what is "
        "known, then what the cost model chooses. Of the ViT (64 patches, width 192, six blocks) ours computes "
        "LayerNorm, attention and sums in fp32; its peers come in three forms: all that onnxruntime's "
        "static quantisation takes, products with weights alone, and dynamic quantisation.",
        "",
        "The machine is shared, and what others do to its caches moves ratios too. Runs on one thread within ninety "
        "minutes gave, in six, E1a 4.8 to 5.1, E1b 2.6 to 3.0, E1c 2.1 to 2.4 and E1d 2.05 to 2.28 (met in three); in "
        "five, at W8A8, ResNet-18 at 224x224 0.99 to 1.02 and MobileNetV2 1.00 to 1.09, the latter at W4A4 0.95 to "
        "1.14. Kept is the last run of each.",
        "",
        "Where goals are missed on the Zen 4, by `soniq-dse run --breakdown` of the same networks. "
        "ResNet-20, w1a1: layers of 16 channels take half of the time, a third of which is the epilogue and residuals "
        "in fp32. w2a2: at 16 channels no 2-bit kernel beats the byte dot product; those layers run as at w8a8. "
        "Mixes in ResNet-18: layers of 64 channels are cut into 51 and 13. The 1-bit kernel pads 51 to 64, so that the "
        "13 come on top of what all 64 take at w1a1, about 42 us: 76 us with w2a2, which alone takes 89, and 87 us "
        "with w4a4. By themselves both mixes take 7 % less than in turns with the other networks. "
        "ResNet-18 at 224x224: the first layer is W8A8 at every palette and takes 0.8 ms, a third of all at w1a1; its "
        "products alone take 0.5 ms, the rest is K of 147 padded to 168, the pool and writing. At w8a8 the 3x3 layers "
        "run at 89 to 96 % of the peak of the byte dot product. One thread was timed while the other core did nothing.",
    ]  # fmt: skip


def kept_rows() -> dict[Part, list[Row]]:
    """What is kept of this processor."""
    found: dict[Part, list[Row]] = {}
    document = kept_here(NAME)
    for row in document["rows"] if document else ():
        found.setdefault((row["network"], row["threads"]), []).append(row)
    return found


def result_of(rows: Rows) -> Result:
    """Goals and rows, in the order of ``PARTS``."""
    return Result(goals_of(rows), [row for part in PARTS for row in rows.get(part, ())], notes())


def measure_parts(parts: Sequence[Part], budget_s: float) -> Result:
    """Measure those parts, what was never measured or the longest ago first; each is kept at once, and none begins
    later than ``budget_s``. Of other parts the result holds what is kept."""
    rows, begin = kept_rows(), time.monotonic()
    for name, threads in sorted(parts, key=lambda part: rows[part][0]["measured"] if part in rows else ""):
        if time.monotonic() - begin > budget_s:
            break
        _say(f"{name}, {threads} threads: preparing, and measuring kernels that are not known yet")
        passes = []
        for n in range(PASSES):
            prepared = Prepared(NETWORKS[name], threads, tune=True)
            _say(f"{name}, {threads} threads: timing, pass {n + 1} of {PASSES}")
            passes.append(prepared.measure(ROUNDS))
        rows[name, threads] = [joined(same).row() for same in zip(*passes, strict=True)]
        keep(NAME, TITLE, result_of(rows), tables)
        for row in rows[name, threads]:
            _say(f"  {row['palette']}: {row['us']:.4g} us, {row['x best INT8'] or math.nan:.2f} x {row['best INT8']}")
    return result_of(rows)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run() -> None:
    """The command line: what is this benchmark's own first, the convention behind it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--only", action="append", choices=tuple(NETWORKS))
    parser.add_argument("--threads", action="append", type=int, choices=THREADS)
    parser.add_argument("--budget-s", type=float, default=math.inf)
    own, sys.argv[1:] = parser.parse_known_args()
    parts = [
        (name, threads)
        for name, threads in PARTS
        if name in (own.only or NETWORKS) and threads in (own.threads or THREADS)
    ]

    def measure(quick: bool) -> Result:
        if not quick:
            return measure_parts(parts, own.budget_s)
        prepared = [Prepared(NETWORKS[name], threads, tune=False) for name, threads in QUICK]
        return result_of({
            (one.network.name, one.threads): [found.row() for found in one.measure(QUICK_ROUNDS)] for one in prepared
        })  # fmt: skip

    main(NAME, TITLE, measure, tables=tables)


if __name__ == "__main__":
    run()
