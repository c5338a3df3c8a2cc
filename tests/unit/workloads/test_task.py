"""Task: splits, batches, identity, and tasks from DataLoaders."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from soniq_dse.errors import UserError
from soniq_dse.workloads.loaders import task_from_loaders
from soniq_dse.workloads.task import ACCURACY, Metric, Split, Task, carve, shuffled, stratified_order


def toy_split(n: int, start: int = 0, n_classes: int = 3) -> Split:
    """Example i holds the number start + i, so that every example can be told from every other."""
    numbers = np.arange(start, start + n)
    return Split(numbers[:, None].astype(np.float32), numbers % n_classes)


def toy_task() -> Task:
    return Task("toy", toy_split(20), toy_split(7, 100), toy_split(5, 200), n_classes=3)


def numbers(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> list[list[float]]:
    return [x[:, 0].tolist() for x, _ in batches]


def test_evaluation_batches_hold_everything_in_order() -> None:
    assert numbers(toy_task().batches("val", 3)) == [[100, 101, 102], [103, 104, 105], [106]]


def test_training_batches_drop_the_short_last_one_and_keep_pairs() -> None:
    batches = list(toy_task().batches("train", 6, seed=0, epoch=0))
    assert [len(x) for x, _ in batches] == [6, 6, 6]
    seen = torch.cat([x[:, 0] for x, _ in batches])
    assert len(set(seen.tolist())) == 18
    assert torch.equal(seen % 3, torch.cat([y for _, y in batches]).float())


def test_training_batch_larger_than_the_split_holds_it_all() -> None:
    ((x, _),) = toy_task().batches("val", 64, seed=1)
    assert sorted(x[:, 0].tolist()) == list(range(100, 107))


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    task = toy_task()
    first = numbers(task.batches("train", 5, seed=3, epoch=1))
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    assert numbers(task.batches("train", 5, seed=3, epoch=1)) == first
    assert numbers(task.batches("train", 5, seed=3, epoch=2)) != first
    assert numbers(task.batches("train", 5, seed=4, epoch=1)) != first


def test_shuffle_is_this_one_for_ever() -> None:
    # Raw PCG64 words, which NumPy promises to keep: a changed order would change every stored result.
    assert shuffled(8, 0, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


def test_batches_are_copies() -> None:
    task = toy_task()
    x, _ = next(iter(task.batches("val", 3)))
    x += 1
    assert task.val.inputs[0, 0] == 100
    with pytest.raises(ValueError, match="read-only"):
        task.val.inputs[0, 0] = 1


def test_data_sha256_follows_every_array_and_the_split() -> None:
    task = toy_task()
    moved = Task("toy", task.train, task.test, task.val, n_classes=3)
    relabelled = Task("toy", task.train, task.val, Split(task.test.inputs, (task.test.targets + 1) % 3), n_classes=3)
    assert toy_task().data_sha256 == task.data_sha256
    assert len({task.data_sha256, moved.data_sha256, relabelled.data_sha256}) == 3


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=5), data=st.data())
def test_every_prefix_is_stratified(counts: list[int], data: st.DataObject) -> None:
    targets = np.repeat(np.arange(len(counts)), counts)
    order = stratified_order(targets, seed=data.draw(st.integers(0, 5)))
    assert sorted(order.tolist()) == list(range(len(targets)))
    n = data.draw(st.integers(1, len(targets)))
    held = np.bincount(targets[order[:n]], minlength=len(counts))
    share = n / len(targets) * np.array(counts)
    # The cut falls at one place in [0, 1] of every class: each count is within half an example of place * count, and
    # the counts add up to n, so the shares are met within half an example per class.
    assert np.all(np.abs(held - share) <= 0.5 + 0.5 * len(counts))


def test_carve_is_disjoint_complete_and_in_order() -> None:
    rest, held = carve(toy_split(30), 6)
    assert sorted([*rest.inputs[:, 0], *held.inputs[:, 0]]) == list(range(30))
    assert list(held.inputs[:, 0]) == sorted(held.inputs[:, 0])
    assert np.bincount(held.targets).tolist() == [2, 2, 2]
    with pytest.raises(UserError, match="between 1 and 29"):
        carve(toy_split(30), 30)


def test_limited() -> None:
    short = toy_task().limited(6)
    assert [len(short.split(name)) for name in ("train", "val", "test")] == [6, 6, 5]
    assert np.bincount(short.train.targets).tolist() == [2, 2, 2]
    assert short.data_sha256 != toy_task().data_sha256
    assert toy_task().limited(None).data_sha256 == toy_task().limited(100).data_sha256 == toy_task().data_sha256
    with pytest.raises(UserError, match="at least 1"):
        toy_task().limited(0)


def test_accuracy_takes_the_first_of_equals() -> None:
    outputs = np.array([[1.0, 1.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    assert ACCURACY.compute(outputs, np.array([0, 1, 1, 1])) == 75.0


def test_metric_direction() -> None:
    perplexity = Metric("perplexity", "", "down", lambda outputs, targets: 0.0)
    assert perplexity.better(10, 20)
    assert not perplexity.better(10, 10)
    assert ACCURACY.better(90, 80)


def test_input_nonnegative_reads_train_alone() -> None:
    below = Split(-toy_split(5).inputs, toy_split(5).targets)
    assert Task("t", toy_split(5), toy_split(5), below, 3).input_nonnegative
    assert not Task("t", below, toy_split(5), toy_split(5), 3).input_nonnegative


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (np.zeros((3, 1)), np.zeros(3, int), "float32 .*, got float64"),
        (np.zeros((3, 1), np.float32), np.zeros(2, int), "got 3 inputs and 2 targets"),
        (np.zeros((0, 1), np.float32), np.zeros(0, int), "at least one"),
        (np.full((1, 1), np.nan, np.float32), np.zeros(1, int), "finite"),
        ([1.0], np.zeros(1, int), "NumPy array, got list"),
    ],
)
def test_wrong_splits(inputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Split(inputs, targets)


def test_wrong_tasks() -> None:
    good, wide = toy_split(4), Split(np.zeros((4, 2), np.float32), np.zeros(4, int))
    with pytest.raises(UserError, match=r"expected test inputs of shape \[1\] as in train, got \[2\]"):
        Task("t", good, good, wide, 3)
    with pytest.raises(UserError, match=r"expected class numbers 0\.\.1, got 0\.\.2"):
        Task("t", good, good, good, 2)
    with pytest.raises(UserError, match="'test'"):
        toy_task().batches("tset", 3).__next__()


def loader(n: int, start: int = 0, **options: Any) -> DataLoader:
    split = toy_split(n, start)
    data = TensorDataset(torch.tensor(split.inputs), torch.tensor(split.targets))
    return DataLoader(data, batch_size=4, **options)


def test_task_from_loaders_is_deterministic_and_leaves_generators_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = task_from_loaders(loader(40, shuffle=True), loader(8, 100))
    assert torch.equal(torch.rand(1), expected)
    two = task_from_loaders(loader(40, shuffle=True), loader(8, 100))
    assert one.data_sha256 == two.data_sha256
    assert (len(one.train), len(one.val), len(one.test), one.n_classes) == (34, 6, 8, 3)
    assert sorted([*one.train.inputs[:, 0], *one.val.inputs[:, 0]]) == list(range(40))
    assert np.bincount(one.val.targets).tolist() == [2, 2, 2]
    assert one.test.inputs[:, 0].tolist() == list(range(100, 108))


class Failing(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        raise OSError("disk on fire")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([], "at least one batch, got none"),
        ([{"x": 1}], "got dict"),
        ([(1, 2, 3)], "got tuple of 3"),
        ([(torch.zeros(2, 1, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))], "got inputs uint8"),
        ([(torch.zeros(2, 1), torch.zeros(2))], r"targets float32 \[2\]"),
        ([(torch.zeros(2, 1), torch.zeros(2, 5, dtype=torch.int64))], r"targets int64 \[2, 5\]"),
        ([(torch.zeros(1, 1), torch.zeros(1, dtype=int)), (torch.zeros(1, 2), torch.zeros(1, dtype=int))], "one shape"),
        ([(torch.zeros(2, 1), torch.tensor([0, -1]))], r"got -1\.\.0"),
        ([(torch.zeros(1, 1), torch.zeros(1, dtype=int))], "at least 2 examples"),
        (DataLoader(Failing()), "OSError: disk on fire"),
        (7, "not iterable"),
    ],
)
def test_wrong_loaders(train: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        task_from_loaders(train, loader(4), name="my:loaders")
    assert "my:loaders: train" in str(error.value)
