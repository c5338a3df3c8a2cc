"""Text files and tokens: right ones read, wrong ones named; perplexity worked by hand."""

from __future__ import annotations

import gzip
import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from soniq_dse.errors import UserError
from soniq_dse.workloads.datasets import text
from soniq_dse.workloads.datasets.tiny_shakespeare import CHARACTERS, TinyShakespeare
from soniq_dse.workloads.datasets.wikitext2 import Wikitext2
from soniq_dse.workloads.task import PERPLEXITY, token_cross_entropy

GOOD = b"To be, or not to be\n"


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_reads_plain_and_gzip(tmp_path: Path, pack: type) -> None:
    name = "input.txt.gz" if pack is gzip.compress else "input.txt"
    (tmp_path / name).write_bytes(pack(GOOD))
    assert text.read(tmp_path, ("input.txt",), hashlib.sha256(GOOD).hexdigest()) == GOOD.decode()
    with pytest.warns(UserWarning, match="not the official content"):
        text.read(tmp_path, ("input.txt",), "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("input.text", GOOD, "expected a file input.txt .*, got none; nearest valid choice: 'input.text'"),
        ("input.txt.gz", gzip.compress(GOOD, mtime=0)[:-9], "expected a whole file"),
        ("input.txt.gz", GOOD, "expected a whole file"),
        ("input.txt", b"caf\xe9", "expected text in UTF-8, got byte 3"),
        ("input.txt", b"", "expected 1 to"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        text.read(tmp_path, ("input.txt",), "")


@pytest.mark.filterwarnings("ignore:.*not the official content")
def test_line_ends_and_a_byte_order_mark_are_those_of_the_editor(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_bytes(b"\xef\xbb\xbfTo be,\r\n\r\nor not\n")
    assert text.read(tmp_path, ("input.txt",), "") == "To be,\n\nor not\n"


@pytest.mark.filterwarnings("ignore:.*not the official content")
def test_other_texts_are_told_apart(tmp_path: Path) -> None:
    assert len(CHARACTERS) == 65
    (tmp_path / "input.txt").write_text("naïve " * 1000)
    with pytest.raises(UserError, match="expected the 65 characters of Tiny Shakespeare, got 'ï'"):
        TinyShakespeare().load(tmp_path)
    (tmp_path / "input.txt").write_text("short")
    with pytest.raises(UserError, match="expected at least 129 tokens, got"):
        TinyShakespeare().load(tmp_path)
    for part in ("train", "valid", "test"):
        (tmp_path / f"wiki.{part}.tokens").write_text(" a raw text \n" * 100)
    with pytest.raises(UserError, match="<unk> among them, got 4; is it the raw variant"):
        Wikitext2().load(tmp_path)


@pytest.mark.filterwarnings("ignore:.*not the official content")
def test_words_that_training_lacks_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "wiki.train.tokens").write_text(" a <unk> b \n" * 100)
    for part in ("valid", "test"):
        (tmp_path / f"wiki.{part}.tokens").write_text("a c b\n" * 100)
    task = Wikitext2().load(tmp_path)  # sorted: <eos> <unk> a b
    assert task.train.inputs[0, :5].tolist() == [2, 1, 3, 0, 2]
    assert task.test.inputs[0, :5].tolist() == [2, 1, 3, 0, 2]


def test_perplexity_of_even_odds_is_their_number() -> None:
    outputs, targets = np.zeros((3, 5, 7), np.float32), np.ones((3, 5), np.int64)
    assert PERPLEXITY.compute(outputs, targets) == pytest.approx(7)
    outputs[..., 1] = math.log(6)  # now even odds between the target and all else
    assert PERPLEXITY.compute(outputs, targets) == pytest.approx(2)
    assert PERPLEXITY.per_example is not None
    assert PERPLEXITY.finish(float(PERPLEXITY.per_example(outputs, targets).mean())) == pytest.approx(2)
    loss = token_cross_entropy(torch.tensor(outputs), torch.tensor(targets))
    assert float(loss) == pytest.approx(math.log(2))
    assert PERPLEXITY.better(2.0, 7.0)
