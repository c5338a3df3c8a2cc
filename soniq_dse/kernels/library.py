"""A kernel of the catalog, built for exactly the CPU features it names, behind checks that no C++ ever has to make."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.hardware.features import plain
from soniq_dse.kernels.catalog import ARM_FEATURES, CPU_FOLDER, instruction_set, missing_features, token_bits
from soniq_dse.native.compiler import Compiler, build_library
from soniq_dse.records.cost import KernelSpec

EMULATED_FOLDER = Path(__file__).parent / "emulated"
ALIGNMENT_BYTES = 64
GUARD_BYTES = 64
"""Room behind every buffer: kernels and the layer driver may go up to a vector past the end (``cpu/layer.h``)."""

_I64 = ctypes.c_int64
_POINTER = ctypes.c_void_p
_A_ROW_BYTES = ctypes.CFUNCTYPE(_I64, _I64)
_W_BYTES = ctypes.CFUNCTYPE(_I64, _I64, _I64, _I64)
_PACK_A = ctypes.CFUNCTYPE(None, _I64, _I64, _POINTER, _I64, _POINTER, _I64)
_PACK_W = ctypes.CFUNCTYPE(None, _I64, _I64, _I64, _POINTER, _POINTER)
_RUN_ARGUMENTS = (_I64, _I64, _I64, _I64, _POINTER, _I64, _POINTER, _POINTER, _I64)
_RUN = ctypes.CFUNCTYPE(None, *_RUN_ARGUMENTS)


class KernelStruct(ctypes.Structure):
    """``SoniqKernel`` of ``cpu/soniq_kernel.h``."""

    _fields_ = (
        ("symbol", ctypes.c_char_p),
        ("mr", ctypes.c_int32),
        ("nr", ctypes.c_int32),
        ("k_group", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("k_max", _I64),
        ("a_row_bytes", _A_ROW_BYTES),
        ("w_bytes", _W_BYTES),
        ("pack_a", _PACK_A),
        ("pack_w", _PACK_W),
        ("run", _RUN),
    )


@functools.lru_cache(maxsize=1)
def _time_kernel() -> Callable[..., float]:
    library = ctypes.CDLL(str(build_library([CPU_FOLDER / "repeat.cpp"])))
    function = library.soniq_time_kernel
    function.argtypes, function.restype = [_I64, _RUN, *_RUN_ARGUMENTS], ctypes.c_double
    return lambda *arguments: float(function(*arguments))


def isa_flags(features: Sequence[str]) -> tuple[str, ...]:
    """The compiler's flags for a set of CPU features.

    ``avx512_vnni`` or ``avx512vnni`` -> ``-mavx512vnni``; ``neon``, ``dotprod`` -> ``-march=armv8.2-a+simd+dotprod``.
    """
    names = [plain(feature) for feature in features]
    if not ARM_FEATURES.issuperset(names) or not names:
        return tuple("-m" + name for name in names)
    # NEON is of the first Armv8; what was added to it is named relative to 8.2.
    base = "armv8-a" if names == ["neon"] else "armv8.2-a"
    return ("-march=" + "+".join([base, *("simd" if name == "neon" else name for name in names)]),)


def aligned_empty(shape: Sequence[int], dtype: Any = np.uint8) -> NDArray[Any]:
    """An uninitialised array whose first byte is 64-byte aligned."""
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.empty(n_bytes + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    aligned: NDArray[Any] = raw[start : start + n_bytes].view(dtype).reshape(shape)
    return aligned


def round_up(value: int, multiple: int) -> int:
    """The least multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple


def build_kernel_library(spec: KernelSpec, folder: Path = CPU_FOLDER, compiler: Compiler | None = None) -> Path:
    """The shared library that holds the kernel of ``spec`` and no other, built for its features alone; one for Arm in
    portable intrinsics where this is another processor, so that it packs what is to run there.

    Raises:
        UserError: it does not compile.
        MissingCapabilityError: there is no compiler.
    """
    source = folder / Path(spec.path).name
    only = ("-DSONIQ_SELECT", f"-DSONIQ_SELECT_{spec.symbol}=,")
    if compiler is None and instruction_set(spec) == "aarch64" != platform.machine():
        return build_library([source], flags=("-O1", *only), include=[EMULATED_FOLDER, CPU_FOLDER])
    return build_library([source], flags=(*isa_flags(spec.features), *only), include=[CPU_FOLDER], compiler=compiler)


