"""WikiText-2: two million words of Wikipedia, rare ones replaced by ``<unk>``, for models of words.

Source: S. Merity et al., "Pointer Sentinel Mixture Models", arXiv 1609.07843 (the word-level files ``wiki.*.tokens``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soniq_dse.errors import UserError
from soniq_dse.workloads import datasets
from soniq_dse.workloads.datasets import text
from soniq_dse.workloads.task import PERPLEXITY, Task, token_cross_entropy

LENGTH = 128
END, UNKNOWN = "<eos>", "<unk>"
FILES = {
    "train": (
        ("wiki.train.tokens", "wikitext2.train.txt"),
        "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
    ),
    "val": (
        ("wiki.valid.tokens", "wikitext2.valid.txt"),
        "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    ),
    "test": (
        ("wiki.test.tokens", "wikitext2.test.txt"),
        "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ),
}
"""Split -> (names of its file, SHA-256 of its content)."""


class Wikitext2(datasets.Base):
    """Inputs ``[n, 128]``: numbers of words in the sorted vocabulary of the training text, a line's end being one;
    targets: each one's successor. The metric is the perplexity of a word."""

    folder_name = "text"
    input_shape = (LENGTH,)
    n_classes = None
    n_tokens = 33_278
    nonnegative = True

    def read(self, folder: Path) -> Task:
        """From ``wiki.train.tokens`` and its siblings, with or without ``.gz``."""
        words = {name: _words(text.read(folder, names, sha256)) for name, (names, sha256) in FILES.items()}
        vocabulary = sorted(set(words["train"]))
        if len(vocabulary) > self.n_tokens or UNKNOWN not in vocabulary:
            raise UserError(
                f"{folder}: expected at most {self.n_tokens} different words, {UNKNOWN} among them, "
                f"got {len(vocabulary)}; is it the raw variant?"
            )
        number_of = {word: number for number, word in enumerate(vocabulary)}
        unknown = number_of[UNKNOWN]
        splits = {
            name: text.next_token_split(
                f"{folder}: {name}", np.array([number_of.get(w, unknown) for w in of_split], dtype=np.int64), LENGTH
            )
            for name, of_split in words.items()
        }
        return Task(
            "wikitext2", splits["train"], splits["val"], splits["test"], loss=token_cross_entropy, metric=PERPLEXITY,
            text=text.by_number(vocabulary, " ", UNKNOWN),
        )  # fmt: skip


def _words(content: str) -> list[str]:
    return [word for line in content.splitlines() for word in (*line.split(), END)]
