"""Layers that are kept at a level of their own, whatever the palette."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from soniq_dse.errors import UserError, unknown_name
from soniq_dse.records.design import Candidate, Granularity
from soniq_dse.records.palette import Level
from soniq_dse.records.workload import Node, Workload
from soniq_dse.workloads.classes import PINNED_BITS, PinnedBits, classes_of, default_pins, nonnegative

Ends = Level | Literal["free"] | None


def graph_of(workload: Workload, candidate: Candidate) -> Workload:
    """``workload``, a trace, with the classes that ``candidate`` asks for.

    Raises:
        UserError: as ``with_pins``.
    """
    return with_pins(workload, candidate.pins, candidate.first_last, candidate.granularity)


def with_pins(
    workload: Workload, pins: Mapping[str, Level], first_last: Ends = None, granularity: Granularity = "class"
) -> Workload:
    """``workload`` with the tensors that these layers read pinned, each a class of its own.

    Args:
        workload: a trace.
        pins: module path -> level. Layers that read the same tensor share its codes, and so the level.
        first_last: level of what the first and the last layers read: 8 bits (None), another, or that of the palette.
        granularity: other than ``class``, every tensor that a layer reads is a class of its own.

    Raises:
        UserError: a module is no quantised layer, or two pins of one tensor differ.
    """
    if not pins and first_last is None and granularity == "class":
        return workload
    nodes, floating = list(workload.nodes), {part.node for part in workload.unsupported}
    ends = PINNED_BITS if first_last is None else None if first_last == "free" else _bits(first_last)
    fixed = default_pins(nodes, floating, ends) | _asked(nodes, floating, pins)
    by_name = {node.name: node for node in nodes}
    known = {by_name[reader].inputs[0] for c in workload.tensor_classes if c.nonnegative for reader in c.consumers}
    # Whether the input may be negative is no part of a trace: what its classes say of tensors is kept.
    signs = {tensor: sign or tensor in known for tensor, sign in nonnegative(nodes, floating, False).items()}
    found = classes_of(nodes, floating, signs, fixed, apart=granularity != "class")
    return workload.model_copy(update={"tensor_classes": found})


def _asked(nodes: list[Node], floating: set[str], pins: Mapping[str, Level]) -> dict[str, PinnedBits]:
    """Tensor -> bits."""
    layers = {node.module: node for node in nodes if node.layer is not None and node.name not in floating}
    found: dict[str, PinnedBits] = {}
    for module, level in pins.items():
        if module not in layers:
            raise unknown_name("pin: layer", module, layers)
        tensor = layers[module].inputs[0]
        if found.setdefault(tensor, _bits(level)) != _bits(level):
            others = [other for other in pins if other != module and layers[other].inputs[0] == tensor]
            raise UserError(
                f"pin: expected one level for all layers that read {tensor!r}, got {level.name} for {module} and "
                f"{pins[others[0]].name} for {others[0]}"
            )
    return found


def _bits(level: Level) -> PinnedBits:
    same = level.weight_bits == level.activation_bits
    return level.weight_bits if same else (level.weight_bits, level.activation_bits)