def build_kernels(specs: Iterable[KernelSpec]) -> None:
    """Build what of ``specs`` is not in the cache, as many at once as there are cores.

    Raises:
        UserError: one does not compile.
        MissingCapabilityError: there is no compiler.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(build_kernel_library, dict.fromkeys(specs)))


@functools.lru_cache(maxsize=256)
def load_kernel(spec: KernelSpec, folder: Path = CPU_FOLDER, compiler: Compiler | None = None) -> Kernel:
    """The kernel of ``spec``, built or taken from the cache.

    Raises:
        UserError: it does not compile, or its descriptor contradicts the catalog.
        MissingCapabilityError: there is no compiler.
    """
    library = ctypes.CDLL(str(build_kernel_library(spec, folder, compiler)))
    try:
        struct = KernelStruct.in_dll(library, f"{spec.symbol}_kernel")
    except ValueError as error:
        raise UserError(f"{spec.path}: expected it to export {spec.symbol}_kernel, got {error}") from error
    got = (struct.symbol.decode(), struct.mr, struct.nr, struct.k_group, struct.k_max)
    expected = (spec.symbol, spec.tile[0], spec.tile[1], spec.k_group, spec.k_max)
    if got != expected:
        raise UserError(
            f"{spec.path}: expected (symbol, mr, nr, k_group, k_max) {expected} as its symbol says, got {got}"
        )
    return Kernel(spec, struct, library)


def load_for_host(spec: KernelSpec, features: Sequence[str], folder: Path = CPU_FOLDER) -> Kernel:
    """``load_kernel`` after a check that this machine can run it.

    Raises:
        MissingCapabilityError: a feature is missing.
    """
    missing = missing_features(spec, features)
    if missing:
        raise MissingCapabilityError(
            f"kernel {spec.symbol}: expected CPU features {', '.join(missing)}, which this machine lacks"
        )
    return load_kernel(spec, folder)


class Kernel:
    """A loaded kernel. Every buffer is checked here, before C++ sees it; a wrong one is a ``UserError``.

    ``address`` is that of its ``SoniqKernel``, for the layer driver. Weight-only kernels read fp32 activations.
    """

    def __init__(self, spec: KernelSpec, struct: KernelStruct, library: ctypes.CDLL) -> None:
        self.spec = spec
        self.address = ctypes.addressof(struct)
        self._struct = struct
        self._library = library  # keeps the functions loaded
        self.activation_dtype = np.dtype(np.float32 if spec.act == "f32" else np.uint8)
        self.accumulator_dtype = np.dtype(np.float32 if spec.acc == "f32" else np.int32)

    def a_row_bytes(self, k: int) -> int:
        """Bytes of one packed activation row of k elements."""
        return int(self._struct.a_row_bytes(k))

    def a_row_stride(self, k: int) -> int:
        """``a_row_bytes`` rounded up to the alignment: the distance between packed rows."""
        return round_up(max(self.a_row_bytes(k), 1), ALIGNMENT_BYTES)

    def w_bytes(self, cols: int, taps: int, k: int) -> int:
        """Bytes of the packed weights."""
        return int(self._struct.w_bytes(cols, taps, k))

    def pack_a(self, activations: NDArray[Any]) -> NDArray[np.uint8]:
        """``[rows, k]`` codes (uint8, below 2**bits) or fp32 -> packed rows ``[rows, a_row_stride(k)]``."""
        self._expect("activations", activations, self.activation_dtype, 2)
        if activations.strides[1] != activations.itemsize or activations.strides[0] % activations.itemsize:
            raise UserError(
                f"{self.spec.symbol}: activations: expected contiguous rows, got strides {activations.strides}"
            )
        rows, k = activations.shape
        limit = 2 ** token_bits(self.spec.act)
        if self.spec.act != "f32" and limit < 256 and int(activations.max(initial=0)) >= limit:
            raise UserError(f"{self.spec.symbol}: codes: expected below {limit}, got {activations.max()}")
        packed = aligned_empty((rows, self.a_row_stride(k)))
        stride = activations.strides[0] // activations.itemsize
        self._struct.pack_a(rows, k, activations.ctypes.data, stride, packed.ctypes.data, packed.shape[1])
        return packed

    def pack_w(self, weights: NDArray[np.int8]) -> NDArray[np.uint8]:
        """``[cols, taps, k]`` integers (odd and of the kernel's width for zero-free formats) -> packed bytes."""
        self._expect("weights", weights, np.dtype(np.int8), 3)
        self._check_weights(weights)
        self.check_depth(weights.shape[1], weights.shape[2])
        source = np.ascontiguousarray(weights)
        packed = aligned_empty((self.w_bytes(*weights.shape),))
        self._struct.pack_w(*weights.shape, source.ctypes.data, packed.ctypes.data)
        return packed

    def run(
        self,
        a: NDArray[np.uint8],
        w: NDArray[np.uint8],
        *,
        cols: int,
        taps: int,
        k: int,
        gather: NDArray[np.int64] | None = None,
    ) -> NDArray[Any]:
        """Raw accumulators ``[rows, cols]`` (int32; fp32 for weight-only kernels).

        Args:
            a: packed rows of ``pack_a``.
            w: packed weights of ``pack_w``.
            cols, taps, k: shape of the weights.
            gather: ``[taps, rows]`` indices of packed rows; default: one tap, every packed row.
        """
        self._check_packed(a, w, cols, taps, k)
        rows_of = np.arange(a.shape[0], dtype=np.int64)[None] if gather is None else gather
        if rows_of.ndim != 2 or rows_of.shape[0] != taps or rows_of.dtype != np.int64:
            raise UserError(
                f"{self.spec.symbol}: gather: expected int64 [{taps}, rows], got {rows_of.dtype} {rows_of.shape}"
            )
        if rows_of.size and not (rows_of.min() >= 0 and rows_of.max() < a.shape[0]):
            raise UserError(
                f"{self.spec.symbol}: gather: expected rows below {a.shape[0]}, got {rows_of.min()}..{rows_of.max()}"
            )
        rows, padded_cols = rows_of.shape[1], round_up(cols, self.spec.tile[1])
        pointers = np.ascontiguousarray(rows_of * a.strides[0] + a.ctypes.data)
        acc = aligned_empty((rows, padded_cols), self.accumulator_dtype)
        self._struct.run(rows, cols, taps, k, pointers.ctypes.data, rows, w.ctypes.data, acc.ctypes.data, padded_cols)
        return acc[:, :cols]

    def prepare(self, activations: NDArray[Any], w: NDArray[np.uint8], *, cols: int, k: int) -> PreparedCall:
        """One product ``[rows, k] x [cols, k]`` with all buffers in place, to be timed."""
        a = self.pack_a(activations)
        self._check_packed(a, w, cols, 1, k)
        return PreparedCall(self, np.ascontiguousarray(activations), a, w, cols)

    def check_depth(self, taps: int, k: int) -> None:
        """Raises UserError where ``taps * padded k`` could overflow the accumulator."""
        depth = taps * round_up(k, self.spec.k_group)
        if taps < 1 or k < 1 or depth > self.spec.k_max:
            raise UserError(f"{self.spec.symbol}: taps * padded k: expected 1..{self.spec.k_max}, got {depth}")

    def _check_packed(self, a: NDArray[np.uint8], w: NDArray[np.uint8], cols: int, taps: int, k: int) -> None:
        self.check_depth(taps, k)
        self._expect("packed activations", a, np.dtype(np.uint8), 2)
        self._expect("packed weights", w, np.dtype(np.uint8), 1)
        stride = self.a_row_stride(k)
        if a.shape[1] != stride or a.strides != (stride, 1):
            raise UserError(
                f"{self.spec.symbol}: packed activations: expected rows of {stride} bytes, got {a.shape[1]}"
            )
        if cols < 1 or w.shape[0] != self.w_bytes(cols, taps, k) or w.strides != (1,):
            expected = self.w_bytes(max(cols, 1), taps, k)
            raise UserError(f"{self.spec.symbol}: packed weights: expected {expected} bytes, got {w.shape[0]}")
        for name, array in (("packed activations", a), ("packed weights", w)):
            if array.ctypes.data % ALIGNMENT_BYTES:
                raise UserError(f"{self.spec.symbol}: {name}: expected {ALIGNMENT_BYTES}-byte alignment, got less")

    def _check_weights(self, weights: NDArray[np.int8]) -> None:
        largest = 127 if self.spec.wgt == "s8" else 2 ** token_bits(self.spec.wgt) - 1
        wide = weights.astype(np.int16)
        if weights.size and int(np.abs(wide).max()) > largest:
            raise UserError(f"{self.spec.symbol}: weights: expected within +-{largest}, got {wide.min()}..{wide.max()}")
        if self.spec.wgt != "s8" and weights.size and not bool((wide & 1).all()):
            raise UserError(f"{self.spec.symbol}: weights: expected odd integers (zero-free), got an even one")

    def _expect(self, name: str, array: NDArray[Any], dtype: np.dtype[Any], ndim: int) -> None:
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != ndim or array.size == 0:
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise UserError(f"{self.spec.symbol}: {name}: expected {dtype} of {ndim} axes, not empty, got {got}")


class PreparedCall:
    """The two calls of one product, ``pack`` and ``run``, with nothing of Python in between but the call itself."""

    def __init__(
        self, kernel: Kernel, activations: NDArray[Any], a: NDArray[np.uint8], w: NDArray[np.uint8], cols: int
    ) -> None:
        (rows, k), padded_cols = activations.shape, round_up(cols, kernel.spec.tile[1])
        pointers = np.arange(rows, dtype=np.int64) * a.strides[0] + a.ctypes.data
        acc = aligned_empty((rows, padded_cols), kernel.accumulator_dtype)
        self._kept = (kernel, activations, a, w, pointers, acc)
        self._pack = kernel._struct.pack_a
        self._run = kernel._struct.run
        self._pack_arguments = (rows, k, activations.ctypes.data, k, a.ctypes.data, a.shape[1])
        self._run_arguments = (
            rows, cols, 1, k, pointers.ctypes.data, rows, w.ctypes.data, acc.ctypes.data, padded_cols,
        )  # fmt: skip

    def run_seconds(self, repeats: int) -> float:
        """CPU seconds of the thread for ``repeats`` products, timed in C++."""
        return _time_kernel()(repeats, self._run, *self._run_arguments)

    def pack(self) -> None:
        """Pack the activations."""
        self._pack(*self._pack_arguments)

    def run(self) -> None:
        """Multiply."""
        self._run(*self._run_arguments)

    def pack_and_run(self) -> None:
        """Both."""
        self._pack(*self._pack_arguments)
        self._run(*self._run_arguments)
