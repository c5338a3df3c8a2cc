"""CUDA kernels on the GPU of this machine: exact, against their peers, and against what the model predicts.

``python -m benchmarks.gpu --budget-s 480`` needs CuPy and a GPU, peers also PyTorch; ``--build`` makes the cubins on a
machine without one, and they travel in ``build/cubins``. Every row goes to ``hwmodels/measured/GPU/*.jsonl`` as it is
made: stop it, or let it fail, and the same command goes on with what is missing. Without a GPU ``--dry-run`` says what
would be measured and ``--rescore`` holds kept rows against the model of today. Exit code 3 where there is nothing to
measure on.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks._frame import ROOT, Goal
from benchmarks._gpu_ceilings import ceiling_rows, descriptor_text
from benchmarks._gpu_device import Device, ready_cubin
from benchmarks._gpu_goals import goals_of
from benchmarks._gpu_networks import NETWORKS, network_row
from benchmarks._gpu_peers import PEERS
from benchmarks._gpu_records import Row, described_gpus, descriptor_of, predictions, read_kept
from benchmarks._gpu_run import CASES, DeviceLostError, measure, peer_rows
from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.hardware.load import load_machine
from soniq_dse.kernels.gpu_catalog import CUDA_FOLDER, gpu_catalog, gpu_layer_kernel_for, gpu_layer_kernels
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.native.nvrtc import build_cubin
from soniq_dse.records.gpu import GpuModel

CUBINS, MEASURED = ROOT / "build" / "cubins", ROOT / "hwmodels" / "measured"
KERNELS_SHARE, NETWORKS_SHARE = 0.55, 0.8
"""Of the budget, the ends of what kernels and what whole networks may take; the rest is for the other peers."""
KINDS = ("kernel", "network", "peer", "ceiling")
"""What rows are of, by the field that names it; their files are called so."""
GRACE_S = 120.0
"""After the budget a run that hangs is ended, with its rows kept."""


def sources() -> list[str]:
    """Every source that is launched."""
    layers = {kernel.path for kernel in gpu_layer_kernels()} | {"cuda/network.cu", "cuda/ceilings.cu"}
    return sorted({kernel.path for kernel in gpu_catalog()} | layers)


def build(folder: Path = CUBINS, architectures: Sequence[str] = ()) -> list[Path]:
    """Cubins of every source for every architecture described, or those asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for architecture in architectures or sorted({gpu.architecture for gpu in described_gpus()}):
        for source in sources():
            made.append(ready_cubin(source, architecture, folder))
            shutil.copyfile(build_cubin(CUDA_FOLDER / Path(source).name, architecture), made[-1])
    return made


