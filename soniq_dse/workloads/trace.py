"""nn.Module -> Workload: shapes, edges, layers, tensor classes, and what cannot be quantised, with the reason."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from soniq_dse.records.workload import Node, Unsupported, Workload
from soniq_dse.workloads import classes, fusing, operators
from soniq_dse.workloads.calls import Context, Operator, shape_of, writes_input
from soniq_dse.workloads.capture import Captured, capture, stack_paths


def trace(
    model: nn.Module, example: torch.Tensor, *, name: str, input_nonnegative: bool = False, task: str = ""
) -> Workload:
    """The graph of ``model`` in evaluation mode at the shape of ``example`` (batch first); the model is left as it was.

    A node is named after the module that made it where one did, and carries its path, so that training finds the
    module. Layers: every ``nn.Conv2d`` and ``nn.Linear`` called once; all else that computes and has no operator in
    the integer network is listed in ``unsupported``. ``input_nonnegative``: no input is below zero.

    Raises:
        UserError: the forward pass fails or branches on data, or gives something else than one tensor.
    """
    captured = capture(model, example, name)
    nodes, unsupported = fusing.fused(*_Builder(model, captured).build())
    unsupported += classes.unfoldable(nodes, {u.node for u in unsupported})
    unsupported += classes.misaligned(nodes, {u.node for u in unsupported})
    order = {node.name: index for index, node in enumerate(nodes)}
    return Workload(
        name=name,
        input_shape=tuple(example.shape),
        nodes=tuple(nodes),
        tensor_classes=classes.tensor_classes(nodes, {u.node for u in unsupported}, input_nonnegative),
        task=task,
        unsupported=tuple(sorted(unsupported, key=lambda u: order[u.node])),
    )


class _Builder:
    """Walks the calls in order; ``_tensor_of`` says which node's output each call's result is."""

    def __init__(self, model: nn.Module, captured: Captured) -> None:
        self._captured = captured
        self._live = _live(captured)
        self._context = Context(
            model, captured, Counter(read.name for node in self._live for read in node.all_input_nodes)
        )
        self._nodes: list[Node] = []
        self._unsupported: list[Unsupported] = []
        self._tensor_of: dict[str, str] = {}

    def build(self) -> tuple[list[Node], list[Unsupported]]:
        """(nodes in topological order, what stays in floating point)."""
        for call in self._live:
            if call.op == "placeholder" and call.name not in self._captured.parameters:
                self._tensor_of[call.name] = self._append(Operator("input"), "input", (), shape_of(call))
            elif call.op == "call_function":
                self._call(call)
        return self._nodes, self._unsupported

    def _call(self, call: torch.fx.Node) -> None:
        found = operators.operator_of(call, self._context)
        inputs = self._inputs(call)
        if found.identity:
            self._tensor_of |= {call.name: inputs[0]} if inputs else {}
            return
        name, module = self._named(call, found)
        if found.reason:
            found.attributes.update(self._parameters(call))
        shape = shape_of(call)
        tensor = self._append(found, name, inputs, (*shape, 1, 1) if found.then_flatten else shape, module)
        if found.then_flatten:
            tensor = self._append(operators.flatten((*shape, 1, 1)), f"{name}.flatten", (tensor,), shape)
        if writes_input(call) and call.args[0].name in self._tensor_of:
            # From here on, every reader of the tensor that was written to sees the result.
            written = self._tensor_of[call.args[0].name]
            self._tensor_of |= {key: tensor for key, value in self._tensor_of.items() if value == written}
        self._tensor_of[call.name] = tensor

    def _inputs(self, call: torch.fx.Node) -> tuple[str, ...]:
        """Tensors read, in the order of the arguments; one that is read twice (``x + x``) stands twice."""
        read: list[torch.fx.Node] = []
        torch.fx.node.map_arg((call.args, call.kwargs), read.append)
        return tuple(self._tensor_of[node.name] for node in read if node.name in self._tensor_of)

    def _parameters(self, call: torch.fx.Node) -> dict[str, Any]:
        paths = [self._captured.parameters.get(read.name) for read in call.all_input_nodes]
        return {"parameters": [path for path in paths if path]} if any(paths) else {}

    def _named(self, call: torch.fx.Node, found: Operator) -> tuple[str, str]:
        """(name of the node, path of its module): a layer, or another module without children, names its call."""
        path = next(reversed(stack_paths(call)), "")
        caller = self._context.model.get_submodule(path)
        leaf = bool(path) and not any(caller.children()) and not isinstance(caller, (nn.Conv2d, nn.Linear))
        module = found.module or (path if leaf else "")
        return module or f"{path}.{found.op}".removeprefix("."), module

    def _append(
        self, found: Operator, name: str, inputs: tuple[str, ...], shape: tuple[int, ...], module: str = ""
    ) -> str:
        taken = {node.name for node in self._nodes}
        unique = next(n for n in (name, *(f"{name}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)
        layer = found.layer(unique) if found.layer else None
        self._nodes.append(
            Node(
                name=unique,
                op=found.op,
                inputs=inputs,
                shape=shape,
                module=module,
                layer=layer,
                attributes=found.attributes,
            )
        )
        if found.reason:
            self._unsupported.append(Unsupported(node=unique, op=found.op, reason=found.reason))
        return unique


def _live(captured: Captured) -> list[torch.fx.Node]:
    """Calls that the output depends on, in order, and those that write to one of these in place."""
    wanted = {captured.output}
    for node in reversed(captured.nodes):
        if node in wanted or (writes_input(node) and node.all_input_nodes[0] in wanted):
            wanted |= {node, *node.all_input_nodes}
    return [node for node in captured.nodes if node in wanted]
