"""The metric that is reported: that of the integer network under the deployment arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from soniq_dse.formats import network as golden
from soniq_dse.records.network import IntegerNetwork
from soniq_dse.workloads.task import Task, at_full_length

Array = npt.NDArray[Any]


EVALUATION_BATCH = 64
"""Examples whose outputs are held at once, where the metric allows it."""


def evaluate_network(
    network: IntegerNetwork, arrays: Mapping[str, Array], task: Task, split: Literal["train", "val", "test"]
) -> tuple[float, Array]:
    """(metric, what it follows from) of ``network`` on a split, by the golden evaluation; ``arrays`` by hash."""
    run = at_full_length(lambda x: np.asarray(golden.evaluate(network, arrays, x)), network.nodes[0].shape[0])
    return task.metric.judged(run, task.split(split), EVALUATION_BATCH)
