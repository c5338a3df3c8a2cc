"""``soniq-dse run``: one trained design on this CPU."""

from __future__ import annotations

import contextlib
import resource
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soniq_dse.cli._common import console, json_option, print_json, table
from soniq_dse.cli._designs import short_name
from soniq_dse.errors import UserError, nearest

if TYPE_CHECKING:
    from soniq_dse.records.choice import KernelChoice
    from soniq_dse.records.hardware import HardwareModel
    from soniq_dse.runtime.autotune import Windows
    from soniq_dse.runtime.check import Parity
    from soniq_dse.runtime.latency import Latency
    from soniq_dse.runtime.pack import PackedNetwork
    from soniq_dse.workloads.task import Task

ROOT = Path("reports") / "runs"


@click.command(epilog="Example:  soniq-dse run w1a1+w4a4@2")
@click.argument("design")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=ROOT, show_default=True,
              help="Folder of runs.")  # fmt: skip
@click.option("--data", help="Data: NAME, NAME:FOLDER or pkg.mod:loaders.  [default: the run's]")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many test examples.  [default: all]")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Samples per timed run.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of a run.")
@click.option("--hw", "hw_name", metavar="NAME", help="Machine whose figures choose the kernels: path or name of a "
              "descriptor.  [default: the shipped one that matches this processor]")  # fmt: skip
@click.option("--autotune", "tune", is_flag=True, help="Measure once which kernel is the fastest for each part of a "
              "layer; later runs use what was found.")  # fmt: skip
@click.option("--breakdown", is_flag=True, help="Show every step of the run beside what the cost model says; with "
              "--generate of a prompt's first tokens and of the last one, by operation.")  # fmt: skip
@click.option("--generate", "count", type=click.IntRange(min=1), metavar="N", help="Instead, continue --prompt by N "
              "tokens, one by one, and show how many a second.")  # fmt: skip
@click.option("--prompt", metavar="TEXT", help="Text, or token numbers such as 3,1,4 where no data say what they stand "
              "for; what a translator translates.")  # fmt: skip
@json_option
def command(
    design: str,
    root: Path,
    data: str | None,
    limit: int | None,
    batch: int,
    threads: int,
    hw_name: str | None,
    tune: bool,
    breakdown: bool,
    count: int | None,
    prompt: str | None,
    as_json: bool,
) -> None:
    """Run one trained design on this CPU and check it against the golden arithmetic.

    DESIGN is the name of a design of a run as its table shows it (RUN/NAME where several runs have it), or the path of
    its packed file. Shows the metric on the test set, whether every code and output equals the golden arithmetic's, and
    the latency (CPU time of one thread, wall time of several) and the memory. Exit code 1 where something differs.
    """
    from soniq_dse.runtime.check import check
    from soniq_dse.runtime.decoder import by_token
    from soniq_dse.runtime.latency import latency
    from soniq_dse.runtime.pack import RUN_BATCH, PackedNetwork
    from soniq_dse.workloads.task import at_full_length

    path = find_design(design, root)
    if count is not None or prompt is not None:
        return _continue(path, data, count, prompt, hw_name, threads, tune, breakdown, as_json)
    loaded = PackedNetwork.load(path)
    packed = _on_chosen_kernels(loaded, loaded.windows(batch), hw_name, threads, tune)
    task = _load_task(path, data, limit)
    inputs = task.test.inputs
    if inputs.shape[1:] != packed.in_shape:
        raise UserError(
            f"data {task.name}: expected examples of shape {list(packed.in_shape)}, got {list(inputs.shape[1:])}"
        )
    parity = check(packed, inputs, batch=batch, threads=threads)
    whole = at_full_length(partial(packed.run, threads=threads), packed.in_shape[0])
    run = by_token(packed, whole, threads=threads)
    metric = task.metric.of(run, task.test, RUN_BATCH)
    timed = latency(packed, batch=batch, threads=threads)
    predicted = _predicted_us(packed, hw_name, batch, threads) if breakdown else None
    if as_json:
        print_json(_as_json(path, packed, task, metric, parity, timed, predicted))
    else:
        _show(path, packed, task, metric, parity, timed, predicted)
    if not parity.exact:
        sys.exit(1)


