"""Tiny Shakespeare: 1.1 million characters of plays, for models of characters.

Source: A. Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015 (char-rnn, ``input.txt``).
"""

from __future__ import annotations

import string
from itertools import pairwise
from pathlib import Path

import numpy as np

from soniq_dse.errors import UserError
from soniq_dse.workloads import datasets
from soniq_dse.workloads.datasets import text
from soniq_dse.workloads.task import PERPLEXITY, SPLITS, Task, token_cross_entropy

CHARACTERS = "".join(sorted("\n !$&',-.3:;?" + string.ascii_letters))
LENGTH = 128
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class TinyShakespeare(datasets.Base):
    """Inputs ``[n, 128]``: numbers of characters; targets: each one's successor. The first nine tenths are trained on,
    the rest is for validation and test in equal parts. The metric is the perplexity of a character."""

    folder_name = "text"
    input_shape = (LENGTH,)
    n_classes = None
    n_tokens = len(CHARACTERS)
    nonnegative = True

    def read(self, folder: Path) -> Task:
        """From ``input.txt`` or ``tinyshakespeare.txt``, with or without ``.gz``."""
        content = text.read(folder, ("input.txt", "tinyshakespeare.txt"), SHA256)
        foreign = sorted(set(content) - set(CHARACTERS))
        if foreign:
            raise UserError(
                f"{folder}: expected the {len(CHARACTERS)} characters of Tiny Shakespeare, got {foreign[0]!r}"
            )
        number_of = {character: number for number, character in enumerate(CHARACTERS)}
        tokens = np.array([number_of[character] for character in content], dtype=np.int64)
        ends = [0, 9 * len(tokens) // 10, 19 * len(tokens) // 20, len(tokens)]
        splits = {
            name: text.next_token_split(f"{folder}: {name}", tokens[begin:end], LENGTH)
            for name, (begin, end) in zip(SPLITS, pairwise(ends), strict=True)
        }
        return Task(
            "tiny_shakespeare",
            splits["train"],
            splits["val"],
            splits["test"],
            loss=token_cross_entropy,
            metric=PERPLEXITY,
            text=text.by_number(CHARACTERS, ""),
        )