def planned(gpu: GpuModel) -> Iterator[str]:
    """What a run on ``gpu`` would do, a line each."""
    ready = [source for source in sources() if ready_cubin(source, gpu.architecture, CUBINS).exists()]
    built = f"{len(ready)} of {len(sources())} cubins built beforehand"
    yield f"{gpu.name} ({gpu.architecture}): {built}; nothing is measured"
    for case in CASES:
        peers = ", ".join(peer.name for peer in PEERS if peer.serves(case.rows, case.weight_bits))
        for kernel in case.kernels(gpu):
            predicted_us, bound_us = predictions(gpu, kernel, case.rows, case.cols, case.k)
            shape = f"{case.rows}x{case.cols}x{case.k}"
            yield f"{kernel.symbol:46} {shape} predicted {predicted_us:.2f} us, bound {bound_us:.2f}; beside {peers}"
    for model, batch in NETWORKS:
        yield f"{model} at batch {batch} by {gpu_layer_kernel_for(gpu).symbol}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, plan, rescore, or measure within the budget and print goals and rows. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--budget-s", type=float, default=480.0, help="end within about so many seconds")
    parser.add_argument("--build", nargs="*", metavar="ARCH", help=f"only build the cubins (sm_90 ...), into {CUBINS}")
    parser.add_argument("--dry-run", metavar="GPU", help="say what would be measured on a GPU that is described (h200)")
    parser.add_argument("--descriptor", metavar="GPU", help="print one that takes its figures from kept ceilings")
    parser.add_argument("--rescore", action="store_true", help=f"hold the rows kept in {MEASURED} against the model")
    options = parser.parse_args(arguments)
    try:
        if options.build is not None:
            _say(map(str, build(architectures=options.build)))
        elif options.dry_run:
            known = {gpu.name: gpu for gpu in described_gpus()}
            if options.dry_run not in known:
                raise UserError(f"--dry-run: expected one of {', '.join(known)}, got {options.dry_run}")
            _say(planned(known[options.dry_run]))
        elif options.descriptor:
            sys.stdout.write(measured_descriptor(options.descriptor, MEASURED))
        elif options.rescore:
            rescore(MEASURED)
        else:
            measured(options.budget_s)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def rescore(folder: Path) -> None:
    """Goals of the kept rows by the model of today, and which rows were left out."""
    kept = read_kept(folder)
    _say(f"left out: {row['kernel']} on {row['gpu']} of {row['date']}: {why}" for row, why in kept.stale)
    if not kept.rows:
        _say([f"model only, not measured: no usable rows in {folder}"])
    for gpu in sorted({row["gpu"] for row in kept.rows}) or [""]:
        rows = [row for row in kept.rows if row["gpu"] == gpu]
        _say([f"{gpu}: {len(rows)} rows"] if gpu else [])
        _print(goals_of(rows))


def prepare(architecture: str, until: float) -> list[str]:
    """Build side by side the cubins that were not built beforehand; what cannot be built, in a line each. What is not
    done in time is built when it is needed."""

    def built(source: str) -> str:
        if not ready_cubin(source, architecture, CUBINS).exists() and time.monotonic() < until:
            try:
                build_cubin(CUDA_FOLDER / Path(source).name, architecture)
            except UserError as error:
                return f"{source} for {architecture}: {error}"
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [line for line in pool.map(built, sources()) if line]


