"""What a workload and an assignment say of one layer."""

from __future__ import annotations

import networkx as nx
import numpy as np

from soniq_dse.records.design import Assignment
from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Node, Segment, Workload

MatmulLayer = GemmLayer | Conv2dLayer


_SHARES_ORDER = frozenset(
    {
        "relu",
        "clip",
        "gelu",
        "batch_norm",
        "add",
        "add_constant",
        "tokens",
        "prepend",
        "token",
        "mean_tokens",
        "avg_pool2d",
        "max_pool2d",
    }
)
_FIXES_ORDER = frozenset({"embedding", "layer_norm", "attention"})
"""What sums over channels does so as they were trained, and heads are blocks of them."""


def at_batch(layer: MatmulLayer, workload: Workload, batch: int) -> MatmulLayer:
    """The layer for ``batch`` inputs, whatever batch it was traced at."""
    traced = workload.input_shape[0]
    if isinstance(layer, Conv2dLayer):
        return layer.model_copy(update={"batch": max(1, layer.batch * batch // traced)})
    return layer.model_copy(update={"m": max(1, layer.m * batch // traced)})


def segments_of(workload: Workload, node: Node, assignment: Assignment | None) -> tuple[Segment, ...] | None:
    """Segments of a layer's input channels; None where it stays in fp32."""
    found = workload.class_of(node.inputs[0])
    if assignment is None or found is None or found.name not in assignment.level_of_channel:
        return None
    assert node.layer is not None
    per_channel = node.layer.segment_channels * node.layer.n_groups // found.channels
    return tuple(
        segment.model_copy(update={"channels": segment.channels * per_channel})
        for segment in assignment.segments(found.name)
    )


def is_signed(workload: Workload, node: Node) -> bool:
    """Whether the input of a layer may be negative."""
    found = workload.class_of(node.inputs[0])
    return found is not None and not found.nonnegative


def is_free(workload: Workload, node: Node) -> bool:
    """Whether a palette decides the input of a layer."""
    found = workload.class_of(node.inputs[0])
    return found is not None and found.pinned_bits is None


def reordered(workload: Workload, assignment: Assignment | None) -> frozenset[str]:
    """The tensors whose channels change their order as they become codes.

    Levels are contiguous in codes. Tensors that an operator joins lie in one order, which the first of them to become
    codes decides, so that its maker writes it; or in that of the trained model, where operators depend on it.
    """
    if assignment is None:
        return frozenset()
    levels: dict[str, tuple[int, ...]] = {}
    for node in workload.nodes:
        read = workload.class_of(node.inputs[0]) if node.layer is not None else None
        if read is not None and len(set(assignment.level_of_channel.get(read.name, ()))) > 1:
            levels.setdefault(node.inputs[0], assignment.level_of_channel[read.name])
    joined = nx.Graph()
    joined.add_nodes_from(node.name for node in workload.nodes)
    joined.add_edges_from((node.name, i) for node in workload.nodes if node.op in _SHARES_ORDER for i in node.inputs)
    fixed = {i for node in workload.nodes if node.op in _FIXES_ORDER for i in (node.name, *node.inputs)}
    found: set[str] = set()
    for component in nx.connected_components(joined):
        mine = [tensor for tensor in levels if tensor in component]
        order = np.argsort(levels[mine[0]], kind="stable") if mine and not component & fixed else slice(None)
        found.update(tensor for tensor in mine if (np.diff(np.asarray(levels[tensor])[order]) < 0).any())
    return frozenset(found)
