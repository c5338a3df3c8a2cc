"""ATen call -> operator of a Workload: a canonical name where the integer network has one, else the ATen name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from soniq_dse.records.workload import Conv2dLayer, GemmLayer
from soniq_dse.workloads.capture import Captured, stack_paths

IDENTITIES = frozenset({"alias", "clone", "contiguous", "detach", "lift_fresh_copy"})
"""Calls that change no value."""

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
_STATISTICS = "normalises with statistics of each input, in floating point"
_OTHER_CONVOLUTION = "only two-dimensional convolutions (nn.Conv2d) are quantised"
REASONS = {
    "scaled_dot_product_attention": "attention multiplies activations by activations; only products with weights are "
    "quantised",
    "bmm": "multiplies activations by activations; only products with weights are quantised",
    **dict.fromkeys(("matmul", "mm", "addmm", "einsum"), _NOT_A_MODULE),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), _STATISTICS),
    **dict.fromkeys(
        ("conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _OTHER_CONVOLUTION
    ),
    "softmax": "exponentials are computed in floating point",
    "embedding": "a table look-up, kept in floating point",
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


def operator_of(node: torch.fx.Node, context: Context) -> Operator:
    """The operator behind one ATen call."""
    op, args = call_of(node)
    if op in IDENTITIES or (op == "dropout" and not args.get("train")) or (op == "to" and _same_type(node)):
        return Operator(op, identity=True)
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return Operator(op, reason="what runs under no_grad, autocast or a control-flow operator is not looked into")
    convert = _CONVERT.get(op)
    return convert(node, args, context) if convert else _other(op)


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


def writes_input(node: torch.fx.Node) -> bool:
    """Whether the call works in place on its first argument."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable and schema.name.endswith("_"))


def shape_of(node: torch.fx.Node) -> tuple[int, ...]:
    """Shape of what a call gives; () where that is no tensor."""
    value = node.meta.get("val")
    return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()


def _same_type(node: torch.fx.Node) -> bool:
    return bool(node.meta["val"].dtype == node.all_input_nodes[0].meta["val"].dtype)


def _other(op: str) -> Operator:
    moved = "moves data; the integer network has no such operator" if op in MOVES else ""
    return Operator(op, reason=REASONS.get(op) or moved or "the integer network has no such operator")


