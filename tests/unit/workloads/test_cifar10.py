"""CIFAR-10's binary files: right ones read whatever their order, wrong ones named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from soniq_dse.errors import UserError
from soniq_dse.workloads.datasets import cifar10

NAMES = [name for names in cifar10.FILES.values() for name in names]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six files of 20 records, every class in each."""
    monkeypatch.setattr(cifar10, "RECORDS_PER_FILE", 20)
    monkeypatch.setattr(cifar10, "N_VAL", 20)
    rng = np.random.default_rng(0)
    for name in NAMES:
        records = rng.integers(0, 256, (20, cifar10.RECORD_BYTES), dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        records.tofile(tmp_path / name)
    return tmp_path


def test_reads_bytes_as_shares_of_255_and_says_what_is_not_official(folder: Path) -> None:
    record = np.fromfile(folder / "test_batch.bin", np.uint8)[: cifar10.RECORD_BYTES]
    with pytest.warns(UserWarning, match="test: not the official content"):
        task = cifar10.Cifar10().load(folder)
    assert [len(split) for split in (task.train, task.val, task.test)] == [80, 20, 20]
    images = task.test.inputs.reshape(20, -1)
    row = next(i for i in range(20) if np.array_equal(images[i], record[1:].astype(np.float32) / np.float32(255)))
    assert task.test.targets[row] == record[0]


@pytest.mark.filterwarnings("ignore:.*not the official content")
def test_the_order_of_a_copy_does_not_matter(folder: Path) -> None:
    before = cifar10.Cifar10().load(folder).data_sha256
    first = np.fromfile(folder / NAMES[0], np.uint8).reshape(20, -1)
    second = np.fromfile(folder / NAMES[1], np.uint8).reshape(20, -1)
    second[::-1].tofile(folder / NAMES[0])
    first.tofile(folder / NAMES[1])
    assert cifar10.Cifar10().load(folder).data_sha256 == before


def test_wrong_files_are_named(folder: Path) -> None:
    path = folder / "data_batch_3.bin"
    good = path.read_bytes()
    for content, message in (
        (good[:-1], r"expected 20 records of 3073 bytes, got 61459 bytes \(cut short"),
        (good + b"x", "got 61461 bytes"),
        (b"\x63" + good[1:], "record 0: expected a label 0..9, got 99; is it CIFAR-100"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            cifar10.Cifar10().load(folder)
        assert str(path) in str(error.value)
    path.rename(folder / "data_batch_3.bin.part")
    with pytest.raises(UserError, match=r"expected a file data_batch_3.bin .*nearest valid choice: 'data_batch_"):
        cifar10.Cifar10().load(folder)
