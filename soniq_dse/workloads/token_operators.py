"""ATen calls of Transformers -> operators: what reads token numbers, normalises, or moves tokens about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from soniq_dse.workloads.calls import Context, Operator, call_of, owner_of, reason_of, shape_of

_OUTSIDE = "only tables of nn.Embedding modules without max_norm, read at token numbers [n, tokens], are looked up"


def _embedding(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    if _counts(args["indices"]):
        return Operator("embedding", identity=True)  # a table of places: ``places`` says how much of it
    owner, reason = owner_of(node, args["weight"], nn.Embedding, context)
    indices = args["indices"].meta["val"]
    if not reason and (indices.dtype != torch.int64 or indices.ndim != 2):
        reason = _OUTSIDE
    if owner and not reason and context.model.get_submodule(owner).max_norm is not None:
        reason = _OUTSIDE
    return Operator("embedding", module=owner, reason=reason)


def _layer_norm(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator | None:
    shape = shape_of(args["input"])
    if list(args["normalized_shape"]) != [shape[-1]] or len(shape) not in (2, 3):
        return None
    gain, bias = (_path(args.get(name), context) for name in ("weight", "bias"))
    if gain is None or (bias is None and args.get("bias") is not None):
        return None
    attributes = {"eps": float(args["eps"]), "gain": gain, **({} if bias is None else {"bias": bias})}
    return Operator("layer_norm", attributes)


def _path(term: Any, context: Context) -> str | None:
    """The path of a parameter or buffer."""
    return context.captured.parameters.get(term.name) if isinstance(term, torch.fx.Node) else None


def _arange(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator | None:
    return Operator("arange", identity=True) if _counts(node) else None


def _counts(numbers: Any) -> bool:
    """Whether they are 0, 1, 2 ...: the places of tokens."""
    if not isinstance(numbers, torch.fx.Node) or numbers.op != "call_function":
        return False
    op, args = call_of(numbers)
    if op == "unsqueeze":
        return args["dim"] == 0 and _counts(args["self"])
    return op == "arange" and (args.get("start", 0), args.get("step", 1)) == (0, 1)


def _slice(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator | None:
    """Of token numbers a slice; of a parameter the table of places itself (``places`` says how much of it)."""
    source = args["self"]
    if shape_of(source) == shape_of(node) and args["step"] == 1:
        return Operator("slice", identity=True)
    if _is_parameter(source, context) and (args["dim"], args["start"] or 0, args["step"]) == (0, 0, 1):
        return Operator("slice", identity=True)
    tokens = source.meta["val"]
    if tokens.dtype != torch.int64 or tokens.ndim != 2 or args["dim"] % 2 != 1 or args["step"] != 1:
        return None
    start, stop, _ = slice(args["start"], args["end"]).indices(tokens.shape[1])
    return Operator("slice", {"start": start, "stop": stop})


def places(node: torch.fx.Node, terms: tuple[Any, Any], context: Context) -> Operator | None:
    """The sum of an activation ``[n, tokens, channels]`` and a parameter of as many rows, or more."""
    constants = [term for term in terms if _constant(term, context)]
    if len(constants) != 1 or len(shape_of(node)) != 3 or not all(isinstance(term, torch.fx.Node) for term in terms):
        return None
    other = terms[0] if terms[1] is constants[0] else terms[1]
    rows = shape_of(constants[0])
    if shape_of(other) != shape_of(node) or rows not in (shape_of(node)[1:], (1, *shape_of(node)[1:])):
        return None
    return Operator("add", {"parameters": [_constant(constants[0], context)]})


def _expand(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator | None:
    """A parameter for each sample is that parameter (``_cat`` says where)."""
    return Operator("expand", identity=True) if _is_parameter(args["self"], context) else None


def _cat(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator | None:
    """Parameters ``[1, more, channels]``, one for all samples, in front of tokens ``[n, tokens, channels]``."""
    *before, tokens = args["tensors"]
    paths = [_of_each_sample(term, context) for term in before]
    if args["dim"] % 3 != 1 or len(shape_of(node)) != 3 or not paths or None in paths or _is_parameter(tokens, context):
        return None
    return Operator("prepend", {"parameters": paths})


def _of_each_sample(term: Any, context: Context) -> str | None:
    """The path of the parameter that ``term`` expands over samples alone."""
    if isinstance(term, torch.fx.Node) and term.op == "call_function":
        op, args = call_of(term)
        same = op == "expand" and shape_of(args["self"])[-2:] == shape_of(term)[-2:]
        return _constant(args["self"], context) if same else None
    return _constant(term, context) if shape_of(term)[:1] == (1,) else None


def _select(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator | None:
    """One of ``[n, tokens, channels]``; else ``fusing`` may know it: as query, key or value."""
    shape = shape_of(args["self"])
    axis = args["dim"] % max(len(shape), 1)
    index = args["index"] % shape[axis] if shape and isinstance(args["index"], int) else None
    if len(shape) == 3 and axis == 1 and index is not None and not _is_parameter(args["self"], context):
        return Operator("token", {"index": index})
    return _kept(node, {"axis": axis, "index": index})


def _getitem(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator | None:
    """One of the tensors of a call that gives several."""
    index = node.args[1]
    return _kept(node, {"index": index}) if isinstance(index, int) else None


def _divided(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator | None:
    """Into several tensors; ``starts``: where each of them begins on the axis."""
    length = shape_of(args["self"])[args["dim"]]
    size = args.get("split_size", args.get("split_sizes", 1))
    if "chunks" in args:
        size = -(-length // args["chunks"])
    starts = list(range(0, length, size)) if isinstance(size, int) else [sum(size[:i]) for i in range(len(size))]
    return _kept(node, {"axis": args["dim"] % len(shape_of(args["self"])), "starts": starts})


def _constant(term: Any, context: Context) -> str | None:
    """The path of the parameter behind ``term``, or behind its first rows."""
    if _is_parameter(term, context):
        path = context.captured.parameters[term.name]
        return (
            path if path in {**dict(context.model.named_parameters()), **dict(context.model.named_buffers())} else None
        )
    if isinstance(term, torch.fx.Node) and term.op == "call_function":
        op, args = call_of(term)
        if op == "embedding" and _counts(args["indices"]):
            return _constant(args["weight"], context)
        found = _slice(term, args, context) if op == "slice" else None
        return _constant(args["self"], context) if found is not None and found.identity else None
    return None


def _is_parameter(term: Any, context: Context) -> bool:
    return isinstance(term, torch.fx.Node) and term.name in context.captured.parameters


def _attention(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator | None:
    """Still in floating point: ``fusing`` makes it a node of the integer network, with what stands around it."""
    if args["dropout_p"] or args.get("enable_gqa") or (args["is_causal"] and args["attn_mask"] is not None):
        return None
    width = shape_of(args["query"])[-1]
    scale = width**-0.5 if args["scale"] is None else float(args["scale"])
    return _kept(node, {"causal": bool(args["is_causal"]), "scale": scale})


def _moved(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator:
    axes = list(range(len(shape_of(node))))
    if "dims" in args:
        axes = [axis % len(axes) for axis in args["dims"]]
    else:
        one, other = args["dim0"] % len(axes), args["dim1"] % len(axes)
        axes[one], axes[other] = axes[other], axes[one]
    return _kept(node, {"axes": axes})


def _with_number(node: torch.fx.Node, args: dict[str, Any], context: Context) -> Operator | None:
    number = args["other"]
    return _kept(node, {"number": float(number)}) if isinstance(number, (int, float)) else None


def _kept(node: torch.fx.Node, attributes: dict[str, Any]) -> Operator:
    """An operator with attributes that has no node in the integer network by itself."""
    op, _ = call_of(node)
    return Operator(op, attributes, reason=reason_of(op))


CONVERT: dict[str, Callable[[torch.fx.Node, dict[str, Any], Context], Operator | None]] = {
    "arange": _arange,
    "unsqueeze": _arange,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "slice": _slice,
    "scaled_dot_product_attention": _attention,
    "transpose": _moved,
    "permute": _moved,
    "eq": _with_number,
    "mul": _with_number,
    "cat": _cat,
    "expand": _expand,
    "select": _select,
    "getitem": _getitem,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "unbind"), _divided),
}
