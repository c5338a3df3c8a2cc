"""Runs the trained designs on this processor: packs them, holds them to the golden arithmetic, and times them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.cost.network import choose_kernels
from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.explore._plan import Plan, training_name
from soniq_dse.explore._train import Notify, Progress
from soniq_dse.records.choice import Choices, KernelChoice
from soniq_dse.records.cost import Host, Measurement
from soniq_dse.records.design import Candidate, TrainedDesign
from soniq_dse.records.gpu import GpuModel
from soniq_dse.runtime.autotune import autotune, sources_sha256, tuned_choices
from soniq_dse.runtime.check import check
from soniq_dse.runtime.decoder import by_token
from soniq_dse.runtime.latency import measure
from soniq_dse.runtime.pack import RUN_BATCH, PackedNetwork
from soniq_dse.store import Store, result_key
from soniq_dse.workloads.task import Task, at_full_length

if TYPE_CHECKING:
    import torch

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

    def prepare(self, baselines: Sequence[Candidate], designs: Sequence[tuple[Candidate, TrainedDesign]]) -> None:
        """Told of all that will be asked for, before it is; nothing need be done here."""

    def design(self, candidate: Candidate, trained: TrainedDesign, packed: PackedNetwork) -> Measurement:
        """The packed network's latency."""
        key = self.design_key(candidate, packed.choices)
        known = self._known(key)
        if known is not None:
            return known
        expected, options = self.store.get_array(trained.predictions_test), self._plan.options
        try:
            wrong = unequal(packed, self._plan.task, expected, options.batch, options.threads)
            found = wrong or measure(packed, batch=options.batch, threads=options.threads)
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
        key = self.baseline_key(candidate)
        known = self._known(key)
        if known is not None:
            return known
        plan = self._plan
        build, options = plan.variants[candidate.model].build, plan.options
        found = fp32_latency(build, plan.task, plan.host, options.batch, options.threads)
        self.store.put("measurement", key, found)
        return found

    def design_key(self, candidate: Candidate, choices: Choices) -> str:
        """Where the store keeps the latency of a design on ``choices``: what it was measured under included."""
        return result_key("measurement", self._plan.key("design", candidate), choices, *self._conditions())

    def baseline_key(self, candidate: Candidate) -> str:
        """The same for an FP32 network."""
        return result_key("measurement", self._plan.key("baseline", candidate), *self._conditions())

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

    def _conditions(self) -> tuple[object, ...]:
        return self._plan.host, self._plan.options.batch, self._plan.options.threads, sources_sha256()


def unequal(packed: PackedNetwork, task: Task, expected: NDArray[Any], batch: int, threads: int) -> str | None:
    """What differs from the golden arithmetic that gave the design its accuracy: of codes, or of the outputs on the
    test split, which are ``expected``; None: nothing."""
    inputs = task.test.inputs
    parity = check(packed, inputs[:CHECKED_EXAMPLES], batch=batch, threads=threads)
    if not parity.exact:
        codes = sum(parity.unequal_codes.values())
        return f"the runtime differs from the golden arithmetic in {codes} codes of {parity.samples} examples"
    whole = at_full_length(partial(packed.run, threads=threads), packed.in_shape[0])
    _, found = task.metric.judged(by_token(packed, whole, threads=threads), task.test, RUN_BATCH)
    wrong = int((found != expected).any(axis=tuple(range(1, expected.ndim))).sum())
    return f"the runtime differs from the golden outputs on {wrong} of {len(inputs)} test examples" if wrong else None


def fp32_latency(build: Callable[[], torch.nn.Module], task: Task, host: Host, batch: int, threads: int) -> Measurement:
    """Of the FP32 network in PyTorch, on ``host``, which is this one."""
    from soniq_dse.qat.latency import measure_fp32

    return measure_fp32(build, np.resize(task.train.inputs, (batch, *task.input_shape)), host, threads=threads)


def file_name(candidate: Candidate) -> str:
    """The design's name as a file name: ``w1a1+w4a4@2-soniq-s0``."""
    return candidate.name
