"""What ``--model`` and ``--data`` name."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soniq_dse import registry
from soniq_dse.errors import UserError, one_line, unknown_name
from soniq_dse.records.design import Schedule
from soniq_dse.workloads import datasets, models
from soniq_dse.workloads.loaders import task_from_loaders
from soniq_dse.workloads.task import Task

if TYPE_CHECKING:
    import torch

    from soniq_dse.records.workload import Workload

PYTHON_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""``package.module:name``."""

OWN_SCHEDULE = Schedule(baseline_epochs=12, noise_epochs=4, finetune_epochs=8)
"""How a model of the user's own is trained unless told otherwise."""


@dataclass(frozen=True)
class Defaults:
    """What goes with a model unless the user says otherwise; ``data`` and ``input_shape`` (one input, without the batch
    axis) are None for a model of the user's own, ``input_nonnegative`` is then False."""

    data: str | None
    input_shape: tuple[int, ...] | None
    input_nonnegative: bool
    schedule: Schedule
    widths: tuple[float, ...] = (1.0,)


WIDTHS = (0.05, 4.0)
"""Width multipliers that make sense."""


def model_at_width(spec: str, width: float) -> str:
    """The spec of a model with its channels times ``width``: ``digits_cnn@0.5``; at width 1 ``spec`` itself."""
    return spec if width == 1 else f"{spec}@{width:g}"


def width_of(spec: str) -> float:
    """The width multiplier that a spec names, 1 without one.

    Raises:
        UserError: what stands behind ``@`` is no width.
    """
    _, at, text = spec.partition("@")
    try:
        width = float(text) if at else 1.0
    except ValueError:
        width = 0.0
    if not WIDTHS[0] <= width <= WIDTHS[1]:
        raise UserError(f"model {spec}: expected a width from {WIDTHS[0]} to {WIDTHS[1]} behind the @, got {text!r}")
    return width


def load_model(spec: str) -> tuple[Callable[[], torch.nn.Module], Defaults]:
    """(build, defaults) for the name of a model or ``pkg.mod:build``, each with ``@WIDTH`` as in ``digits_cnn@0.5``.

    ``pkg.mod:build`` may name a function or a class that gives a module without arguments, a module (each build is a
    copy of it), or a class deriving from ``models.Base``. A width other than 1 is handed to ``build`` as ``width=``.

    Raises:
        UserError: no such model; ``build`` itself raises one where it fails or gives something else.
    """
    name, width = spec.partition("@")[0], width_of(spec)
    if ":" not in name:
        return _from_unit(registry.load("model", name), width)
    found = registry.load_object(name)
    if inspect.isclass(found) and issubclass(found, models.Base):
        return _from_unit(found, width)
    return _builder(name, found, width), Defaults(None, None, False, OWN_SCHEDULE)


def load_task(spec: str, limit: int | None = None) -> Task:
    """The task that ``NAME``, ``NAME:FOLDER`` or ``pkg.mod:attribute`` names; at most ``limit`` examples a split.

    What stands before the first colon decides: the name of a data set, else a Python module. The attribute is a
    ``Task``, a pair of DataLoaders (train, test), a function without arguments that gives one of them, or a class
    deriving from ``datasets.Base``.

    Raises:
        UserError: no such data set or attribute, or what it gives is none of these.
    """
    name, colon, rest = spec.partition(":")
    known = registry.names("dataset")
    if name in known:
        if colon and not rest:
            raise UserError(f"data {spec!r}: expected {name} or {name}:FOLDER, got no folder after the colon")
        task: Task = registry.load("dataset", name)().load(rest or None, limit)
        return task
    if not PYTHON_PATH.fullmatch(spec) or Path(rest).is_dir():
        raise unknown_name(f"data (NAME, NAME:FOLDER or pkg.mod:loaders) {spec!r}: data set", name, known)
    found = registry.load_object(spec)
    if inspect.isclass(found) and issubclass(found, datasets.Base):
        made: Task = found().load(None, limit)
        return made
    return _as_task(spec, found).limited(limit)


def load_workload(model: str, batch: int = 1, data: str | None = None) -> Workload:
    """The traced graph of ``model`` at ``batch``; the input's shape is the model's default, or that of ``data``.

    Raises:
        UserError: as ``load_model`` and ``trace``; or the shape is not known.
    """
    import torch

    from soniq_dse.workloads.trace import trace

    build, defaults = load_model(model)
    shape, nonnegative, task_name = defaults.input_shape, defaults.input_nonnegative, defaults.data or ""
    tokens = defaults.data is not None and registry.load("dataset", defaults.data).n_tokens is not None
    if data is not None and data.partition(":")[0] != defaults.data:
        task = load_task(data)
        tokens = task.train.inputs.dtype == np.int64
        shape, nonnegative, task_name = task.input_shape, task.input_nonnegative, task.name
    if shape is None:
        raise UserError(
            f"model {model}: expected to know the shape of its input: name its data (--data), or derive it from "
            "soniq_dse.workloads.models.Base with input_shape"
        )
    if batch < 1:
        raise UserError(f"model {model}: expected a batch of at least 1, got {batch}")
    example = torch.zeros(batch, *shape, dtype=torch.int64 if tokens else torch.float32)
    return trace(build(), example, name=model, input_nonnegative=nonnegative, task=task_name)


def _from_unit(unit: type[models.Base], width: float) -> tuple[Callable[[], torch.nn.Module], Defaults]:
    dataset = registry.load("dataset", unit.dataset)
    build = _at_width(unit.__name__, unit().build, width)
    return build, Defaults(unit.dataset, unit.input_shape, dataset.nonnegative, unit.schedule, unit.widths)


def _builder(spec: str, found: Any, width: float) -> Callable[[], torch.nn.Module]:
    function = _at_width(spec, found, width)

    def build() -> torch.nn.Module:
        from torch import nn

        is_module = width == 1 and isinstance(found, nn.Module)
        model = copy.deepcopy(found) if is_module else _called(f"model {spec}", function)
        if not isinstance(model, nn.Module):
            raise UserError(f"model {spec}: expected a torch.nn.Module, got {type(model).__name__}")
        return model

    return build


def _at_width(spec: str, build: Any, width: float) -> Any:
    """``build`` with its ``width`` set, or as it is at width 1."""
    if width == 1:
        return build
    if not callable(build) or "width" not in inspect.signature(build).parameters:
        raise UserError(f"model {spec}@{width:g}: expected a build function with a parameter `width`, got none")
    return partial(build, width=width)


def _as_task(spec: str, found: Any) -> Task:
    value = found if isinstance(found, (Task, tuple, list)) else _called(f"data {spec}", found)
    if isinstance(value, Task):
        return value
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return task_from_loaders(value[0], value[1], name=spec)
    got = f"{type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
    raise UserError(f"data {spec}: expected (train, test) DataLoaders or a soniq_dse.workloads.task.Task, got {got}")


def _called(what: str, function: Any) -> Any:
    if not callable(function):
        raise UserError(f"{what}: expected a function without arguments, got {type(function).__name__}")
    try:
        return function()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code failed: theirs to see, in one line
        raise UserError(f"{what}: calling it failed: {one_line(error)}") from error
