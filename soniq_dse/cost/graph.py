"""What a workload and an assignment say of one layer."""

from __future__ import annotations

from soniq_dse.records.design import Assignment
from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Node, Segment, Workload

MatmulLayer = GemmLayer | Conv2dLayer


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
