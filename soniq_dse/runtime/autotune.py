"""Measures which kernel and layout is the fastest for each part of a network, once, and remembers.

Every kernel that serves a part, in every layout, runs the part's geometry in the layer driver, packing and epilogue
included, on weights that are as far away as in a network. What is found goes, shape by shape, into a file that later
runs on the same processor, compiler and sources use without measuring; an interrupted tuning goes on where it stopped.
Results are the same whatever is chosen.
"""

from __future__ import annotations

import datetime
import fcntl
import functools
import hashlib
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.catalog import CPU_FOLDER, kernels_for
from soniq_dse.kernels.library import Kernel, build_kernels, load_kernel
from soniq_dse.kernels.strips import Geometry
from soniq_dse.native.compiler import cache_folder, host_compiler
from soniq_dse.native.timing import Timing, thread_seconds, time_call
from soniq_dse.records.choice import Choices, KernelChoice, KernelOption, PartShape, TunedKernel
from soniq_dse.records.cost import KernelSpec
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.runtime.solo import SoloLayer, random_layer

FILE_NAME = "autotune.jsonl"
HOPELESS = 2.0
"""An option that its first calls find this much slower than the best is not measured any further."""
FIRST_S, SETTLE_S = 2e-3, 0.15
"""CPU seconds for the first calls of an option, and at most for its measurement until the spread is small."""

Option = tuple[KernelSpec, bool]
Windows = Iterable[tuple[PartShape, Geometry]]
Notify = Callable[[int, int, KernelChoice], None]
"""(shapes done, all shapes to measure, what was found)."""


def autotune(
    packed: PackedNetwork,
    *,
    batch: int = 1,
    threads: int = 1,
    windows: Windows | None = None,
    notify: Notify = lambda *_: None,
    file: Path | None = None,
) -> Choices:
    """The fastest kernels for all parts of ``packed`` at ``batch`` samples a call, measured where they are not known.

    Parts whose channels do not lie side by side are left to whoever chooses next.

    Args:
        windows: the parts, where they are others (``decoder_windows``).
        notify: told of every shape that was measured.
        file: where tuned kernels are kept; default: in the cache folder.

    Raises:
        MissingCapabilityError: there is no compiler.
    """
    asked = packed.windows(batch) if windows is None else windows
    wanted = {shape: window for shape, window in asked if shape.contiguous}
    known = tuned_choices(threads=threads, file=file)
    missing = [shape for shape in wanted if known.of(shape) is None]
    options = {shape: _options(shape, packed.features) for shape in missing}
    build_kernels(spec for some in options.values() for spec, _ in some)
    found = []
    for done, shape in enumerate(missing, 1):
        choice, settled = _fastest(shape, wanted[shape], options[shape], packed.features, threads)
        _remember(_tuned(choice, threads, settled=settled), file or _default_file())
        notify(done, len(missing), choice)
        found.append(choice)
    remembered = (known.of(shape) for shape in wanted)
    return Choices(made=(*(choice for choice in remembered if choice is not None), *found))


def tuned_choices(*, threads: int = 1, file: Path | None = None) -> Choices:
    """All that was measured on this processor with this compiler and these sources for ``threads`` threads.

    Entries that cannot be read, or that hold for others, are ignored with one line on standard error.
    """
    path = file or _default_file()
    try:
        lines, here = path.read_bytes().splitlines(), _here()
    except (FileNotFoundError, MissingCapabilityError):  # without a compiler nothing runs
        return Choices()
    except OSError as error:
        raise UserError(f"{path}: expected to read tuned kernels, got: {error.strerror}") from error
    made: dict[PartShape, KernelChoice] = {}
    unreadable = foreign = 0
    for line in lines:
        try:
            tuned = TunedKernel.from_json(line)
        except ValidationError:
            unreadable += 1
            continue
        if (tuned.processor, tuned.features, tuned.compiler, tuned.sources_sha256) == here:
            if tuned.threads == threads:
                made[tuned.choice.shape] = tuned.choice
        else:
            foreign += 1
    _warn(path, len(lines), unreadable, foreign)
    return Choices(made=tuple(made.values()))


