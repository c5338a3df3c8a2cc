"""A task made of the user's own DataLoaders."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from soniq_dse.errors import UserError, one_line
from soniq_dse.workloads.task import Array, Split, Task, carve, check_classes

VALIDATION_SHARE = 0.15
"""Share of a user's training loader that is held out to choose by."""


def task_from_loaders(train: Any, test: Any, seed: int = 0, name: str = "loaders") -> Task:
    """A classification task from two DataLoaders of (inputs, class numbers); validation is carved from ``train``.

    Each loader is read once, into memory, under global generators seeded with ``seed`` (and put back after), so that
    shuffling and augmentation give the same examples in every process; augmentation is thereby frozen.

    Raises:
        UserError: a loader that cannot be iterated, is empty, fails, or yields anything else.
    """
    held = _gather(f"{name}: train", train, seed)
    tested = _gather(f"{name}: test", test, seed)
    if len(held) < 2:
        raise UserError(f"{name}: train: expected at least 2 examples, got {len(held)}")
    rest, val = carve(held, max(1, round(VALIDATION_SHARE * len(held))), seed)
    n_classes = int(max(held.targets.max(), tested.targets.max())) + 1
    return Task(name, rest, val, tested, n_classes=n_classes)


def _gather(where: str, loader: Any, seed: int) -> Split:
    """Every batch of ``loader``, checked and joined."""
    inputs: list[Array] = []
    targets: list[Array] = []
    try:
        with _seeded(seed):
            for batch in loader:
                x, y = _checked_batch(where, batch)
                inputs.append(x)
                targets.append(y)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's own data set failed: theirs to see, in one line
        raise UserError(f"{where}: reading the loader failed: {one_line(error)}") from error
    if not inputs:
        raise UserError(f"{where}: expected at least one batch, got none")
    shapes = sorted({x.shape[1:] for x in inputs})
    if len(shapes) > 1:
        raise UserError(f"{where}: expected inputs of one shape, got {list(shapes[0])} and {list(shapes[1])}")
    split = Split(np.concatenate(inputs), np.concatenate(targets))
    check_classes(where, split.targets, int(split.targets.max()) + 1)
    return split


def _checked_batch(where: str, batch: Any) -> tuple[Array, Array]:
    expected = f"{where}: expected batches (inputs float [n, ...], class numbers [n]) of tensors"
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        length = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise UserError(f"{expected}, got {type(batch).__name__}{length}")
    try:
        x, y = (np.asarray(part.detach().cpu() if hasattr(part, "detach") else part) for part in batch)
    except (TypeError, ValueError) as error:
        raise UserError(f"{expected}, got {type(batch[0]).__name__} and {type(batch[1]).__name__}") from error
    if not np.issubdtype(x.dtype, np.floating) or not np.issubdtype(y.dtype, np.integer) or y.shape != x.shape[:1]:
        raise UserError(f"{expected}, got inputs {x.dtype} {list(x.shape)} and targets {y.dtype} {list(y.shape)}")
    return x.astype(np.float32), y.astype(np.int64)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Global generators of Python, NumPy and torch at ``seed`` inside, as they were outside."""
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
