"""Times layers and networks on this processor, on the kernels that their predictions name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.kernels.catalog import kernel, kernels_for
from soniq_dse.kernels.keep_loops import source_sha256
from soniq_dse.kernels.layer import Choose
from soniq_dse.kernels.library import Kernel, build_kernels, load_for_host
from soniq_dse.kernels.strips import Geometry
from soniq_dse.native.compiler import BASE_FLAGS, host_compiler
from soniq_dse.native.timing import time_cycles
from soniq_dse.records.choice import Choices, PartShape
from soniq_dse.records.cost import Estimate, Host, Measurement
from soniq_dse.records.workload import Conv2dLayer, GemmLayer
from soniq_dse.runtime.executor import driver_flags
from soniq_dse.runtime.latency import per_node, step_times
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.runtime.solo import SoloLayer, random_layer

MOST_SECONDS = 10.0
"""A run that is predicted to take longer is not timed."""
MOST_MEMORY = 0.25
"""Share of the host's memory that the buffers of a layer may take."""


class Timer:
    """Times layers and networks on ``host``."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def build(self, estimates: list[Estimate]) -> None:
        """Build side by side the kernels that ``estimates`` name.

        Raises:
            MissingCapabilityError: there is no compiler, or this processor lacks a feature.
        """
        symbols = {choice.taken.symbol for estimate in estimates for choice in choices_of(estimate).made}
        build_kernels(kernel(symbol) for symbol in sorted(symbols))

    def layer(self, layer: GemmLayer | Conv2dLayer, estimate: Estimate, *, max_s: float = 0.5) -> Measurement:
        """Microseconds of ``layer`` by itself on the kernels of ``estimate``; skipped where it would not fit here."""
        reason = self._too_much(layer, estimate)
        if reason:
            return Measurement(threads=layer.threads, skipped=reason)
        try:
            here = solo_layer(layer, _Chosen(choices_of(estimate), self._host), self._host)
        except MissingCapabilityError:
            raise
        except UserError as error:
            return Measurement(threads=layer.threads, skipped=str(error))
        return self._timed(here.time_runs, layer.threads, max_s)

    def network(self, packed: PackedNetwork, *, max_s: float = 0.5) -> Measurement:
        """Microseconds of one sample through ``packed``, on random inputs."""
        executor = packed.executor(1)
        executor.set_input(executor.random_input())
        found = self._timed(executor.time_runs, 1, max_s)
        return found.model_copy(update={"per_layer_us": per_node(step_times(executor))})

    def _timed(self, time_runs: Callable[[int], NDArray[np.float64]], threads: int, max_s: float) -> Measurement:
        timing = time_cycles(lambda n: n * float(np.median(time_runs(n))), max_s=max_s, one_thread=threads == 1)
        us_per_cycle = 1e6 / timing.clock_hz
        return Measurement(
            threads=threads,
            median_us=timing.median_cycles * us_per_cycle,
            mad_us=timing.mad_cycles * us_per_cycle,
            samples=timing.samples,
            settled=timing.settled,
            host=self._host,
            compiler=host_compiler().version,
            flags=(*BASE_FLAGS, *driver_flags(self._host.features)),
        )

    def _too_much(self, layer: GemmLayer | Conv2dLayer, estimate: Estimate) -> str:
        if layer.threads > self._host.cores:
            return f"{layer.threads} threads, of which this process may use {self._host.cores}"
        if estimate.latency_us > MOST_SECONDS * 1e6:
            return f"predicted to take {estimate.latency_us / 1e6:.3g} s a run, more than the {MOST_SECONDS:g} s tried"
        needed, limit = size_bytes(layer), MOST_MEMORY * self._host.memory_bytes
        if needed > limit:
            return f"its buffers take {needed / 2**30:.3g} GiB, more than the {limit / 2**30:.3g} GiB allowed here"
        return ""


def solo_layer(layer: GemmLayer | Conv2dLayer, choose: Choose, host: Host) -> SoloLayer:
    """``layer`` on the real driver; with groups, every group has its share of all segments, as the record says.

    Raises:
        UserError: a sum could overflow.
        MissingCapabilityError: there is no compiler, or the host lacks a feature.
    """
    groups, cols = layer.n_groups, layer.out_channels
    if isinstance(layer, GemmLayer):
        geometry = Geometry(layer.m)
    else:
        geometry = Geometry(
            layer.batch, layer.height, layer.width, layer.kernel, layer.stride, layer.padding, layer.dilation
        )
    segments = [(segment.level, segment.channels) for segment in layer.segments]
    order = _shared_order(layer) if layer.segment_channels > 1 else None
    weights = random_layer(segments, cols, geometry.kernel, groups=groups, in_order=order)
    return SoloLayer(weights, geometry, choose, features=host.features, threads=layer.threads)


def _shared_order(layer: GemmLayer | Conv2dLayer) -> NDArray[np.int64]:
    """Position in the deployed input, segment after segment -> channel: each group's share of each segment."""
    order, first = [], 0
    for segment in layer.segments:
        share = segment.channels // layer.n_groups
        order += [np.arange(share) + first + group * layer.segment_channels for group in range(layer.n_groups)]
        first += share
    return np.concatenate(order)


def size_bytes(layer: GemmLayer | Conv2dLayer) -> int:
    """About the memory that timing ``layer`` takes: weights as made and packed, codes in both forms, output."""
    pixels = layer.m if isinstance(layer, GemmLayer) else layer.batch * layer.height * layer.width
    codes = pixels * layer.segment_channels * layer.n_groups
    return 12 * layer.n_weights + 20 * codes + 4 * layer.rows * layer.taps + layer.rows * layer.out_channels


class _Chosen:
    """The kernels of ``choices``; where they name none, the catalog's first."""

    def __init__(self, choices: Choices, host: Host) -> None:
        self._choices, self._host = choices, host

    def __call__(self, shape: PartShape) -> tuple[Kernel, bool | None]:
        made = self._choices.of(shape)
        if made is not None:
            return load_for_host(kernel(made.taken.symbol), self._host.features), made.taken.folded
        ranked = kernels_for(
            shape.level, signed=shape.signed, features=self._host.features, rows=shape.rows, cols=shape.cols
        )
        return load_for_host(ranked[0], self._host.features), None


def choices_of(estimate: Estimate) -> Choices:
    """The kernels that an estimate priced."""
    return Choices(made=tuple(choice for layer in estimate.per_layer for choice in layer.choices))


def sources_of(estimate: Estimate) -> dict[str, str]:
    """The kernels of an estimate with the hashes of their sources."""
    symbols = {choice.taken.symbol for choice in choices_of(estimate).made}
    return {symbol: source_sha256(kernel(symbol).path) for symbol in sorted(symbols)}
