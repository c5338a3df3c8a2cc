"""CIFAR-10: 50,000 and 10,000 colour images 32x32, 10 classes, from the six official binary files.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; the "binary version" of
https://www.cs.toronto.edu/~kriz/cifar.html: records of one label byte, then 1024 red, green and blue bytes by rows.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from soniq_dse.errors import UserError, nearest
from soniq_dse.workloads import datasets
from soniq_dse.workloads.task import Split, Task, carve

SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
RECORDS_PER_FILE = 10_000
N_VAL = 5_000
"""Validation examples taken from the 50,000."""
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}

CONTENT_SHA256 = {
    "train": "55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
    "test": "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
}
"""Split -> SHA-256 over the sorted SHA-256 of its records: the same for every copy, whatever its order. Other content
in this layout is the user's right: it draws a warning, not an error."""


class Cifar10(datasets.Base):
    """Inputs ``[n, 3, 32, 32]``: bytes divided by 255. Records are put into the order of their hashes, so that copies
    in different orders are split alike."""

    folder_name = "cifar-10-batches-bin"
    input_shape = SHAPE
    n_classes = 10
    nonnegative = True

    def read(self, folder: Path) -> Task:
        """Train and validation from ``data_batch_*.bin``, test from ``test_batch.bin``."""
        train, val = carve(_split(folder, "train"), N_VAL)
        return Task("cifar10", train, val, _split(folder, "test"), n_classes=self.n_classes)


def _split(folder: Path, part: str) -> Split:
    records = np.concatenate([_records(folder, name) for name in FILES[part]])
    digests = [hashlib.sha256(record.data).digest() for record in records]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    if hashlib.sha256(b"".join(digests[i] for i in order)).hexdigest() != CONTENT_SHA256[part]:
        warnings.warn(f"{folder}: {part}: not the official content; taken as it is", stacklevel=3)
    records = records[order]
    inputs = records[:, 1:].reshape(-1, *SHAPE).astype(np.float32)
    inputs /= np.float32(255)
    return Split(inputs, records[:, 0].astype(np.int64))


def _records(folder: Path, name: str) -> npt.NDArray[np.uint8]:
    """The records of one file: ``[10000, 3073]``."""
    path, expected = folder / name, RECORDS_PER_FILE * RECORD_BYTES
    if not path.is_file():
        present = [p.name for p in folder.iterdir() if p.is_file()]
        got = nearest(name, present) if present else "; the folder holds no file"
        raise UserError(f"{folder}: expected a file {name} (CIFAR-10, binary version), got none{got}")
    size = path.stat().st_size
    if size != expected:
        hint = " (cut short?)" if size < expected else ""
        raise UserError(f"{path}: expected {RECORDS_PER_FILE} records of {RECORD_BYTES} bytes, got {size} bytes{hint}")
    records = np.fromfile(path, np.uint8).reshape(RECORDS_PER_FILE, RECORD_BYTES)
    if records[:, 0].max() > 9:
        row = int(np.argmax(records[:, 0] > 9))
        raise UserError(
            f"{path}: record {row}: expected a label 0..9, got {records[row, 0]}; is it CIFAR-100, or another layout?"
        )
    return records
