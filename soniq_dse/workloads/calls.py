"""ATen calls as the tracer reads them: their arguments, shapes and modules, and what one becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from soniq_dse.records.workload import Conv2dLayer, GemmLayer
from soniq_dse.workloads.capture import Captured, stack_paths

MOVES = frozenset(
    {
        "cat",
        "chunk",
        "expand",
        "flatten",
        "flip",
        "getitem",
        "index",
        "index_select",
        "narrow",
        "pad",
        "permute",
        "pixel_shuffle",
        "repeat",
        "reshape",
        "roll",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "stack",
        "t",
        "transpose",
        "unbind",
        "unflatten",
        "unsqueeze",
        "view",
        "_unsafe_view",
    }
)
"""Calls that move data and compute nothing."""

_NOT_A_MODULE = "a matrix product outside nn.Linear; only nn.Linear modules are quantised"
STATISTICS = "normalises with statistics of each input, in floating point"
_OTHER_CONVOLUTION = "only two-dimensional convolutions (nn.Conv2d) are quantised"
REASONS = {
    "scaled_dot_product_attention": "attention multiplies activations by activations; only products with weights are "
    "quantised",
    "bmm": "multiplies activations by activations; only products with weights are quantised",
    **dict.fromkeys(("matmul", "mm", "addmm", "einsum"), _NOT_A_MODULE),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), STATISTICS),
    **dict.fromkeys(
        ("conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _OTHER_CONVOLUTION
    ),
    "softmax": "exponentials are computed in floating point",
    **dict.fromkeys(
        ("silu", "mish", "hardswish"),
        "the integer network has no such operator; the nearest that it has are nn.GELU and nn.ReLU6",
    ),
    **dict.fromkeys(
        ("elu", "leaky_relu", "prelu", "softplus", "hardtanh", "clamp", "clamp_min", "clamp_max", "tanh", "sigmoid"),
        "the integer network has no such operator; the nearest that it has are nn.ReLU and nn.ReLU6",
    ),
    "hardsigmoid": "the integer network has no gates, so a squeeze-and-excitation block stays in floating point",
    "cat": "of what is joined, the integer network has only parameters in front of tokens: "
    "torch.cat([cls.expand(n, -1, -1), x], dim=1)",
    "select": "of what is picked out, the integer network has only one token of all, x[:, 0], and query, key and value "
    "of one nn.Linear",
    "dropout": "drops at random in evaluation mode too",
}
"""ATen name -> why it stays in floating point."""


@dataclass(frozen=True)
class Operator:
    """What a call becomes. ``identity``: no node at all. ``reason``: why it stays in floating point ("": it need not).

    ``layer`` makes the layer record for a node's name; ``module`` is the path of the module that owns the weight.
    ``then_flatten``: the call drops the axes of size 1 that its pool leaves.
    """

    op: str
    attributes: dict[str, Any] = field(default_factory=dict)
    layer: Callable[[str], Conv2dLayer | GemmLayer] | None = None
    module: str = ""
    reason: str = ""
    identity: bool = False
    then_flatten: bool = False


@dataclass(frozen=True)
class Context:
    """The model, its calls, and how many calls read each parameter."""

    model: nn.Module
    captured: Captured
    uses: dict[str, int]


def call_of(node: torch.fx.Node) -> tuple[str, dict[str, Any]]:
    """(ATen name without the in-place underscore, arguments by name, defaults included)."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target)), {}
    space, _, name = schema.name.partition("::")
    args = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    args |= {argument.name: value for argument, value in zip(schema.arguments, node.args, strict=False)}
    name = name.removesuffix("_") if writes_input(node) else name
    return (name if space == "aten" else f"{space}.{name}"), args | dict(node.kwargs)


def reason_of(op: str) -> str:
    """Why an operator stays in floating point that the integer network has no node for."""
    moved = "moves data; the integer network has no such operator" if op in MOVES else ""
    return REASONS.get(op) or moved or "the integer network has no such operator"


def writes_input(node: torch.fx.Node) -> bool:
    """Whether the call works in place on its first argument."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable and schema.name.endswith("_"))


def shape_of(node: torch.fx.Node) -> tuple[int, ...]:
    """Shape of what a call gives; () where that is no tensor."""
    value = node.meta.get("val")
    return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()


def same_type(node: torch.fx.Node) -> bool:
    """Whether the call leaves the type of its input as it is."""
    return bool(node.meta["val"].dtype == node.all_input_nodes[0].meta["val"].dtype)


def owner_of(node: torch.fx.Node, weight: Any, kind: type[nn.Module], context: Context) -> tuple[str, str]:
    """(path of the module of class ``kind`` that owns ``weight`` or "", why training could not quantise it there)."""
    path = context.captured.parameters.get(weight.name) if isinstance(weight, torch.fx.Node) else None
    wanted = f"only weights of nn.{kind.__name__} modules are quantised"
    if path is None:
        return "", f"its weight is computed in the forward pass; {wanted}"
    owner, _, leaf = path.rpartition(".")
    caller = next(reversed(stack_paths(node)), owner)
    weight_tensor = getattr(context.model.get_submodule(owner), leaf)
    if getattr(context.model.get_submodule(caller), "weight", None) is weight_tensor:
        owner, leaf = caller, "weight"  # of several modules that share a weight, the one that runs
    module = context.model.get_submodule(owner)
    if not isinstance(module, kind) or leaf != "weight":
        split = isinstance(module, nn.MultiheadAttention)
        hint = "; soniq_dse.workloads.split_attention(model) gives it such layers" if split else ""
        return "", f"its weight {path!r} belongs to {type(module).__name__}; {wanted}{hint}"
    if context.uses[weight.name] > 1:
        return owner, (
            f"its weight is read {context.uses[weight.name]} times; one assignment cannot follow all inputs, so give "
            "every call a module with a weight of its own"
        )
    if owner not in context.captured.called or owner != caller:
        return owner, f"{owner}.weight is read without calling the module {owner}, so its input is out of reach"
    return owner, ""
