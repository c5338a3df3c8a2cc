"""Multi30k, task 1: captions of 31,014 pictures, to be translated from English into German.

Source: D. Elliott et al., "Multi30K: Multilingual English-German Image Descriptions", 2016 (raw text of task 1, test
set of 2016). Subwords: byte-level BPE, learned here from the training split of both languages.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soniq_dse.errors import UserError
from soniq_dse.workloads import datasets
from soniq_dse.workloads.bleu import BEGIN, END, PAD, bleu_metric
from soniq_dse.workloads.datasets import text
from soniq_dse.workloads.task import Split, Task, Text, padded_token_cross_entropy

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SOURCE, TARGET = "en", "de"
LENGTH = 52
"""Subwords of a sentence, its end included."""
TOKENIZER_SHA256 = "029d8b4dad7a98b917ca8fe1ac12542691848fe45f129670d1439960d45615c1"
"""Of the JSON of the subwords that the official training split gives."""
FILES = {
    "train": (
        ("train",),
        "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
        "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    ),
    "val": (
        ("val",),
        "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
        "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    ),
    "test": (
        ("test_2016_flickr", "test2016"),
        "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
        "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    ),
}
"""Split -> (names of its files before the language, SHA-256 of the English and of the German text)."""


class Multi30k(datasets.Base):
    """Inputs ``[n, 104]``: the subwords of the English sentence and its end, padded to 52, then a begin mark and the
    German subwords, padded; targets: each one's successor, of which the last 52 count. The metric is BLEU of greedy
    translation. Training pairs with a longer sentence are left out."""

    folder_name = "multi30k"
    input_shape = (2 * LENGTH,)
    n_classes = None
    n_tokens = 4000
    nonnegative = True

    def read(self, folder: Path) -> Task:
        """From ``train.en``, ``train.de`` and their siblings, with or without ``.gz``."""
        pairs = {name: _pairs(folder, *of_split) for name, of_split in FILES.items()}
        tokenizer = _tokenizer(pairs["train"], self.n_tokens, official=_is_official(folder, pairs["train"]))
        splits = {name: _split(folder, name, of_split, tokenizer) for name, of_split in pairs.items()}

        def decode(tokens: npt.NDArray[Any]) -> list[str]:
            return [sentence.strip() for sentence in tokenizer.decode_batch(tokens.tolist())]

        return Task(
            "multi30k",
            splits["train"],
            splits["val"],
            splits["test"],
            loss=padded_token_cross_entropy,
            metric=bleu_metric(decode, LENGTH),
            text=Text(lambda words: [*tokenizer.encode(words).ids, END], tokenizer.decode, BEGIN, END),
        )


def _lines(folder: Path, names: tuple[str, ...], language: str, sha256: str) -> list[str]:
    content = text.read(folder, [f"{name}.{language}" for name in names], sha256)
    lines = content.removesuffix("\n").split("\n")  # not splitlines: it breaks at rarer marks too, on one side alone
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise UserError(f"{folder}: {names[0]}.{language}: expected a sentence in line {number}, got an empty line")
    return lines


def _pairs(folder: Path, names: tuple[str, ...], *sha256: str) -> tuple[list[str], list[str]]:
    source, target = (
        _lines(folder, names, language, of) for language, of in zip((SOURCE, TARGET), sha256, strict=True)
    )
    if len(source) != len(target):
        raise UserError(
            f"{folder}: expected as many lines in {names[0]}.{TARGET} as in {names[0]}.{SOURCE} ({len(source)}), "
            f"got {len(target)}"
        )
    return source, target


def _is_official(folder: Path, train: tuple[list[str], list[str]]) -> bool:
    joined = ("\n".join(lines) + "\n" for lines in train)
    return tuple(hashlib.sha256(content.encode()).hexdigest() for content in joined) == FILES["train"][1:]


def _tokenizer(train: tuple[list[str], list[str]], n_tokens: int, *, official: bool) -> Tokenizer:
    """Subwords of ``train``; bytes are among them, so that no character is unknown."""
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise UserError("data multi30k: expected the package tokenizers: pip install 'soniq-dse[text]'") from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*train[0], *train[1]], trainer)
    if official and hashlib.sha256(tokenizer.to_str().encode()).hexdigest() != TOKENIZER_SHA256:
        warnings.warn("data multi30k: this version of tokenizers gives other subwords: BLEU may differ", stacklevel=2)
    return tokenizer


def _split(folder: Path, name: str, pairs: tuple[list[str], list[str]], tokenizer: Tokenizer) -> Split:
    source, target = ([one.ids for one in tokenizer.encode_batch(lines)] for lines in pairs)
    longest = [max(len(one), len(other)) for one, other in zip(source, target, strict=True)]
    if name != "train" and max(longest) >= LENGTH:
        line = next(number for number, length in enumerate(longest, start=1) if length >= LENGTH)
        raise UserError(
            f"{folder}: {name}: expected sentences of at most {LENGTH - 1} subwords, got {max(longest)}; "
            f"the first longer one is in line {line}"
        )
    kept = [index for index, length in enumerate(longest) if length < LENGTH]
    if not kept:
        raise UserError(f"{folder}: {name}: expected sentences of at most {LENGTH - 1} subwords, got none")
    joined = np.full((len(kept), 2 * LENGTH + 1), PAD, dtype=np.int64)
    for row, index in enumerate(kept):
        joined[row, : len(source[index]) + 1] = [*source[index], END]
        joined[row, LENGTH : LENGTH + len(target[index]) + 2] = [BEGIN, *target[index], END]
    return Split(joined[:, :-1], joined[:, 1:])