def _pair(value: Any) -> tuple[int, int]:
    values = [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
    return (values[0], values[-1])


def _owner(node: torch.fx.Node, weight: Any, kind: type[nn.Module], context: Context) -> tuple[str, str]:
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
        return "", f"its weight {path!r} belongs to {type(module).__name__}; {wanted}"
    if context.uses[weight.name] > 1:
        return owner, f"its weight is read {context.uses[weight.name]} times; one assignment cannot follow all inputs"
    if owner not in context.captured.called or owner != caller:
        return owner, f"{owner}.weight is read without calling the module {owner}, so its input is out of reach"
    return owner, ""


def _conv2d(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    weight = args["weight"]
    out_channels, _, *kernel = weight.meta["val"].shape
    stride, dilation = _pair(args["stride"]), _pair(args["dilation"])
    batch, in_channels, height, width = ([1, *shape_of(args["input"])])[-4:]
    owner, reason = _owner(node, weight, nn.Conv2d, context)
    spans = [dilation[i] * (kernel[i] - 1) for i in (0, 1)]
    padding = {"same": (spans[0] // 2, spans[1] // 2), "valid": (0, 0)}.get(str(args["padding"]))
    if padding is None:
        padding = _pair(args["padding"])
    elif str(args["padding"]) == "same" and (spans[0] % 2 or spans[1] % 2):
        reason = "padding='same' of an even kernel differs from side to side"
    if len(shape_of(node)) != 4:
        reason = "its input has no batch axis"

    def layer(name: str) -> Conv2dLayer:
        return Conv2dLayer(
            name=name,
            batch=batch,
            in_channels=in_channels,
            out_channels=out_channels,
            height=height,
            width=width,
            kernel=_pair(kernel),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=args["groups"],
        )

    return Operator("conv2d", {"bias": args.get("bias") is not None}, layer, owner, reason)


def _linear(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    n, k = args["weight"].meta["val"].shape
    owner, reason = _owner(node, args["weight"], nn.Linear, context)
    m = math.prod(shape_of(node)[:-1])
    return Operator(
        "linear",
        {"bias": args.get("bias") is not None},
        lambda name: GemmLayer(name=name, m=m, n=n, k=k),
        owner,
        reason,
    )


def _batch_norm(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    mean = args["running_mean"]
    path = context.captured.parameters.get(mean.name, "") if isinstance(mean, torch.fx.Node) else ""
    reason = _STATISTICS if args["training"] or not path else ""
    return Operator("batch_norm", {"eps": float(args["eps"])}, module=path.rpartition(".")[0], reason=reason)


def _add(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    terms = (args["self"], args["other"])
    both = all(isinstance(term, torch.fx.Node) and term.name not in context.captured.parameters for term in terms)
    if both and args["alpha"] == 1 and all(shape_of(term) == shape_of(node) for term in terms):
        return Operator("add")
    return Operator("add", reason="only two activations of one shape are added, unscaled, in the integer network")


def _pool(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    op, _ = call_of(node)
    kernel = _pair(args["kernel_size"])
    stride = _pair(args["stride"]) if args["stride"] else kernel
    before, after = shape_of(node.all_input_nodes[0])[-2:], shape_of(node)[-2:]
    plain = (
        _pair(args["padding"]) == (0, 0)
        and _pair(args.get("dilation", 1)) == (1, 1)
        and args.get("divisor_override") is None
        and all(after[i] == (before[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    )
    attributes = {"kernel": list(kernel), "stride": list(stride)}
    reason = "" if plain else "the integer network has no pool with padding, dilation, ceil mode or another divisor"
    return Operator(op, attributes, reason=reason)


def _adaptive_pool(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    before, after = shape_of(args["self"])[-2:], shape_of(node)[-2:]
    if any(before[i] % after[i] for i in (0, 1)):
        return Operator("adaptive_avg_pool2d", reason=f"windows differ in size from {list(before)} to {list(after)}")
    return _average([before[i] // after[i] for i in (0, 1)])


def _mean(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    shape = shape_of(args["self"])
    axes = args.get("dim")
    if len(shape) != 4 or not axes or {axis % 4 for axis in axes} != {2, 3} or not _same_type(node):
        return _other("mean")
    return _average(list(shape[2:]), then_flatten=not args["keepdim"])


def _bounded(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    """Clamps keep their lower bound: one at 0 or above makes the tensor nonnegative, as ReLU6 does."""
    op, _ = call_of(node)
    low = args.get("min_val", args.get("min"))
    attributes = {"low": float(low)} if isinstance(low, (int, float)) else {}
    return Operator(op, attributes, reason=_other(op).reason)


def _average(kernel: list[int], then_flatten: bool = False) -> Operator:
    return Operator("avg_pool2d", {"kernel": kernel, "stride": kernel}, then_flatten=then_flatten)


def _reshape(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    before, after = shape_of(args["self"]), shape_of(node)
    if before == after:
        return Operator("", identity=True)
    if len(before) == 4 and after == (before[0], math.prod(before[1:])):
        return flatten(before)
    return _other("reshape")


def flatten(shape: tuple[int, ...]) -> Operator:
    """``[n, channels, height, width]`` -> features; each channel becomes ``features_per_channel`` neighbours."""
    return Operator("flatten", {"features_per_channel": math.prod(shape[2:])})


_CONVERT: dict[str, Callable[[torch.fx.Node, dict[str, Any], Context], Operator]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": lambda node, args, context: Operator("relu"),
    "add": _add,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "mean": _mean,
    **dict.fromkeys(("clamp", "clamp_min", "hardtanh"), _bounded),
    **dict.fromkeys(("flatten", "reshape", "squeeze", "view", "_unsafe_view"), _reshape),
}