def measured_descriptor(name: str, folder: Path) -> str:
    """YAML of a descriptor with the ceilings that were kept of such a GPU.

    Raises:
        UserError: there is no such descriptor, or nothing was kept.
    """
    gpu = load_machine(name)
    if not isinstance(gpu, GpuModel):
        raise UserError(f"--descriptor: expected a GPU, got {name}")
    lines = [line for path in sorted(folder.glob("*/ceilings.jsonl")) for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    mine = [row for row in rows if row["figures"] and row["gpu"].startswith(gpu.matches)]
    if not mine:
        raise UserError(f"--descriptor: expected ceilings measured on {gpu.name} below {folder}, got none")
    return descriptor_text(gpu, list({row["ceiling"]: row for row in mine}.values()))


def measured(budget_s: float) -> None:
    """Measure, keep and print; what was kept before is not measured again.

    Raises:
        MissingCapabilityError: there is no GPU, or what drives one is not installed.
    """
    start = time.monotonic()
    try:
        device = Device(CUBINS)
    except UserError as error:
        _print(goals_of([]))
        raise MissingCapabilityError(
            f"nothing measured: {error}; --dry-run h200 says what would be measured"
        ) from error
    faulthandler.dump_traceback_later(budget_s + GRACE_S, exit=True, file=sys.__stderr__ or sys.stderr)
    gpu = descriptor_of(device.name, device.architecture)
    _say(prepare(device.architecture, start + budget_s / 4))
    folder = MEASURED / re.sub(r"[^a-z0-9]+", "_", device.name.lower()).strip("_")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _run(device, gpu, folder, start, budget_s)
    except DeviceLostError as error:
        if error.args:
            row = error.args[0]
            _keep(folder / f"{next(kind for kind in KINDS if kind in row)}s.jsonl", row)
        left = budget_s - (time.monotonic() - start)
        _say([f"the device was lost; {left:.0f} s left"])
        if left > GRACE_S / 4:  # in a process of its own: in this one nothing runs any more
            sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", "--budget-s", f"{left:.0f}"])
    finally:
        faulthandler.cancel_dump_traceback_later()
    rows = [row for row in read_kept(MEASURED).rows if row["gpu"] == device.name]
    _say([f"{device.name}, by {gpu.name}; {len(rows)} rows in {folder}"])
    _print(goals_of(rows))


def _run(device: Device, gpu: GpuModel, folder: Path, start: float, budget_s: float) -> None:
    """Ceilings, kernels, whole networks, then the other peers: what the budget cuts off is what matters least.

    Raises:
        DeviceLostError: an error after which the device does nothing.
    """
    kept = [row for row in read_kept(MEASURED).rows if row["gpu"] == device.name]
    keys = {(row["kernel"], row["rows"], row["cols"], row["k"]): row["failed"] for row in kept}
    done = [key for key, why in keys.items() if why is None]
    failed = [key for key, why in keys.items() if why is not None]
    _say([f"{len(done)} rows are kept from before"] if done else [])
    known = _known(folder / "ceilings.jsonl", ("ceiling", "source_sha256"))
    source = cuda_source_sha256("cuda/ceilings.cu")
    for row in ceiling_rows(device, gpu, [name for name, of in known if of == source]):
        _keep(folder / "ceilings.jsonl", row)
        found = ", ".join(f"{name} {value:.5g}" for name, value in row["figures"].items())
        _say([f"{row['ceiling']:46} {row['failed'] or found}"])
    for row in measure(device, gpu, start + budget_s * KERNELS_SHARE, done, failed):
        _keep(folder / "kernels.jsonl", row)
        _say([_line(row)])
    known = _known(folder / "networks.jsonl", ("network", "batch", "source_sha256"))
    source = cuda_source_sha256(gpu_layer_kernel_for(gpu).path)
    for model, batch in NETWORKS:
        if (model, batch, source) not in known and time.monotonic() < start + budget_s * NETWORKS_SHARE:
            row = network_row(device, gpu, model, batch)
            _keep(folder / "networks.jsonl", row)
            _say([_network_line(row)])
    known = _known(folder / "peers.jsonl", ("peer", "rows", "cols", "k"))
    for row in peer_rows(device, start + budget_s, known):
        _keep(folder / "peers.jsonl", row)
        shape = f"{row['rows']}x{row['cols']}x{row['k']}"
        _say([f"{row['peer']:46} {shape} {row['failed'] or _us(row['median_us'])}"])


def _known(path: Path, fields: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows of a file that need not be made again, by ``fields``: what was measured, and what took the device down."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    final = [row for row in rows if row["median_us"] is not None or row["failed"] == "the device was lost"]
    return [tuple(row.get(field) for field in fields) for row in final]


def _keep(path: Path, row: Row) -> None:
    cut = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:  # a line that was cut off stays one
        file.write("\n" * cut + json.dumps(row) + "\n")


def _us(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f} us"


def _line(row: Row) -> str:
    shape = f"{row['rows']}x{row['cols']}x{row['k']}"
    wrong = "" if row["exact"] else f"  NOT EXACT: {row['failed'] or 'wrong sums'}"
    times = f"{_us(row['median_us'])}, predicted {row['predicted_us']:.2f}, FP16 {_us(row['fp16_us'])}"
    return f"{row['kernel']:46} {shape} {times}{wrong}"


def _network_line(row: Row) -> str:
    wrong = "" if row["exact"] and not row["failed"] else f"  NOT EXACT: {row['failed']}"
    times = f"{_us(row['median_us'])}, predicted {row['predicted_us']:.1f}, FP16 {_us(row['fp16_us'])}"
    return f"{row['network']} x {row['batch']}: {times}{wrong}"


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _print(goals: Sequence[Goal]) -> None:
    for goal in goals:
        value = "not measured" if goal.value is None else f"{goal.value:.3g} {goal.unit}"
        sys.stdout.write(f"{goal.id:26} {goal.name:48} {goal.goal:8} {value}\n")


if __name__ == "__main__":
    sys.exit(main())
