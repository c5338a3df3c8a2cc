"""Transformers: a decode step over 256 cached tokens, and what stays in fp32, against onnxruntime: E3d, N1, N2.

``--only PART`` measures a part of it; the others stay as they are kept.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks._breakdown import DEPTH, HEADS, N_TOKENS, WIDTH, breakdown_rows
from benchmarks._decode import CACHED, Size, random_decoder
from benchmarks._decode_peer import peer_steps
from benchmarks._frame import Goal, Result, Row, kept_here, main
from benchmarks._interleave import idle_share
from benchmarks._operators import CHAIN, OPERATORS, Operator, ours, peers
from benchmarks._ours import host_descriptor
from benchmarks._peers import Call
from benchmarks.end_to_end import MIXES, WITH_W4A4, in_turns
from soniq_dse.cost.network import choose_kernels
from soniq_dse.native.timing import thread_seconds
from soniq_dse.runtime.autotune import autotune, tuned_choices
from soniq_dse.runtime.decoder import Decoder, decoder_windows
from soniq_dse.runtime.pack import PackedNetwork

NAME, TITLE = "decode", "Transformers: decoding, and what stays in fp32"
THREADS = (1, 2)
ROUNDS, QUICK_ROUNDS = 9, 3
STEPS_S = 40e-3
"""A sample of steps: so many that those weigh little which bring weights, keys and values back into cache."""
BREAKDOWN, LENGTHS, BATCHES = ("w1a1", "w8a8"), (32, 128), (1, 8)
STEP = f"decode step, {CACHED} tokens cached"
QUICK = tuple(one for one in OPERATORS if one.width == 256 and one.tokens == 64)


def ready(packed: PackedNetwork, threads: int, *, tune: bool) -> Decoder:
    """A decoder with a full cache, on the kernels that ``soniq-dse run --generate`` takes."""
    windows = decoder_windows(packed)
    choices = autotune(packed, windows=windows, threads=threads) if tune else tuned_choices(threads=threads)
    hw = host_descriptor()
    if hw is not None:
        choices = choose_kernels(hw, [shape for shape, _ in windows], threads=threads, known=choices)
    decoder = Decoder(packed.with_choices(choices), threads=threads)
    decoder.begin()
    decoder.read(np.random.default_rng(0).integers(0, Size().n_tokens, (1, CACHED)))
    return decoder


def step_rows(rounds: int, threads: int, *, tune: bool) -> list[Row]:
    """Every palette and all peers in turns; steps repeat at the same place of the sequence."""
    size, what = Size(), step_name(threads)
    packed = {label: random_decoder(size, mix) for label, mix in MIXES.items()}
    decoders = {label: ready(one, threads, tune=tune) for label, one in packed.items()}
    int8, f32 = peer_steps(size, threads)
    calls: dict[str, Call] = {label: one.step.run_again for label, one in decoders.items()}
    calls |= {f"INT8 {name}": call for name, call in int8.items()} | {
        f"FP32 {name}": call for name, call in f32.items()
    }
    print(f"{what}: timing", file=sys.stderr, flush=True)
    clock = thread_seconds if threads == 1 else time.perf_counter
    idle, seconds = idle_share(), in_turns(calls, rounds, clock, sample_s=STEPS_S)
    best = {kind: _fastest(seconds, f"{kind} ") for kind in ("INT8", "FP32")}
    return [
        {
            **_row(what, label, seconds[label], best["INT8"], seconds[best["INT8"]]),
            "x FP32": statistics.median(seconds[best["FP32"]]) / statistics.median(seconds[label]),
            "attention us": _share(decoders[label], ("ATTENTION", "KEEP")),
            "weights KiB": packed[label].size_bytes / 1024,
            "idle share of cores": idle,
        }
        for label in MIXES
    ]


def step_name(threads: int) -> str:
    """As a step is shown."""
    return f"{STEP}, {threads} threads" if threads > 1 else STEP


def operator_rows(operators: Sequence[Operator], rounds: int) -> list[Row]:
    """Microseconds of one operator."""
    rows = []
    for operator in operators:
        calls = {"ours": ours(operator), **peers(operator)}
        idle, taken = idle_share(), in_turns(calls, rounds, thread_seconds)
        seconds = {name: [one / CHAIN for one in of_name] for name, of_name in taken.items()}
        best = min((name for name in seconds if name != "ours"), key=lambda name: statistics.median(seconds[name]))
        row = _row(operator.name, "fp32", seconds["ours"], best, seconds[best])
        rows.append(
            {**row, "x FP32": row["x peer"], "attention us": "", "weights KiB": "", "idle share of cores": idle}
        )
    return rows


def _row(what: str, palette: str, mine: Sequence[float], best: str, theirs: Sequence[float]) -> Row:
    gains, median = [peer / own for peer, own in zip(theirs, mine, strict=True)], statistics.median(mine)
    return {
        "what": what, "palette": palette, "us": 1e6 * median,
        "MAD us": 1e6 * statistics.median(abs(one - median) for one in mine), "peer": best,
        "its us": 1e6 * statistics.median(theirs), "x peer": statistics.median(gains), "lowest x": min(gains),
        "highest x": max(gains),
    }  # fmt: skip


def _fastest(seconds: Mapping[str, Sequence[float]], prefix: str) -> str:
    names = [name for name in seconds if name.startswith(prefix)]
    return min(names, key=lambda name: statistics.median(seconds[name]))


def _share(decoder: Decoder, kinds: Sequence[str]) -> float:
    medians = 1e6 * np.median(decoder.step.time_steps(20), axis=0)
    steps = decoder.step.plan.steps
    return float(sum(us for step, us in zip(steps, medians, strict=True) if step.kind.name in kinds))


def goals_of(rows: Sequence[Row]) -> list[Goal]:
    """The step's goal, and the slowest of each operator's shapes; what was not measured has no value."""

    def slowest(wanted: Sequence[str], palette: str) -> float | None:
        found = {row["what"]: row["x peer"] for row in rows if row.get("palette") == palette}
        return min(found[name] for name in wanted) if set(wanted) <= found.keys() else None

    def operators(kind: str, *, causal: bool) -> list[str]:
        return [one.name for one in OPERATORS if one.kind == kind and one.causal == causal]

    step = slowest([STEP], WITH_W4A4)
    norms = slowest(operators("layer_norm", causal=False), "fp32")
    gelus = slowest([*operators("gelu", causal=False), *operators("gelu_tanh", causal=False)], "fp32")
    causal = slowest(operators("attention", causal=True), "fp32")
    whole = slowest(operators("attention", causal=False), "fp32")
    return [
        Goal("E3d", f"{STEP}, {WITH_W4A4}", "x best INT8", step, at_least=4),
        Goal("N1", "LayerNorm, slowest shape", "x onnxruntime FP32", norms, at_least=1),
        Goal("N2a", "causal attention, slowest shape", "x onnxruntime FP32", causal, at_least=1),
        Goal("N2b", "attention to all tokens, slowest shape", "x onnxruntime FP32", whole, at_least=1),
        Goal("N3", "GELU, slowest shape and form", "x onnxruntime FP32", gelus, at_least=1),
    ]


def tables(rows: Sequence[Row]) -> Mapping[str, Sequence[Row]]:
    """For the page: the steps, then the operators."""
    shown: dict[str, list[Row]] = {**{step_name(threads): [] for threads in THREADS}, "Operators in fp32": []}
    for row in rows:
        if "predicted us" in row:
            shared = {name: value for name, value in row.items() if name != "what"}
            shown.setdefault(f"{row['what']}, by operator", []).append(
                {**shared, "predicted / measured": row["predicted us"] / row["measured us"]}
            )
            continue
        common = {"us": row["us"], "MAD us": row["MAD us"], "best peer": row["peer"], "its us": row["its us"]}
        common["x"] = f"{row['x peer']:.2f} ({row['lowest x']:.2f} to {row['highest x']:.2f})"
        if row["what"].startswith(STEP):
            extra = {name: row[name] for name in ("x FP32", "attention us", "weights KiB")}
            shown[row["what"]].append({"palette": row["palette"], **common, **extra})
        else:
            shown["Operators in fp32"].append({"operator": row["what"], **common})
    return {heading: found for heading, found in shown.items() if found}


def notes() -> list[str]:
    """How it was measured."""
    from importlib import metadata

    size = Size()
    version = metadata.version("onnxruntime")
    return [
        f"Random weights: {size.blocks} blocks of width {size.width}, {size.heads} heads, feed-forward {size.inner}, a "
        f"vocabulary of {size.n_tokens}; the head is at W8A8, the rest at the palette, the table of tokens in INT8. A "
        "step is everything from the token's number to its logits: embedding, norms, Linear layers, attention to "
        f"{CACHED} kept tokens and itself, in fp32. onnxruntime {version} runs the same step with keys and values as "
        "inputs, INT8 by its dynamic or static quantizer (u8 activations, s8 weights per output channel), attention by "
        "plain operators or by GroupQueryAttention, which appends in place; the fastest counts.",
        "",
        f"Operators: chains of {CHAIN} of a kind, all in fp32; attention is of a tensor to itself without its Linear "
        "layers, in onnxruntime by MultiHeadAttention or by plain operators; the faster counts.",
        "",
        "CPU time of one thread, wall time of two; all in turns in one process; medians over rounds, a gain is the "
        "median of the gains of single rounds. A step reads 10 MB of keys and values and 7 to 43 MB of weights, from "
        "an L3 cache that a virtual machine may share with others: see the spreads.",
        "",
        f"By operator: {DEPTH} encoder and {DEPTH} decoder blocks of width {WIDTH}, {HEADS} heads, a vocabulary of "
        f"{N_TOKENS}, source and target of the same length, whole sequences in one run. Predictions are those of "
        "`soniq-dse estimate`; measured is the wall's clock of every step, so that what else the machine does counts.",
    ]  # fmt: skip


PARTS: Mapping[str, Callable[[], list[Row]]] = {
    **{step_name(threads): lambda threads=threads: step_rows(ROUNDS, threads, tune=True) for threads in THREADS},
    "operators": lambda: operator_rows(OPERATORS, ROUNDS),
    "breakdown": lambda: [row for palette in BREAKDOWN for row in breakdown_rows(palette, LENGTHS, BATCHES)],
}  # type: ignore[misc]
"""What is measured at once: its rows by name."""


def part_of(row: Row) -> str:
    """Of which of ``PARTS`` a row is."""
    if "predicted us" in row:
        return "breakdown"
    return str(row["what"]) if row["what"] in PARTS else "operators"


def measure(quick: bool, only: Sequence[str]) -> Result:
    """Some operators; or those parts, beside what is kept of the others."""
    if quick:
        rows = operator_rows(QUICK, QUICK_ROUNDS)
        return Result(goals_of(rows), rows, notes())
    kept = kept_here(NAME)
    rows = []
    for name, part in PARTS.items():
        rows += part() if name in only else [row for row in (kept or {"rows": ()})["rows"] if part_of(row) == name]
    return Result(goals_of(rows), rows, notes())


def run() -> None:
    """The command line: what is this benchmark's own first, the convention behind it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--only", action="append", choices=tuple(PARTS))
    own, sys.argv[1:] = parser.parse_known_args()
    main(NAME, TITLE, lambda quick: measure(quick, own.only or tuple(PARTS)), tables=tables)


if __name__ == "__main__":
    run()
