"""Runs the trained designs on this processor: packs them, holds them to the golden arithmetic, and times them."""

from __future__ import annotations

from functools import partial

import numpy as np

from soniq_dse.cost.network import choose_kernels
from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.explore._plan import Plan, training_name
from soniq_dse.explore._train import Notify, Progress
from soniq_dse.records.choice import Choices, KernelChoice
from soniq_dse.records.cost import Measurement
from soniq_dse.records.design import Candidate, TrainedDesign
from soniq_dse.records.gpu import GpuModel
from soniq_dse.runtime.autotune import autotune, sources_sha256, tuned_choices
from soniq_dse.runtime.check import check
from soniq_dse.runtime.decoder import by_token
from soniq_dse.runtime.latency import measure
from soniq_dse.runtime.pack import RUN_BATCH, PackedNetwork
from soniq_dse.store import Store, result_key
from soniq_dse.workloads.task import at_full_length

CHECKED_EXAMPLES = 32
"""Test examples whose codes are compared at every quantised tensor; outputs are compared on the whole test split."""


class Measurer:
    """Measurements for a plan, kept in the store; ``failures`` receives designs that the runtime computes wrongly.

    To be used when no training runs, so that nothing disturbs the timings.
    """

    def __init__(self, plan: Plan, store: Store, failures: dict[str, str], notify: Notify) -> None:
        self._plan, self.store, self.failures, self._notify = plan, store, failures, notify
        self._folder = plan.folder / "designs"
        self._folder.mkdir(exist_ok=True)

    def packed(self, candidate: Candidate, trained: TrainedDesign) -> PackedNetwork:
        """The design as it is deployed, on the kernels that the cost model chooses; its file goes to ``designs/``."""
        arrays = {ref.sha256: self.store.get_array(ref) for ref in trained.arrays}
        packed = PackedNetwork(trained.network, arrays)
        packed.save(self._folder / f"{file_name(candidate)}.safetensors")
        options, hardware = self._plan.options, self._plan.hardware
        assert not isinstance(hardware, GpuModel)  # GpuMeasurer's
        shapes = packed.shapes(options.batch)
        tuned = self._tuned(packed)
        return packed.with_choices(choose_kernels(hardware, shapes, threads=options.threads, known=tuned))

    def _tuned(self, packed: PackedNetwork) -> Choices:
        """What was measured on this processor, now or before; nothing where the descriptor speaks of another."""
        options = self._plan.options
        if self._plan.host_mismatch is not None:
            return Choices()
        if not (options.autotune and options.measure):
            return tuned_choices(threads=options.threads)

        def told(done: int, total: int, choice: KernelChoice) -> None:
            line = f"autotuned {choice.shape.name} ({done} of {total}): {choice.reason}"
            self._notify(Progress("autotuning", 1.0, None, line))

        try:
            return autotune(packed, batch=options.batch, threads=options.threads, notify=told)
        except MissingCapabilityError:  # the measurement will say so
            return Choices()

    def design(self, candidate: Candidate, trained: TrainedDesign, packed: PackedNetwork) -> Measurement:
        """The packed network's latency."""
        inputs = self._plan.key("design", candidate), packed.choices
        key = result_key("measurement", *inputs, *self._conditions())
        known = self._known(key)
        if known is not None:
            return known
        try:
            found = self._unequal(packed, trained) or self._timed(packed)
        except MissingCapabilityError as error:
            return Measurement(skipped=str(error))
        except UserError as error:
            found = str(error)
        if isinstance(found, str):
            self.failures[training_name("design", candidate)] = found
            return Measurement(skipped=found)
        self.store.put("measurement", key, found)
        return found

    def baseline(self, candidate: Candidate) -> Measurement:
        """The FP32 network's latency in PyTorch."""
        from soniq_dse.qat.latency import measure_fp32

        key = result_key("measurement", self._plan.key("baseline", candidate), *self._conditions())
        known = self._known(key)
        if known is not None:
            return known
        plan = self._plan
        inputs = np.resize(plan.task.train.inputs, (plan.options.batch, *plan.task.input_shape))
        found = measure_fp32(plan.variants[candidate.model].build, inputs, plan.host, threads=plan.options.threads)
        self.store.put("measurement", key, found)
        return found

    def _known(self, key: str) -> Measurement | None:
        """What needs no measuring: a reason not to, or an earlier result."""
        plan = self._plan
        if not plan.options.measure:
            return Measurement(skipped="measuring was switched off (--no-measure)")
        if plan.host_mismatch is not None:
            return Measurement(skipped=plan.host_mismatch)
        if plan.options.fresh:
            return None
        return self.store.get("measurement", key, Measurement)

    def _timed(self, packed: PackedNetwork) -> Measurement:
        return measure(packed, batch=self._plan.options.batch, threads=self._plan.options.threads)

    def _conditions(self) -> tuple[object, ...]:
        return self._plan.host, self._plan.options.batch, self._plan.options.threads, sources_sha256()

    def _unequal(self, packed: PackedNetwork, trained: TrainedDesign) -> str | None:
        """What differs from the golden arithmetic that gave the design its accuracy; None: nothing."""
        inputs = self._plan.task.test.inputs
        threads = self._plan.options.threads
        parity = check(packed, inputs[:CHECKED_EXAMPLES], batch=self._plan.options.batch, threads=threads)
        if not parity.exact:
            codes = sum(parity.unequal_codes.values())
            return f"the runtime differs from the golden arithmetic in {codes} codes of {parity.samples} examples"
        expected, task = self.store.get_array(trained.predictions_test), self._plan.task
        whole = at_full_length(partial(packed.run, threads=threads), packed.in_shape[0])
        run = by_token(packed, whole, threads=threads)
        _, found = task.metric.judged(run, task.test, RUN_BATCH)
        wrong = int((found != expected).any(axis=tuple(range(1, expected.ndim))).sum())
        return (
            f"the runtime differs from the golden outputs on {wrong} of {len(inputs)} test examples" if wrong else None
        )


def file_name(candidate: Candidate) -> str:
    """The design's name as a file name: ``w1a1+w4a4@2-soniq-s0``."""
    return candidate.name
