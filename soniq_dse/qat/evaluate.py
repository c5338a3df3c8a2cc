"""The metric that is reported: that of the integer network under the deployment arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy.typing as npt

from soniq_dse.formats import network as golden
from soniq_dse.records.network import IntegerNetwork
from soniq_dse.workloads.task import Task

Array = npt.NDArray[Any]


def evaluate_network(
    network: IntegerNetwork, arrays: Mapping[str, Array], task: Task, split: Literal["train", "val", "test"]
) -> tuple[float, Array]:
    """(metric, outputs) of ``network`` on a split, by the golden evaluation; ``arrays`` by hash."""
    data = task.split(split)
    outputs = golden.evaluate(network, arrays, data.inputs)
    return float(task.metric.compute(outputs, data.targets)), outputs
