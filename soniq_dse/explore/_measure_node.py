"""Runs the trained designs on the node of a Ray cluster whose processor the descriptor speaks of, where this one's is
another. All of a run are measured on one node, which then does nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from soniq_dse.errors import UserError
from soniq_dse.explore._jobs import outcomes
from soniq_dse.explore._measure import Measurer, fp32_latency, unequal
from soniq_dse.explore._plan import Plan, training_name
from soniq_dse.explore._ray import Node, nodes
from soniq_dse.explore._store_job import StoreJob
from soniq_dse.explore._train import Notify, Progress, task_of
from soniq_dse.hardware.host import detect_host, match_host
from soniq_dse.native.processes import Job
from soniq_dse.records.choice import Choices
from soniq_dse.records.cost import Measurement
from soniq_dse.records.design import Candidate, TrainedDesign
from soniq_dse.records.gpu import GpuModel
from soniq_dse.runtime.autotune import sources_sha256
from soniq_dse.runtime.latency import measure
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.store import Store
from soniq_dse.workloads import load_model

Say = Callable[[Any], None]


def node_for(plan: Plan) -> tuple[Node | None, Plan]:
    """The node that measures, and the plan of its host; none where this host measures, or nothing is measured, or no
    node will do: then the plan says so."""
    options, hardware = plan.options, plan.hardware
    if options.executor != "ray" or not options.measure or plan.host_mismatch is None:
        return None, plan
    if isinstance(hardware, GpuModel):
        return None, plan
    found = nodes()
    node = next((one for one in found if match_host(hardware, one.host)[0]), None)
    if node is None:
        mismatch = f"{plan.host_mismatch}, and none of the cluster's {len(found)} nodes has such a processor"
        return None, dataclasses.replace(plan, host_mismatch=mismatch)
    return node, dataclasses.replace(plan, host=node.host, host_mismatch=None)


class NodeMeasurer(Measurer):
    """As ``Measurer``, on ``node``: ``prepare`` measures all, ``design`` and ``baseline`` say what came of it."""

    def __init__(self, plan: Plan, store: Store, failures: dict[str, str], notify: Notify, node: Node) -> None:
        super().__init__(plan, store, failures, notify)
        self._node = node
        self._reasons: dict[str, str] = {}
        """Why there is none, by key of the measurement."""

    def prepare(self, baselines: Sequence[Candidate], designs: Sequence[tuple[Candidate, TrainedDesign]]) -> None:
        """Measure what the store lacks, one after the other, the node's CPUs all taken."""
        jobs = [self._job("baseline", one, self.baseline_key(one), _measure_fp32) for one in baselines]
        for candidate, trained in designs:
            choices = self.packed(candidate, trained).choices
            key = self.design_key(candidate, choices)
            jobs.append(self._job("design", candidate, key, _measure_design, choices.model_dump_json()))
        keys = {job.name: key for job in jobs for _, key in job.writes if self._known(key) is None}
        if not keys:
            return
        node, options = self._node, self._plan.options
        line = f"measuring {len(keys)} networks on node {node.name}: {node.host.processor}"
        self._notify(Progress("measuring", 1.0, None, line))
        alone = dataclasses.replace(
            options, jobs=1, memory_mib=None, needs=((node.resource, 0.001), ("CPU", node.cores))
        )

        def told(job: Job, wrong: str) -> None:
            self._reasons[keys[job.name]] = self.failures[job.name] = wrong

        for outcome in outcomes(alone, self.store, [job for job in jobs if job.name in keys], told):
            if outcome.error:
                self._reasons[keys[outcome.job.name]] = f"node {node.name}: {outcome.error}"

    def design(self, candidate: Candidate, trained: TrainedDesign, packed: PackedNetwork) -> Measurement:
        """The packed network's latency on the node."""
        return self._found(self.design_key(candidate, packed.choices))

    def baseline(self, candidate: Candidate) -> Measurement:
        """The FP32 network's latency in PyTorch on the node."""
        return self._found(self.baseline_key(candidate))

    def _found(self, key: str) -> Measurement:
        found = self.store.get("measurement", key, Measurement)
        return found or Measurement(skipped=self._reasons.get(key, "its measurement is not in the store"))

    def _tuned(self, packed: PackedNetwork) -> Choices:
        """What was tuned here says nothing about the node."""
        return Choices()

    def _job(self, kind: str, candidate: Candidate, key: str, target: Callable[..., None], *more: str) -> StoreJob:
        options, trained = self._plan.options, self._plan.key(kind, candidate)
        args = (candidate.model_dump_json(), options.limit, key, options.batch, options.threads, sources_sha256())
        reads = () if kind == "baseline" else ((kind, trained),)
        more = more if kind == "baseline" else (trained, *more)
        return StoreJob(training_name(kind, candidate), target, (*args, *more), (("measurement", key),), reads)


def _measure_fp32(
    folder: str, text: str, limit: int | None, key: str, batch: int, threads: int, sources: str, say: Say
) -> None:
    """On the node, in a process of its own."""
    _refuse_others(sources)
    candidate = Candidate.from_json(text)
    found = fp32_latency(load_model(candidate.model)[0], task_of(candidate, limit), detect_host(), batch, threads)
    with Store(Path(folder)) as store:
        store.put("measurement", key, found)


def _measure_design(
    folder: str,
    text: str,
    limit: int | None,
    key: str,
    batch: int,
    threads: int,
    sources: str,
    design_key: str,
    choices: str,
    say: Say,
) -> None:
    """On the node, in a process of its own; says what is wrong with the outputs."""
    _refuse_others(sources)
    task = task_of(Candidate.from_json(text), limit)
    with Store(Path(folder)) as store:
        trained = store.get("design", design_key, TrainedDesign)
        if trained is None:
            raise UserError("the design did not reach it")
        arrays = {ref.sha256: store.get_array(ref) for ref in trained.arrays}
        packed = PackedNetwork(trained.network, arrays).with_choices(Choices.from_json(choices))
        wrong = unequal(packed, task, store.get_array(trained.predictions_test), batch, threads)
        if wrong is not None:
            say(wrong)
        else:
            store.put("measurement", key, measure(packed, batch=batch, threads=threads))


def _refuse_others(sources: str) -> None:
    """A measurement is kept under the sources of the one who asks."""
    if sources != sources_sha256():
        raise UserError("its soniq-dse compiles other kernels than the one who asks; install the same version there")
