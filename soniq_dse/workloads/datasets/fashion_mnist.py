"""Fashion-MNIST: 60,000 and 10,000 grey images 28x28, 10 classes, from the four official IDX files.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv 1708.07747; files of github.com/zalandoresearch/fashion-mnist, gzip or unpacked.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np

from soniq_dse.errors import UserError
from soniq_dse.workloads import datasets
from soniq_dse.workloads.datasets import idx
from soniq_dse.workloads.task import Split, Task, carve

N_VAL = 10_000
"""Validation examples taken from the 60,000; as many as the official test set has."""

OFFICIAL_SHA256 = {
    "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}
"""File -> SHA-256 of its array. Other content in this layout is the user's right: it draws a warning, not an error."""


class FashionMnist(datasets.Base):
    """Inputs ``[n, 1, 28, 28]``: bytes divided by 255."""

    folder_name = "fashion-mnist"
    input_shape = (1, 28, 28)
    n_classes = 10
    nonnegative = True

    def read(self, folder: Path) -> Task:
        """Train and validation from ``train-*``, test from ``t10k-*``."""
        whole = _split(folder, "train")
        if len(whole) <= N_VAL:
            raise UserError(f"{folder}: expected more than {N_VAL} training images, got {len(whole)}")
        train, val = carve(whole, N_VAL)
        return Task("fashion_mnist", train, val, _split(folder, "t10k"), n_classes=self.n_classes)


def _split(folder: Path, part: str) -> Split:
    arrays = []
    for name, item_shape in ((f"{part}-images-idx3-ubyte", (28, 28)), (f"{part}-labels-idx1-ubyte", ())):
        path = idx.find(folder, name)
        array = idx.read(path, item_shape)
        if hashlib.sha256(array.data).hexdigest() != OFFICIAL_SHA256[name]:
            warnings.warn(f"{path}: not the official content; taken as it is", stacklevel=2)
        arrays.append(array)
    images, labels = arrays
    if len(images) != len(labels):
        raise UserError(f"{folder}: expected as many {part} labels as images, got {len(labels)} and {len(images)}")
    inputs = images.reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255)
    return Split(inputs, labels.astype(np.int64))
