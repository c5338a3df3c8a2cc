"""nn.Module -> a flat graph of ATen calls, by torch.export; where that fails, by torch.fx and a real run."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from soniq_dse.errors import UserError


@dataclass(frozen=True)
class Captured:
    """ATen calls of one forward pass in evaluation mode.

    ``parameters`` maps the placeholder of a parameter or buffer to its dotted path, ``called`` holds the paths of
    modules whose own forward ran, ``output`` is the node that the model returns.
    """

    nodes: tuple[torch.fx.Node, ...]
    parameters: dict[str, str]
    called: frozenset[str]
    output: torch.fx.Node


def capture(model: nn.Module, example: torch.Tensor, name: str) -> Captured:
    """The calls of ``model(example)`` in evaluation mode; the model is left as it was.

    Raises:
        UserError: neither way takes the model (control flow that depends on data, a failing forward pass ...), or it
            returns something else than one tensor.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    failures = []
    try:
        for way, function in (("torch.export", _by_export), ("torch.fx", _by_fx)):
            try:
                with _quiet():
                    return function(model, example)
            except _NotOneTensor as error:
                raise UserError(f"model {name}: expected one tensor as its output, got {error}") from error
            except Exception as error:  # any failure inside the user's model, told in one line
                failures.append(f"{way}: {type(error).__name__}: {_first_line(error)}")
    finally:
        for module, mode in training.items():
            module.training = mode
    raise UserError(
        f"model {name}: expected a forward pass that takes an input of shape {list(example.shape)} and has no branch "
        f"on the values of tensors, got {'; '.join(failures)}"
    )


class _NotOneTensor(Exception):
    pass


def _by_export(model: nn.Module, example: torch.Tensor) -> Captured:
    program = torch.export.export(model, (example,), strict=False)
    signature = program.graph_signature
    parameters = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    nodes = tuple(program.graph.nodes)
    called = frozenset(path for node in nodes for path in stack_paths(node))
    # Buffers that the forward pass writes are outputs too, before the user's own.
    return Captured(nodes, parameters, called, _single(nodes[-1].args[0][len(signature.buffers_to_mutate) :]))


def _by_fx(model: nn.Module, example: torch.Tensor) -> Captured:
    """torch.fx refuses branches on data; what it accepts is then run once, and its ATen calls are written down.

    Unlike torch.export this needs no abstract ("fake") implementation of a custom operator.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    symbolic = torch.fx.symbolic_trace(model)
    called = frozenset(str(node.target) for node in symbolic.graph.nodes if node.op == "call_module")
    state = {**dict(symbolic.named_parameters()), **dict(symbolic.named_buffers())}

    def forward(state: dict[str, torch.Tensor], x: torch.Tensor) -> Any:
        return torch.func.functional_call(symbolic, state, (x,))

    nodes = tuple(make_fx(forward, tracing_mode="real", pre_dispatch=True)(state, example).graph.nodes)
    placeholders = [node.name for node in nodes if node.op == "placeholder"]
    returned = nodes[-1].args[0]
    output = _single(returned if isinstance(returned, (tuple, list)) else (returned,))
    return Captured(nodes, dict(zip(placeholders, state, strict=False)), called, output)


def _single(outputs: Any) -> torch.fx.Node:
    if len(outputs) != 1 or not isinstance(outputs[0], torch.fx.Node):
        raise _NotOneTensor(f"{len(outputs)} values" if len(outputs) != 1 else type(outputs[0]).__name__)
    node: torch.fx.Node = outputs[0]
    return node


def stack_paths(node: torch.fx.Node) -> list[str]:
    """Paths of the modules whose forward made ``node``, outermost first; a repeated call's ``@n`` is left out."""
    stack = node.meta.get("nn_module_stack") or {}
    return [re.sub(r"@\d+", "", path) for path, _ in stack.values()]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracers warn, and print whole graphs when they fail; the user gets one line instead."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