def _continue(
    path: Path,
    data: str | None,
    count: int | None,
    prompt: str | None,
    hw_name: str | None,
    threads: int,
    tune: bool,
    breakdown: bool,
    as_json: bool,
) -> None:
    """What ``--generate`` does."""
    from soniq_dse.cli._generate import generate
    from soniq_dse.cli._parts import part_rows, shown_parts
    from soniq_dse.runtime.decoder import decoder_windows
    from soniq_dse.runtime.pack import PackedNetwork

    if count is None or prompt is None:
        raise UserError("--generate N and --prompt TEXT: expected both, got one")
    loaded = PackedNetwork.load(path)
    packed = _on_chosen_kernels(loaded, decoder_windows(loaded), hw_name, threads, tune)
    has_data = data is not None or (path.parent.parent / "run.json").is_file()
    text = _load_task(path, data, None).text if has_data else None
    found = generate(packed, prompt, count, text, threads)
    parts = part_rows(packed, found.position, _described(hw_name), threads) if breakdown else None
    if as_json:
        print_json(found.as_json(text) | {"parts": parts})
    else:
        for part in shown_parts(parts or {}):
            console().print(part)
        click.echo("\n".join(found.shown(text)))
    if not found.exact:
        sys.exit(1)


def _on_chosen_kernels(
    packed: PackedNetwork, windows: Windows, hw_name: str | None, threads: int, tune: bool
) -> PackedNetwork:
    """The network on the kernels that were measured, or that the cost model chooses if a descriptor fits the host."""
    from soniq_dse.cost.network import choose_kernels
    from soniq_dse.runtime.autotune import autotune, tuned_choices

    def told(done: int, total: int, choice: KernelChoice) -> None:
        click.echo(f"autotuned {choice.shape.name} ({done} of {total}): {choice.reason}", err=True)

    hardware, choices = _described(hw_name), tuned_choices(threads=threads)
    if tune:
        choices = autotune(packed, windows=windows, threads=threads, notify=told)
    if hardware is not None:
        choices = choose_kernels(hardware, [shape for shape, _ in windows], threads=threads, known=choices)
    return packed.with_choices(choices)


def _described(hw_name: str | None) -> HardwareModel | None:
    """The machine named, else the shipped one that matches the host; None where none does."""
    from soniq_dse.hardware.host import default_descriptor, detect_host, match_host
    from soniq_dse.hardware.load import load_hardware

    host = detect_host()
    hardware = load_hardware(hw_name or default_descriptor(host)[0])
    return hardware if hw_name or match_host(hardware, host)[0] else None


def _predicted_us(packed: PackedNetwork, hw_name: str | None, batch: int, threads: int) -> dict[str, float]:
    """What the cost model says of each step; of none where no descriptor speaks of the host."""
    from soniq_dse.cli._breakdown import predicted_us
    from soniq_dse.cost.network import choose_kernels
    from soniq_dse.cost.steps import step_us

    hardware = _described(hw_name)
    if hardware is None:
        return {}
    choices = choose_kernels(hardware, packed.shapes(batch), threads=threads)
    found = step_us(hardware, packed.network, batch=batch, threads=threads, choices=choices)
    return predicted_us(packed.executor(batch, threads=threads).plan.layers, choices) | found


def find_design(design: str, root: Path) -> Path:
    """The packed file behind DESIGN.

    Raises:
        UserError: there is none, or several runs have one of that name.
    """
    if design.endswith((".safetensors", ".soniq")) and Path(design).is_file():
        return Path(design)
    run, _, name = design.rpartition("/")
    packed = sorted(root.glob("*/designs/*.safetensors")) if root.is_dir() else []
    here = [path for path in packed if not run or path.parent.parent.name == run]
    found = [path for path in here if path.stem == name] or [path for path in here if short_name(path.stem) == name]
    if len(found) > 1:
        which = ", ".join(f"{path.parent.parent.name}/{path.stem}" for path in found)
        raise UserError(f"design: expected one design, got {name!r}, of which there are several: {which}")
    if not found:
        hint = nearest(name, {short_name(path.stem) for path in here or packed}) or "; soniq-dse explore makes some"
        raise UserError(f"design: expected the name of a packed design in {root} or a file, got {design!r}{hint}")
    return found[0]


