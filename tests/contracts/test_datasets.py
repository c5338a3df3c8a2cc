"""Every data set that the registry finds: the same split every time, disjoint, as declared, identified by content."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from soniq_dse import registry
from soniq_dse.workloads.datasets import Base
from soniq_dse.workloads.task import SPLITS, Task

SHA256 = {
    "cifar10": "8ac8a9d9",
    "digits": "78a105cb4417",
    "fashion_mnist": "34cc2d1b",
    "multi30k": "588c7111dae9",
    "tiny_shakespeare": "b3f768de",
    "wikitext2": "4b1d9145",
}
"""First digits of ``data_sha256`` of the whole sets: a changed split or reader would change every stored result."""


LARGE = {"cifar10"}
"""Gigabytes once in memory: tested where the slow tests are."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in registry.names("dataset")],
)
def dataset(request: pytest.FixtureRequest, shared_data: Any) -> tuple[Base, Task, Any]:
    """(unit, its task, its folder); skips, naming the folder, where its files are absent."""
    unit = registry.load("dataset", request.param)()
    folder = shared_data(unit.folder_name) if unit.folder_name else None
    return unit, unit.load(folder), folder


def test_is_as_declared(dataset: tuple[Base, Task, Any]) -> None:
    unit, task, _ = dataset
    assert task.input_shape == unit.input_shape
    assert task.input_nonnegative == unit.nonnegative
    assert task.n_classes == unit.n_classes
    for name in SPLITS:
        split = task.split(name)
        if unit.n_tokens:
            assert split.inputs.shape == split.targets.shape
            assert max(split.inputs.max(), split.targets.max()) < unit.n_tokens
            assert (split.inputs[:, 1:] == split.targets[:, :-1]).all(), "the next token"
        else:
            assert set(np.unique(split.targets)) == set(range(unit.n_classes))


def test_reads_the_same_again(dataset: tuple[Base, Task, Any]) -> None:
    unit, task, folder = dataset
    name = type(unit).__module__.rpartition(".")[2]
    assert unit.load(folder).data_sha256 == task.data_sha256
    assert task.data_sha256.startswith(SHA256.get(name, ""))


def test_splits_are_disjoint(dataset: tuple[Base, Task, Any]) -> None:
    _, task, _ = dataset
    whole = [{hashlib.sha256(example.data).digest() for example in task.split(name).inputs} for name in SPLITS]
    n_examples = sum(len(task.split(name)) for name in SPLITS)
    # Sets may hold the same image twice; that is rare, while a split that overlaps by mistake does so wholesale.
    shared = sum(len(whole[i] & whole[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert shared <= 0.001 * n_examples


def test_classes_are_in_proportion(dataset: tuple[Base, Task, Any]) -> None:
    _, task, _ = dataset
    if task.n_classes is None:
        pytest.skip("no classes")
    shares = [np.bincount(task.split(name).targets) / len(task.split(name)) for name in ("train", "val")]
    assert np.abs(shares[0] - shares[1]).max() < 0.01


def test_limit(dataset: tuple[Base, Task, Any]) -> None:
    _, task, _ = dataset
    short = task.limited(100)
    assert [len(short.split(name)) for name in SPLITS] == [100, 100, 100]
    if task.n_classes is not None:
        assert len(np.unique(short.train.targets)) == task.n_classes
