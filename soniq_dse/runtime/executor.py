"""Runs a plan: buffers with addresses, steps as C structures, one C++ call per run."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.hardware.features import plain
from soniq_dse.kernels.catalog import CPU_FOLDER
from soniq_dse.kernels.library import Kernel, KernelStruct, aligned_empty, isa_flags
from soniq_dse.native.compiler import BASE_FLAGS, build_library, host_compiler
from soniq_dse.records.cost import KernelSpec
from soniq_dse.runtime.buffers import place
from soniq_dse.runtime.plan import INPUT, Addresses, Plan
from soniq_dse.runtime.structs import AloneStruct, Kind, StepStruct

DRIVER_SOURCES = (
    CPU_FOLDER / "layer.cpp",
    CPU_FOLDER / "depthwise.cpp",
    Path(__file__).with_name("executor.cpp"),
    Path(__file__).with_name("tokens.cpp"),
    Path(__file__).with_name("activations.cpp"),
)
DEPTHWISE = KernelSpec(
    symbol="soniq_depthwise", op="depthwise", act="u8", wgt="s8", acc="s32", tile=(2, 32, 1), isa="driver",
    algorithm="direct", features=(), k_group=1, k_max=66310, path="cpu/depthwise.cpp",
)  # fmt: skip
NOTHING: Addresses = {}
SHARE_OF_MEMORY = 0.9
"""Of what is available, that one network's buffers may take: the kernel ends processes that use it up."""
_VECTOR_SETS = (
    ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"),
    ("avx512f", "avx512bw", "avx512vl", "avx512dq"),
    ("avx2",),
)
"""ISA features the drivers are built for, best first; none has a fused multiply-add of its own to be contracted."""


def driver_flags(features: Collection[str]) -> tuple[str, ...]:
    """Flags for the layer driver and the executor on a machine with ``features``."""
    present = {plain(feature) for feature in features}
    chosen = next((names for names in _VECTOR_SETS if present.issuperset(names)), ())
    wide = ("-mprefer-vector-width=512",) if "avx512f" in chosen else ()
    return (*isa_flags(chosen), *wide)


@functools.lru_cache(maxsize=4)
def load_drivers(flags: tuple[str, ...]) -> ctypes.CDLL:
    """The library of ``DRIVER_SOURCES``.

    Raises:
        MissingCapabilityError: there is no compiler.
    """
    library = ctypes.CDLL(str(build_library(DRIVER_SOURCES, flags=flags, include=[CPU_FOLDER])))
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    library.soniq_team_new.argtypes, library.soniq_team_new.restype = [count], pointer
    library.soniq_team_delete.argtypes, library.soniq_team_delete.restype = [pointer], None
    library.soniq_run.argtypes, library.soniq_run.restype = [pointer, pointer, count], None
    for timed in (library.soniq_time_runs, library.soniq_time_steps):
        timed.argtypes, timed.restype = [pointer, pointer, count, count, pointer], None
    return library


def depthwise_kernel(flags: tuple[str, ...]) -> Kernel:
    """The drivers' kernel of depthwise convolutions (``cpu/depthwise.cpp``).

    Raises:
        MissingCapabilityError: as ``load_drivers``.
    """
    library = load_drivers(flags)
    struct = KernelStruct.in_dll(library, f"{DEPTHWISE.symbol}_kernel")
    return Kernel(DEPTHWISE, struct, library)


class Team:
    """The plan's threads, the caller being one of them. They end with the object.

    A process that was forked has none of them: whoever may run in one asks ``is_here`` first.
    """

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._process = os.getpid()
        self.address: int = library.soniq_team_new(threads)
        if not self.address:
            raise UserError(f"threads: expected what the system gives, got {threads}, which it does not")
        weakref.finalize(self, _end_team, library, self.address, self._process)

    @property
    def is_here(self) -> bool:
        """Whether this is the process that made it."""
        return self._process == os.getpid()


