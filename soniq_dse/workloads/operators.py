"""ATen call -> operator of a Workload: a canonical name where the integer network has one, else the ATen name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from soniq_dse.records.workload import Conv2dLayer, GemmLayer
from soniq_dse.workloads import token_operators
from soniq_dse.workloads.calls import STATISTICS, Context, Operator, call_of, owner_of, reason_of, same_type, shape_of

IDENTITIES = frozenset({"alias", "clone", "contiguous", "detach", "lift_fresh_copy"})
"""Calls that change no value."""


def operator_of(node: torch.fx.Node, context: Context) -> Operator:
    """The operator behind one ATen call."""
    op, args = call_of(node)
    if op in IDENTITIES or (op == "dropout" and not args.get("train")) or (op == "to" and same_type(node)):
        return Operator(op, identity=True)
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return Operator(op, reason="what runs under no_grad, autocast or a control-flow operator is not looked into")
    convert = _CONVERT.get(op)
    found = convert(node, args, context) if convert else None
    return found or _other(op)


def _other(op: str) -> Operator:
    return Operator(op, reason=reason_of(op))


def _pair(value: Any) -> tuple[int, int]:
    values = [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
    return (values[0], values[-1])


def _conv2d(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    weight = args["weight"]
    out_channels, _, *kernel = weight.meta["val"].shape
    stride, dilation = _pair(args["stride"]), _pair(args["dilation"])
    batch, in_channels, height, width = ([1, *shape_of(args["input"])])[-4:]
    owner, reason = owner_of(node, weight, nn.Conv2d, context)
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
    owner, reason = owner_of(node, args["weight"], nn.Linear, context)
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
    reason = STATISTICS if args["training"] or not path else ""
    return Operator("batch_norm", {"eps": float(args["eps"])}, module=path.rpartition(".")[0], reason=reason)


def _add(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    terms = (args["self"], args["other"])
    both = all(isinstance(term, torch.fx.Node) and term.name not in context.captured.parameters for term in terms)
    if both and args["alpha"] == 1 and all(shape_of(term) == shape_of(node) for term in terms):
        return Operator("add")
    if args["alpha"] == 1 and (constant := token_operators.places(node, terms, context)) is not None:
        return constant
    return Operator("add", reason="only two activations of one shape are added, unscaled, in the integer network")


def _pool(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    op, _ = call_of(node)
    kernel = _pair(args["kernel_size"])
    stride = _pair(args["stride"]) if args["stride"] else kernel
    padding = _pair(args["padding"])
    before, after = shape_of(node.all_input_nodes[0])[-2:], shape_of(node)[-2:]
    plain = (
        (op == "max_pool2d" or padding == (0, 0))
        and _pair(args.get("dilation", 1)) == (1, 1)
        and args.get("divisor_override") is None
        and all(after[i] == (before[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    )
    attributes = {
        "kernel": list(kernel),
        "stride": list(stride),
        **({"padding": list(padding)} if any(padding) else {}),
    }
    reason = (
        "" if plain else "the integer network has no pool with dilation, ceil mode, another divisor or a padded mean"
    )
    return Operator(op, attributes, reason=reason)


def _adaptive_pool(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    before, after = shape_of(args["self"])[-2:], shape_of(node)[-2:]
    if any(before[i] % after[i] for i in (0, 1)):
        return Operator("adaptive_avg_pool2d", reason=f"windows differ in size from {list(before)} to {list(after)}")
    return _average([before[i] // after[i] for i in (0, 1)])


def _mean(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    shape = shape_of(args["self"])
    axes = args.get("dim")
    if len(shape) == 3 and axes and [axis % 3 for axis in axes] == [1] and not args["keepdim"] and same_type(node):
        return Operator("mean_tokens")
    if len(shape) != 4 or not axes or {axis % 4 for axis in axes} != {2, 3} or not same_type(node):
        return _other("mean")
    return _average(list(shape[2:]), then_flatten=not args["keepdim"])


def _bounded(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    """From 0 to a bound above it a clip, as ReLU6 is. Others keep their lower bound: one at 0 or above makes the tensor
    nonnegative."""
    op, _ = call_of(node)
    low, most = (args.get(f"{end}_val", args.get(end)) for end in ("min", "max"))
    if op == "relu6":
        low, most = 0.0, 6.0
    if low == 0 and isinstance(most, (int, float)) and most > 0:
        return Operator("clip", {"most": float(most)})
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


_CONVERT: dict[str, Callable[[torch.fx.Node, dict[str, Any], Context], Operator | None]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": lambda node, args, context: Operator("relu"),
    "gelu": lambda node, args, context: Operator("gelu", {"approximate": args["approximate"]}),
    "add": _add,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "mean": _mean,
    **dict.fromkeys(("clamp", "clamp_min", "hardtanh", "relu6"), _bounded),
    **dict.fromkeys(("flatten", "reshape", "squeeze", "view", "_unsafe_view"), _reshape),
    **token_operators.CONVERT,
}
