"""Runs the trained designs on the GPU of this machine that the descriptor speaks of, or takes what was kept of one."""

from __future__ import annotations

import functools

from soniq_dse.errors import UserError
from soniq_dse.explore._measure import CHECKED_EXAMPLES, Measurer, file_name
from soniq_dse.explore._plan import training_name
from soniq_dse.kernels import gpu_device
from soniq_dse.kernels.gpu_device import GpuDevice
from soniq_dse.records.cost import Measurement
from soniq_dse.records.design import Candidate, TrainedDesign
from soniq_dse.records.gpu import GpuModel
from soniq_dse.runtime.gpu_latency import codes_differ, keep_design, kept_design, measure_on_gpu, on_gpu, shape_of
from soniq_dse.runtime.pack import RUN_BATCH, PackedNetwork
from soniq_dse.store import result_key

NOT_THE_FLOATS = "FP32 is not timed on a GPU; benchmarks.gpu has cuDNN's 16-bit floats beside whole networks"


class GpuMeasurer(Measurer):
    """As ``Measurer``; what is measured also goes to ``designs.jsonl`` of the run, to be kept for machines without the
    GPU."""

    def packed(self, candidate: Candidate, trained: TrainedDesign) -> PackedNetwork:
        """The design as it is deployed; its file goes to ``designs/``."""
        arrays = {ref.sha256: self.store.get_array(ref) for ref in trained.arrays}
        packed = PackedNetwork(trained.network, arrays)
        packed.save(self._folder / f"{file_name(candidate)}.safetensors")
        return packed

    def design(self, candidate: Candidate, trained: TrainedDesign, packed: PackedNetwork) -> Measurement:
        """The latency on the GPU; without one the kept one of a network of the same shape, else why there is none."""
        if not self._plan.options.measure:
            return Measurement(skipped="measuring was switched off (--no-measure)")
        try:
            shape = shape_of(packed.network, packed.arrays, self._gpu, self._plan.options.batch)
            if self._plan.host_mismatch is not None:
                kept = kept_design(self._gpu, shape, self._plan.options.batch)
                return kept.measurement if kept else Measurement(skipped=self._plan.host_mismatch)
            found = self._on_device(candidate, trained, packed, shape)
        except UserError as error:  # no kernel for an operator, or the GPU cannot be driven
            return Measurement(skipped=f"model only, not measured: {error}")
        if isinstance(found, str):
            self.failures[training_name("design", candidate)] = found
            return Measurement(skipped=found)
        return found

    def baseline(self, candidate: Candidate) -> Measurement:
        """Not of floats."""
        return Measurement(skipped=self._plan.host_mismatch or NOT_THE_FLOATS)

    @property
    def _gpu(self) -> GpuModel:
        assert isinstance(self._plan.hardware, GpuModel)
        return self._plan.hardware

    @functools.cached_property
    def _device(self) -> GpuDevice:
        return gpu_device.open_matching(self._gpu)

    def _on_device(
        self, candidate: Candidate, trained: TrainedDesign, packed: PackedNetwork, shape: str
    ) -> Measurement | str:
        """A measurement of this run or of one before; or what the device computes wrongly."""
        options, device = self._plan.options, self._device
        inputs = self._plan.key("design", candidate), device.host(), options.batch, shape
        key = result_key("measurement", *inputs)
        known = None if options.fresh else self.store.get("measurement", key, Measurement)
        if known is not None:
            return known
        device.release()
        placed = on_gpu(packed.network, packed.arrays, self._gpu, device, options.batch)
        wrong = codes_differ(placed, packed.arrays, self._plan.task.test.inputs[:CHECKED_EXAMPLES])
        wrong = wrong or self._outputs_differ(trained, packed)
        if wrong is not None:
            return wrong
        found = measure_on_gpu(placed, device)
        self.store.put("measurement", key, found)
        keep_design(self._plan.folder, shape, candidate.name, found)
        return found

    def _outputs_differ(self, trained: TrainedDesign, packed: PackedNetwork) -> str | None:
        """On the test split, whose golden outputs gave the design its accuracy."""
        placed = on_gpu(packed.network, packed.arrays, self._gpu, self._device, RUN_BATCH)
        task = self._plan.task
        expected = self.store.get_array(trained.predictions_test)
        _, found = task.metric.judged(placed.run, task.test, RUN_BATCH)
        wrong = int((found != expected).any(axis=tuple(range(1, expected.ndim))).sum())
        return (
            f"the GPU differs from the golden outputs on {wrong} of {len(task.test)} test examples" if wrong else None
        )