def _available_bytes() -> int:
    """Memory that can be had without taking any from other programs; all of it where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
        return 1024 * int(text.split("MemAvailable:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def zeros(size_bytes: int) -> NDArray[np.uint8]:
    """Memory whose pages are touched now, not in the first run. More than there is would end the process, so it is
    refused first."""
    try:
        if size_bytes > SHARE_OF_MEMORY * _available_bytes():
            raise MemoryError
        memory: NDArray[np.uint8] = aligned_empty((size_bytes,))
        memory[:] = 0
    except MemoryError as error:
        raise UserError(f"memory: expected room for {size_bytes} bytes of buffers, got less") from error
    return memory


def _end_team(library: ctypes.CDLL, address: int, process: int) -> None:
    if process == os.getpid():
        library.soniq_team_delete(address)


class Executor:
    """A plan bound to memory and to the plan's threads.

    One executor serves one caller at a time: two threads of a program that run the same network need one each. A run
    holds no interpreter lock, so that they run side by side.

    Args:
        plan: what to run.
        in_shape, out_shape: of one sample.
        features: CPU features the drivers may use.
        keep: nodes whose codes must survive the run (for checks).
        outside: addresses of the plan's buffers from outside, which must live as long.
        team: threads to run on instead of own ones.
    """

    def __init__(
        self,
        plan: Plan,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        *,
        features: Collection[str],
        keep: Collection[str] = (),
        outside: Addresses = NOTHING,
        team: Team | None = None,
    ) -> None:
        self.plan = plan
        self.flags = driver_flags(features)
        offsets, total = place(plan.lives(keep=[plan.codes[node] for node in keep]))
        self._memory = zeros(total)
        self._offsets = offsets
        base = self._memory.ctypes.data
        addresses = {name: base + at for name, at in offsets.items()} | dict(outside)
        self._arguments = [step.arguments(addresses) for step in plan.steps]
        self._steps = (StepStruct * len(plan.steps))(
            *(
                StepStruct(int(step.kind), ctypes.addressof(arguments))
                for step, arguments in zip(plan.steps, self._arguments, strict=True)
            )
        )
        self._rounds = self._met()
        self._library = load_drivers(self.flags)
        self._team = team or Team(self._library, plan.threads)
        dtype: Any = np.float32 if plan.n_tokens is None else np.int32
        self._input: NDArray[Any] = self._view(INPUT, (plan.batch, *in_shape), dtype)
        self._output: NDArray[np.float32] = self._view(plan.output, (plan.batch, *out_shape), np.float32)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all buffers together."""
        return int(self._memory.size)

    @property
    def input_address(self) -> int:
        """Where the plan reads its input."""
        return int(self._input.ctypes.data)

    def run(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs ``[batch, ...]`` for ``x [batch, ...]`` (fp32, channels first, finite; or token numbers, integers).

        Raises:
            UserError: the shape or the type is another, or a value is not finite or no token number.
        """
        self.set_input(x)
        self.run_again()
        return np.array(self._output)

    def set_input(self, x: NDArray[Any]) -> None:
        """Copy ``x`` to where the plan reads it, after the checks of ``run``."""
        n_tokens = self.plan.n_tokens
        fits = x.dtype == np.float32 if n_tokens is None else np.issubdtype(x.dtype, np.integer)
        if x.shape != self._input.shape or not fits:
            expected = "float32" if n_tokens is None else "integers"
            raise UserError(f"x: expected {expected} {list(self._input.shape)}, got {x.dtype} {list(x.shape)}")
        if n_tokens is None and not np.isfinite(x).all():
            raise UserError("x: expected finite numbers, got infinities or NaN")
        if n_tokens is not None and not 0 <= x.min() <= x.max() < n_tokens:
            raise UserError(f"x: expected token numbers 0..{n_tokens - 1}, got {x.min()}..{x.max()}")
        np.copyto(self._input, x, casting="same_kind" if n_tokens is None else "unsafe")

    def random_input(self, seed: int = 0) -> NDArray[Any]:
        """Some input: normal numbers, or any tokens."""
        rng, n_tokens = np.random.default_rng(seed), self.plan.n_tokens
        if n_tokens is not None:
            return rng.integers(0, n_tokens, self._input.shape)
        return rng.standard_normal(self._input.shape).astype(np.float32)

    def run_again(self) -> None:
        """Run on the current input; the outputs stay where they are."""
        self._library.soniq_run(*self._call(self._rounds))

    def time_runs(self, repeats: int) -> NDArray[np.float64]:
        """Seconds of each of ``repeats`` runs on the current input: CPU time of the thread, wall time of several."""
        seconds = np.empty(repeats)
        self._library.soniq_time_runs(*self._call(self._rounds), repeats, seconds.ctypes.data)
        return seconds

    def time_steps(self, repeats: int) -> NDArray[np.float64]:
        """Wall seconds ``[repeats, steps]`` of every step on the current input."""
        seconds = np.empty((repeats, len(self.plan.steps)))
        self._library.soniq_time_steps(*self._call(self._steps), repeats, seconds.ctypes.data)
        return seconds

    def kept_codes(self, node: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Codes of a kept node after a run, channels last in deployed order: ``[batch, height * width, channels]``.

        ``shape`` is (channels, height, width).
        """
        channels, height, width = shape
        view = self._view(self.plan.codes[node], (self.plan.batch, height * width, channels), np.uint8)
        return np.array(view, np.uint8)

    def compiler(self) -> str:
        """The compiler's version line."""
        return host_compiler().version

    def all_flags(self) -> tuple[str, ...]:
        """Flags of the drivers."""
        return (*BASE_FLAGS, *self.flags)

    def _met(self) -> ctypes.Array[StepStruct]:
        """The plan's rounds as steps of their own."""
        rounds, start = self.plan.rounds(), ctypes.addressof(self._steps)
        size = ctypes.sizeof(StepStruct)
        self._alone = [AloneStruct(start + one.first * size, one.count) for one in rounds]
        return (StepStruct * len(rounds))(
            *(
                StepStruct(int(Kind.ALONE), ctypes.addressof(steps)) if one.alone else self._steps[one.first]
                for one, steps in zip(rounds, self._alone, strict=True)
            )
        )

    def _call(self, steps: ctypes.Array[StepStruct]) -> tuple[int, int, int]:
        """The first arguments of a run."""
        if not self._team.is_here:
            self._team = Team(self._library, self.plan.threads)
        return self._team.address, ctypes.addressof(steps), len(steps)

    def _view(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        start, size = self._offsets[name], int(np.prod(shape)) * np.dtype(dtype).itemsize
        view: NDArray[Any] = self._memory[start : start + size].view(dtype).reshape(shape)
        return view
