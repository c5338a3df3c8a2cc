"""What runs the jobs of an exploration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from soniq_dse.explore._plan import Options
from soniq_dse.explore._ray import run_on_ray
from soniq_dse.explore._store_job import StoreJob
from soniq_dse.native.processes import EXECUTORS, Job, Outcome
from soniq_dse.store import Store

PRELOAD = ("soniq_dse.qat.baseline", "soniq_dse.qat.design")
"""What every job imports."""


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
        return run_on_ray(store, jobs, needs=dict(options.needs), **limits)
    return EXECUTORS[options.executor]([job.at(store.folder) for job in jobs], **limits)
