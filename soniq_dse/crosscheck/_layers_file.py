"""A file of layers -> Layer records; every mistake of the file at once, each with its place and what would be right."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from soniq_dse.errors import UserError, nearest
from soniq_dse.kernels.catalog import kernels_for
from soniq_dse.kernels.gpu_catalog import gpu_layer_kernel_for, part_for
from soniq_dse.records.gpu import GpuModel, Machine
from soniq_dse.records.palette import MAX_BITS
from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Layer, Segment

LARGEST = 2**31 - 1
"""Of any size in a layer: the driver counts in 32 and 64 bits."""
MOST_LAYERS = 10_000
_LAYER: TypeAdapter[GemmLayer | Conv2dLayer] = TypeAdapter(Layer)
_KINDS: dict[str, type[GemmLayer] | type[Conv2dLayer]] = {"gemm": GemmLayer, "conv2d": Conv2dLayer}
_DESCRIBED = {"kernel": "[height, width]", "stride": "[height, width]", "padding": "[height, width]"}


def read_layers(path: Path, hw: Machine) -> tuple[GemmLayer | Conv2dLayer, ...]:
    """The layers of the JSON array in ``path``, which can be run by the kernels of a machine like ``hw``.

    Raises:
        UserError: it cannot be read, or a layer is wrong; the text holds all mistakes, one a line.
    """
    items = _items(path)
    layers: list[GemmLayer | Conv2dLayer] = []
    problems: list[str] = []
    first_of: dict[str, int] = {}
    for index, item in enumerate(items):
        try:
            layer = _LAYER.validate_json(json.dumps(item), strict=True)
        except ValidationError as error:
            problems += [f"{path}: {line}" for line in _explained(error, index, item)]
            continue
        found = list(_problems(layer, hw))
        if layer.name in first_of:
            found.append(("name", f"expected a name of its own, got {layer.name!r}, as layer {first_of[layer.name]}"))
        first_of.setdefault(layer.name, index)
        problems += [f"{path}: {_place(index, item, (field,))}: {text}" for field, text in found]
        layers.append(layer)
    if problems:
        raise UserError("\n".join(problems))
    return tuple(layers)


def _items(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8 text, got {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise UserError(f"{path}: expected a file of layers, got: {error.strerror}") from error
    try:
        items = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_fields_once)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}:{error.colno}: expected JSON, got: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON of plain numbers, got: {error}") from error
    if not isinstance(items, list):
        raise UserError(f"{path}: expected an array of layers, [{{...}}, ...], got {_shown(items)}")
    if not 1 <= len(items) <= MOST_LAYERS:
        raise UserError(f"{path}: expected an array of 1 to {MOST_LAYERS} layers, got {len(items)}")
    return items


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _fields_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        named = f" of {str(fields['name'])[:60]!r}" if "name" in fields else ""
        raise ValueError(f"field {twice[:60]!r}{named} twice")
    return fields


def _problems(layer: GemmLayer | Conv2dLayer, hw: Machine) -> list[tuple[str, str]]:
    """(field, what is wrong) of a layer whose fields are well formed."""
    found: list[tuple[str, str]] = []
    if not layer.name:
        found.append(("name", "expected a name, got an empty one"))
    if not layer.segments:
        found.append(("segments", "expected at least one segment (an fp32 layer has no kernel of ours), got none"))
    for field, value in layer.to_json_value().items():
        sizes = value if isinstance(value, list) else [value]
        if any(isinstance(size, int) and size > LARGEST for size in sizes):
            found.append((field, f"expected at most {LARGEST}, got {value}"))
    cores = 1 if isinstance(hw, GpuModel) else hw.cores
    if layer.threads > cores:
        cores_of = "1 on a GPU" if isinstance(hw, GpuModel) else f"at most the {cores} cores of {hw.name}"
        found.append(("threads", f"expected {cores_of}, got {layer.threads}"))
    for index, segment in enumerate(layer.segments):
        text = _depth_problem(layer, segment, hw)
        if text:
            found.append((f"segments[{index}]", text))
    return found


def _depth_problem(layer: GemmLayer | Conv2dLayer, segment: Segment, hw: Machine) -> str:
    if segment.activation_bits > MAX_BITS:
        return (
            f"expected activation_bits of 1 to {MAX_BITS}: the layer driver multiplies integers, "
            f"got {segment.activation_bits}; nearest valid choice: {MAX_BITS}"
        )
    if isinstance(hw, GpuModel):
        most = part_for(gpu_layer_kernel_for(hw), segment.level).k_max
    else:
        most = max(spec.k_max for spec in kernels_for(segment.level, signed=True, features=hw.features))
    depth = layer.taps * segment.channels
    if depth <= most:
        return ""
    return (
        f"expected at most {most} products in a sum at {segment.level.name} (kernel positions x channels), or the "
        f"32-bit sum could overflow, got {depth}; nearest valid choice: {max(1, most // layer.taps)} channels"
    )


def _explained(error: ValidationError, index: int, item: Any) -> list[str]:
    return [_explain(dict(found), index, item) for found in error.errors(include_url=False)]


def _explain(found: dict[str, Any], index: int, item: Any) -> str:
    kind, got = str(found["type"]), _shown(found["input"])
    loc = [part for part in found["loc"] if part not in _KINDS]  # pydantic names the chosen kind of layer first
    place = _place(index, item, loc)
    if kind == "json_invalid":  # half of a surrogate pair
        return f"{place}: expected text of whole characters, got an unpaired surrogate"
    if not isinstance(item, dict):
        return f"[{index}]: expected a layer, {{...}}, got {got}"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        op = item.get("op")
        said = _shown(op) if "op" in item else "nothing"
        return f"{_place(index, item, ('op',))}: expected gemm or conv2d, got {said}{nearest(str(op), _KINDS)}"
    if kind == "missing" and isinstance(loc[-1], int):
        return f"{_place(index, item, loc[:-1])}: expected {_DESCRIBED.get(str(loc[-2]), 'more values')}, got {got}"
    if kind == "missing":
        return f"{place}: expected {_DESCRIBED.get(str(loc[-1]), 'a value')}, got nothing: this field is required"
    if kind == "extra_forbidden":
        return f"{place}: expected a known field, got {str(loc[-1])[:60]!r}{nearest(str(loc[-1]), _fields(item, loc))}"
    if kind == "value_error":
        return f"{place}: {str(found['msg']).removeprefix('Value error, ')}"
    if kind in ("greater_than", "greater_than_equal", "less_than_equal"):
        limit = next(iter(found.get("ctx", {}).values()))
        least = limit + 1 if kind == "greater_than" else limit
        side = "at most" if kind == "less_than_equal" else "at least"
        return f"{place}: expected a whole number of {side} {least}, got {got}; nearest valid choice: {least}"
    if kind.startswith("int"):
        return f"{place}: expected a whole number, got {got}"
    if kind == "string_type":
        return f"{place}: expected text, got {got}"
    if kind in ("tuple_type", "too_long", "too_short", "model_type"):
        wanted = _DESCRIBED.get(str(loc[-1] if loc else ""), "an array" if kind != "model_type" else "{...}")
        return f"{place}: expected {wanted}, got {got}"
    return f"{place}: expected {found['msg']}, got {got}"


def _fields(item: Any, loc: list[int | str]) -> list[str]:
    """Fields there are where an unknown one was found."""
    if len(loc) > 1:
        return list(Segment.model_fields)
    return list(_KINDS[item["op"]].model_fields)


def _place(index: int, item: Any, loc: Any) -> str:
    """``[3] 'conv1' segments[0].channels``: index, name where there is one, field."""
    name = item.get("name") if isinstance(item, dict) else None
    field = ""
    for part in loc:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
    parts = [f"[{index}]", repr(name[:60]) if isinstance(name, str) and name else "", field]
    return " ".join(part for part in parts if part)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list) and not value:
        return "an empty array"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