@functools.lru_cache(maxsize=1)
def sources_sha256() -> str:
    """Hash of all that is compiled to run a network: what another version measured says nothing about this one."""
    sources = (path for folder in (CPU_FOLDER, Path(__file__).parent) for path in folder.glob("*"))
    digest = hashlib.sha256()
    for path in sorted(path for path in sources if path.suffix in (".cpp", ".h")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _options(shape: PartShape, features: Iterable[str]) -> list[Option]:
    """Every kernel and layout for a shape, the catalog's favourites first; a scalar one only where no other serves."""
    specs = kernels_for(shape.level, signed=shape.signed, features=tuple(features), rows=shape.rows, cols=shape.cols)
    vector = [spec for spec in specs if spec.features] or specs[:1]
    return [(spec, folded) for spec in vector for folded in shape.layouts]


def _fastest(
    shape: PartShape, window: Geometry, options: Iterable[Option], features: Iterable[str], threads: int
) -> tuple[KernelChoice, bool]:
    """The options by their measured time, and whether those that matter settled."""
    layers = _layers(shape, window, options, tuple(features), threads)
    first = [(_time(layer, threads, max_s=FIRST_S, min_samples=3).median_s, option, layer) for option, layer in layers]
    least = min(median for median, *_ in first)
    timed: list[tuple[Timing, Option]] = []
    for median, option, layer in first:
        if median <= HOPELESS * least:
            timed.append((_time(layer, threads, max_s=SETTLE_S, min_samples=9), option))
    timed.sort(key=lambda entry: entry[0].median_s)
    ordered = tuple(
        KernelOption(symbol=spec.symbol, folded=folded, latency_us=timing.median_s * 1e6)
        for timing, (spec, folded) in timed
    )
    settled = all(timing.settled for timing, _ in timed[:2])
    return KernelChoice(shape=shape, source="measured", options=ordered), settled


def _layers(
    shape: PartShape, window: Geometry, options: Iterable[Option], features: tuple[str, ...], threads: int
) -> list[tuple[Option, SoloLayer]]:
    """The part as a layer of its own by each option that can hold its sums."""
    weights = random_layer([(shape.level, shape.channels)], shape.cols, window.kernel, signed=shape.signed)
    found: list[tuple[Option, SoloLayer]] = []
    refused: UserError | None = None
    for option in options:
        kernel, folded = load_kernel(option[0]), option[1]
        try:
            layer = SoloLayer(
                weights,
                window,
                functools.partial(_always, kernel, folded),
                features=features,
                threads=threads,
                cold=True,
            )
        except UserError as error:
            refused = error
        else:
            found.append((option, layer))
    if refused is not None and not found:
        raise refused
    return found


def _always(kernel: Kernel, folded: bool, _: PartShape) -> tuple[Kernel, bool]:
    return kernel, folded


def _time(layer: SoloLayer, threads: int, *, max_s: float, min_samples: int) -> Timing:
    clock = thread_seconds if threads == 1 else time.monotonic
    return time_call(layer.pack_and_run, sample_s=5e-4, min_samples=min_samples, max_s=max_s, clock=clock)


def _tuned(choice: KernelChoice, threads: int, *, settled: bool) -> TunedKernel:
    processor, features, compiler, sources = _here()
    return TunedKernel(
        choice=choice,
        processor=processor,
        features=features,
        compiler=compiler,
        sources_sha256=sources,
        threads=threads,
        settled=settled,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        versions=detect_host().versions,
    )


def _here() -> tuple[str, tuple[str, ...], str, str]:
    """What a measurement holds for: processor, its features, compiler, sources."""
    host = detect_host()
    processor = f"{host.processor} ({host.vendor} family {host.family} model {host.model} stepping {host.stepping})"
    return processor, host.features, host_compiler().version, sources_sha256()


def _default_file() -> Path:
    return cache_folder() / FILE_NAME


def _remember(tuned: TunedKernel, path: Path) -> None:
    """Append one entry; processes that tune at once take turns."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.tell() and not _ends_a_line(path):  # a process was killed while it wrote
                file.write(b"\n")
            file.write(tuned.model_dump_json().encode() + b"\n")
    except OSError as error:
        raise UserError(f"{path}: expected to write tuned kernels there, got: {error.strerror}") from error


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"


@functools.lru_cache(maxsize=8)
def _warn(path: Path, total: int, unreadable: int, foreign: int) -> None:
    if unreadable or foreign:
        print(
            f"{path}: ignored {unreadable + foreign} of {total} tuned kernels: {unreadable} unreadable, "
            f"{foreign} of another processor, compiler or version",
            file=sys.stderr,
        )
