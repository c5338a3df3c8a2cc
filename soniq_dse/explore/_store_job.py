"""What a job reads from the store and leaves there, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soniq_dse.native.processes import Job
from soniq_dse.records.base import Record
from soniq_dse.records.cost import Measurement
from soniq_dse.records.design import RoundedStart, TrainedBaseline, TrainedDesign

KINDS: dict[str, type[Record]] = {
    "baseline": TrainedBaseline,
    "design": TrainedDesign,
    "rounded": RoundedStart,
    "measurement": Measurement,
}
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
