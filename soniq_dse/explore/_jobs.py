"""Trainings as jobs: what each reads from the store and leaves there, and what runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soniq_dse.explore._plan import Options
from soniq_dse.native.processes import EXECUTORS, Job, Outcome
from soniq_dse.records.base import Record
from soniq_dse.records.design import RoundedStart, TrainedBaseline, TrainedDesign
from soniq_dse.store import Store

PRELOAD = ("soniq_dse.qat.baseline", "soniq_dse.qat.design")
"""What every job imports."""
KINDS: dict[str, type[Record]] = {"baseline": TrainedBaseline, "design": TrainedDesign, "rounded": RoundedStart}
"""Of the store: what jobs read and leave."""
Place = tuple[str, str]
"""Kind and key of a result in the store."""


@dataclass(frozen=True)
class StoreJob:
    """``target(folder of the store, *args, say)``: a module-level function and plain values. It needs no more of the
    store than ``reads``, and leaves ``writes`` there."""

    name: str
    target: Callable[..., None]
    args: tuple[Any, ...]
    writes: tuple[Place, ...]
    reads: tuple[Place, ...] = ()

    def at(self, folder: Path) -> Job:
        """The job on the store in ``folder``."""
        return Job(self.name, self.target, (str(folder), *self.args))


def outcomes(
    options: Options, store: Store, jobs: Sequence[StoreJob], on_message: Callable[[Job, Any], None]
) -> Iterator[Outcome]:
    """Run ``jobs`` as ``options`` say and yield how each ended; what it gave is in the store by then."""
    limits: dict[str, Any] = {
        "workers": options.jobs,
        "timeout_s": options.timeout_s,
        "memory_mib": options.memory_mib,
        "on_message": on_message,
        "preload": PRELOAD,
    }
    if options.executor == "ray":
        from soniq_dse.explore._ray import run_on_ray

        return run_on_ray(store, jobs, needs=dict(options.needs), **limits)
    return EXECUTORS[options.executor]([job.at(store.folder) for job in jobs], **limits)