def _load_task(path: Path, data: str | None, limit: int | None) -> Task:
    """The data given, else those of the run that the file belongs to."""
    from pydantic import ValidationError

    from soniq_dse.records.front import RunInfo
    from soniq_dse.workloads import load_task

    if data is None:
        info = path.parent.parent / "run.json"
        try:
            data = RunInfo.from_json(info.read_bytes()).data
        except (OSError, ValidationError) as error:
            raise UserError(f"data: expected --data, since {path} lies in no run's folder") from error
    with contextlib.redirect_stdout(sys.stderr):  # a user's loaders may print; standard output is for data
        return load_task(data, limit)


def _as_json(
    path: Path,
    packed: PackedNetwork,
    task: Task,
    metric: float,
    parity: Parity,
    timed: Latency,
    predicted: dict[str, float] | None,
) -> dict[str, Any]:
    from soniq_dse.cli._breakdown import rows_of

    return {
        "design": path.stem,
        "metric": task.metric.name,
        "metric_test": metric,
        "samples": parity.samples,
        "exact": parity.exact,
        "unequal_codes": parity.unequal_codes,
        "unequal_outputs": parity.unequal_outputs,
        "size_bytes": packed.size_bytes,
        "buffer_bytes": packed.executor(timed.measurement.batch, threads=timed.measurement.threads).memory_bytes,
        "peak_rss_bytes": _peak_rss_bytes(),
        "percentiles_us": timed.percentiles_us,
        "measurement": timed.measurement.to_json_value(),
        "steps": None if predicted is None else rows_of(timed.steps, predicted),
        "layers": [
            {"name": layer.node, "kernels": layer.kernels, "macs": layer.macs, "padded_macs": layer.padded_macs}
            for layer in packed.executor(timed.measurement.batch, threads=timed.measurement.threads).plan.layers
        ],
    }


def _show(
    path: Path,
    packed: PackedNetwork,
    task: Task,
    metric: float,
    parity: Parity,
    timed: Latency,
    predicted: dict[str, float] | None,
) -> None:
    from soniq_dse.cli._breakdown import shown

    found = timed.measurement
    rows = [
        [
            layer.node,
            f"{found.per_layer_us.get(layer.node, 0.0):.1f}",
            f"{layer.macs / 1e6:.2f}",
            f"{1 - layer.macs / layer.padded_macs:.0%}",
            ", ".join(layer.kernels),
        ]
        for layer in packed.executor(found.batch, threads=found.threads).plan.layers
    ]
    columns = {"layer": "left", "us": "right", "MMAC": "right", "padding": "right", "kernels": "left"}
    console().print(table(path.stem, columns, rows))
    if predicted is not None and timed.steps:
        steps, sums = shown(timed, predicted)
        console().print(steps)
        click.echo(sums)
    click.echo(f"{task.metric.name} {metric:.2f} {task.metric.unit} on {parity.samples} test examples")
    codes = sum(parity.unequal_codes.values())
    equal = f"{len(parity.unequal_codes)} quantised tensors and all outputs equal the golden arithmetic, bit for bit"
    unequal = f"DIFFERS from the golden arithmetic in {codes} codes and {parity.unequal_outputs} outputs"
    click.echo(equal if parity.exact else unequal)
    if found.median_us is None:
        click.echo(f"latency: not measured: {found.skipped}")
        return
    spread = "" if found.settled else ", not settled: the machine is noisy"
    percentiles = ", ".join(f"p{p} {value:.1f} us" for p, value in timed.percentiles_us.items())
    click.echo(
        f"latency {found.median_us:.1f} us (MAD {found.mad_us:.1f}, {found.samples} samples{spread}; {percentiles}), "
        f"batch {found.batch}, {found.threads} thread{'s' * (found.threads > 1)}"
    )
    buffers = packed.executor(found.batch, threads=found.threads).memory_bytes
    click.echo(
        f"memory: weights {packed.size_bytes / 1024:.1f} KiB, buffers {buffers / 1024:.1f} KiB, "
        f"peak of this process, data and check included, {_peak_rss_bytes() / 2**20:.0f} MiB"
    )


def _peak_rss_bytes() -> int:
    """The most memory this process has held at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
