"""IDX files: right ones read, wrong ones named with what was expected and what was got."""

from __future__ import annotations

import gzip
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.errors import UserError
from soniq_dse.workloads.datasets import idx
from soniq_dse.workloads.datasets.fashion_mnist import FashionMnist


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(3 * 2 * 2, dtype=np.uint8).reshape(3, 2, 2)
GOOD = idx_bytes(IMAGES)


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_reads_plain_and_gzip(tmp_path: Path, pack: type) -> None:
    path = tmp_path / "images"
    path.write_bytes(pack(GOOD))
    assert np.array_equal(idx.read(path, (2, 2)), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n", "got 89504e47"),
        (idx_bytes(IMAGES, kind=13), "got 00000d03"),
        (idx_bytes(IMAGES[0]), "got 00000802"),
        (GOOD[:9], "expected 3 sizes in the header, got 5 bytes"),
        (GOOD[:-1], r"expected 12 bytes for 3 x 2 x 2, got 11 \(cut short"),
        (GOOD + b"x", "expected 12 bytes for 3 x 2 x 2, got more"),
        (idx_bytes(np.zeros((3, 2, 4), np.uint8)), "expected sizes n x 2 x 2 with n > 0, got 3 x 2 x 4"),
        (idx_bytes(np.zeros((0, 2, 2), np.uint8)), "n > 0, got 0 x 2 x 2"),
        (gzip.compress(GOOD, mtime=0)[:-12], "cannot be read"),
        (b"\x1f\x8b" + b"rubbish" * 9, "cannot be read"),
        (gzip.compress(GOOD[:8] + b"\xff" * 8, mtime=0), "got 3 x 4294967295"),
    ],
)
def test_wrong_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        idx.read(path, (2, 2))
    assert str(path) in str(error.value)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=64), compressed=st.booleans())
def test_rubbish_is_a_user_error(tmp_path_factory: pytest.TempPathFactory, content: bytes, compressed: bool) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(UserError):
        idx.read(path, (28, 28))


def write_fashion(folder: Path, n_train: int, n_test: int, n_labels: int | None = None) -> None:
    rng = np.random.default_rng(0)
    for part, n in (("train", n_train), ("t10k", n_test)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, n if n_labels is None else n_labels, dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images), 1))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


def test_other_content_in_the_same_layout_warns_and_reads(tmp_path: Path) -> None:
    write_fashion(tmp_path, 10_050, 30)
    with pytest.warns(UserWarning, match="not the official content"):
        task = FashionMnist().load(tmp_path, limit=40)
    assert [len(task.split(name)) for name in ("train", "val", "test")] == [40, 40, 30]
    assert 0 <= task.train.inputs.min() < task.train.inputs.max() == 1


def test_wrong_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SONIQ_DSE_DATA", raising=False)
    with pytest.raises(UserError, match="give fashion_mnist:FOLDER, or set SONIQ_DSE_DATA"):
        FashionMnist().load()
    (tmp_path / "fashion-mnist").mkdir()
    with pytest.raises(UserError, match=r"nearest valid choice: '.*/fashion-mnist'"):
        FashionMnist().load(tmp_path / "fashion-mnits")
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz or .*holds no file"):
        FashionMnist().load(tmp_path / "fashion-mnist")
    monkeypatch.setenv("SONIQ_DSE_DATA", str(tmp_path))
    (tmp_path / "fashion-mnist" / "train-image-idx3-ubyte.gz").touch()
    with pytest.raises(UserError, match=r"nearest valid choice: 'train-image-idx3-ubyte\.gz'"):
        FashionMnist().load()


def test_labels_and_counts_are_checked(tmp_path: Path) -> None:
    write_fashion(tmp_path, 20, 3, n_labels=19)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="as many train labels as images, got 19 and 20"):
            FashionMnist().load(tmp_path)
        write_fashion(tmp_path, 20, 3)
        with pytest.raises(UserError, match="more than 10000 training images, got 20"):
            FashionMnist().load(tmp_path)
