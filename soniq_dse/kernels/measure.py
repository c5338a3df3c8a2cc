"""How fast a kernel is on a shape, by itself and with the packing of its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.catalog import token_bits
from soniq_dse.kernels.library import Kernel, load_for_host
from soniq_dse.native.timing import Timing, cycles_per_second, time_call
from soniq_dse.records.cost import KernelSpec


@dataclass(frozen=True)
class KernelSpeed:
    """Timing of one product, alone and with packing; ``macs`` are those of the shape, without padding."""

    symbol: str
    macs: int
    kernel: Timing
    with_packing: Timing
    clock_hz: float

    @property
    def macs_per_cycle(self) -> float:
        """Multiply-accumulates per core cycle of the kernel alone."""
        return self.macs / (self.kernel.median_s * self.clock_hz)

    @property
    def macs_per_cycle_with_packing(self) -> float:
        """The same with the packing of the activations."""
        return self.macs / (self.with_packing.median_s * self.clock_hz)


def measure_kernel(spec: KernelSpec, rows: int, cols: int, k: int, *, max_s: float = 0.5, seed: int = 0) -> KernelSpeed:
    """Time ``[rows, k] x [cols, k]`` on this machine, one thread, operands as warm in cache as their size allows.

    Raises:
        MissingCapabilityError: this machine lacks a feature or a compiler.
        UserError: ``k`` is past the kernel's bound.
    """
    kernel, rng = load_for_host(spec, detect_host().features), np.random.default_rng(seed)
    codes, w = random_codes(kernel, (rows, k), rng), kernel.pack_w(random_weights(kernel, (cols, 1, k), rng))
    call = kernel.prepare(codes, w, cols=cols, k=k)
    call.pack()
    return KernelSpeed(
        symbol=spec.symbol,
        macs=rows * cols * k,
        kernel=time_call(call.run, max_s=max_s),
        with_packing=time_call(call.pack_and_run, max_s=max_s),
        clock_hz=cycles_per_second(),
    )


def random_codes(kernel: Kernel, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    """Activations that the kernel can take: uniform codes, or normal fp32 for weight-only kernels."""
    if kernel.spec.act == "f32":
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(0, 2 ** token_bits(kernel.spec.act), shape).astype(np.uint8)


def random_weights(kernel: Kernel, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int8]:
    """Integers that the kernel can take, uniform over its format."""
    if kernel.spec.wgt == "s8":
        return rng.integers(-127, 128, shape).astype(np.int8)
    c = 2 ** token_bits(kernel.spec.wgt) - 1
    return np.asarray(2 * rng.integers(0, c + 1, shape) - c, np.int8)
