"""What times a crosscheck's rows: this processor, the GPU of this machine, or what was kept of a GPU elsewhere."""

from __future__ import annotations

from typing import Protocol

from soniq_dse.cost.intervals import are_current, read_kept
from soniq_dse.crosscheck._measure import Timer, choices_of, sources_of
from soniq_dse.crosscheck._networks import NetworkCase, integer_network, packed_network
from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.hardware.gpus import match_gpu
from soniq_dse.hardware.host import match_host, missing_features
from soniq_dse.kernels import gpu_device
from soniq_dse.kernels.gpu_catalog import gpu_layer_kernels
from soniq_dse.kernels.gpu_device import GpuDevice, visible_gpus
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.native.compiler import host_compiler
from soniq_dse.records.cost import Estimate, Host, Measurement
from soniq_dse.records.gpu import GpuModel, Machine
from soniq_dse.records.workload import Conv2dLayer, GemmLayer
from soniq_dse.runtime.gpu_latency import layer_alone, measure_on_gpu, on_gpu

MatmulLayer = GemmLayer | Conv2dLayer


class Bench(Protocol):
    """``why_not``: why nothing can be measured, None where it can; ``can_run``: whether this machine has what kernels
    need; ``here``: whether measurements are made now, not taken from a file."""

    host: Host
    why_not: str | None
    can_run: bool
    here: bool

    def compiler(self) -> str:
        """What compiles the kernels."""

    def build(self, estimates: list[Estimate]) -> None:
        """Make ready what ``estimates`` name."""

    def sources(self, estimate: Estimate) -> dict[str, str]:
        """The kernels of an estimate with the hashes of their sources."""

    def layer(self, layer: MatmulLayer, estimate: Estimate) -> Measurement:
        """One layer by itself."""

    def network(self, case: NetworkCase, estimate: Estimate) -> Measurement:
        """One whole network."""


def bench_for(hw: Machine, host: Host) -> Bench:
    """What can time rows on ``hw``, seen from ``host``."""
    if not isinstance(hw, GpuModel):
        return ProcessorBench(host, *match_host(hw, host), not missing_features(hw.features, host))
    here, why = match_gpu(hw.name, hw.matches, visible_gpus())
    if here:
        try:
            return GpuBench(hw, gpu_device.open_matching(hw))
        except MissingCapabilityError as error:
            why = str(error)
    return KeptBench(hw, host, f"model only: {why}")


class ProcessorBench:
    """This processor."""

    here = True

    def __init__(self, host: Host, matches: bool, why: str, can_run: bool) -> None:
        self.host, self.can_run = host, matches or can_run
        self.why_not = None if matches else why
        self._timer = Timer(host)

    def compiler(self) -> str:
        """The host's C++ compiler."""
        return host_compiler().version

    def build(self, estimates: list[Estimate]) -> None:
        """Build side by side the kernels that ``estimates`` name."""
        self._timer.build(estimates)

    def sources(self, estimate: Estimate) -> dict[str, str]:
        """Of the C++ kernels."""
        return sources_of(estimate)

    def layer(self, layer: MatmulLayer, estimate: Estimate) -> Measurement:
        """On the kernels of ``estimate``."""
        return self._timer.layer(layer, estimate)

    def network(self, case: NetworkCase, estimate: Estimate) -> Measurement:
        """One sample, on the kernels of ``estimate``."""
        return self._timer.network(packed_network(case).with_choices(choices_of(estimate)))


class _OfGpus:
    """What benches of GPUs share."""

    def build(self, estimates: list[Estimate]) -> None:
        """Nothing: kernels are built when they are launched."""

    def sources(self, estimate: Estimate) -> dict[str, str]:
        """Of the layer kernels."""
        paths = {layer.symbol: layer.path for layer in gpu_layer_kernels()}
        used = {symbol for layer in estimate.per_layer for symbol in layer.kernels if symbol in paths}
        return {symbol: cuda_source_sha256(paths[symbol]) for symbol in sorted(used)}


class GpuBench(_OfGpus):
    """The GPU of this machine."""

    can_run, here = True, True

    def __init__(self, gpu: GpuModel, device: GpuDevice) -> None:
        self.why_not: str | None = None
        self._gpu, self._device = gpu, device
        self.host = device.host()

    def compiler(self) -> str:
        """NVRTC."""
        return self._device.compiler()

    def layer(self, layer: MatmulLayer, estimate: Estimate) -> Measurement:
        """One launch; skipped where it cannot be made."""
        try:
            return layer_alone(layer, self._gpu, self._device)
        except UserError as error:  # its memory is full, a sum could overflow
            return Measurement(skipped=str(error))

    def network(self, case: NetworkCase, estimate: Estimate) -> Measurement:
        """One sample through a network that was not trained."""
        self._device.release()
        network, arrays = integer_network(case)
        return measure_on_gpu(on_gpu(network, arrays, self._gpu, self._device, 1), self._device)


class KeptBench(_OfGpus):
    """The kept measurements of a GPU that is not here, those of changed kernels left out."""

    can_run, here = False, False

    def __init__(self, gpu: GpuModel, host: Host, why: str) -> None:
        kept, none = read_kept(gpu)
        self.why_not = None if kept else f"{why}; {none}"
        self.host = kept.host if kept else host
        self._compiler = kept.compiler if kept else ""
        self._layers = {one.layer: one for one in kept.layers} if kept else {}

    def compiler(self) -> str:
        """That of the kept measurements."""
        return self._compiler

    def layer(self, layer: MatmulLayer, estimate: Estimate) -> Measurement:
        """As it was kept."""
        found = self._layers.get(layer)
        if found is None:
            return Measurement(skipped="none is kept")
        if not are_current(found.kernels):
            return Measurement(skipped="stale: its kernel's source has changed since")
        return found.measurement

    def network(self, case: NetworkCase, estimate: Estimate) -> Measurement:
        """None are kept here."""
        return Measurement(skipped="networks are kept by explore alone")
