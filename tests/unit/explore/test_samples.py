"""What a network of text says, for the report."""

from __future__ import annotations

import numpy as np
from network_factory import NetworkFactory

from soniq_dse.explore._samples import continuations, translations
from soniq_dse.formats.network import evaluate
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.workloads.task import Split, Task, Text

LETTERS = "_<>abcdefgh"
LETTER_TEXT = Text(lambda words: [LETTERS.index(word) for word in words], lambda ids: "".join(LETTERS[i] for i in ids))


def task_of(rows: np.ndarray, text: Text | None) -> Task:
    split = Split(rows[:, :-1], rows[:, 1:])
    return Task("letters", split, split, split, text=text)


def test_translations_end_where_the_end_mark_is() -> None:
    source, target = [3, 4, 2, 0], [1, 5, 6, 2, 0]
    text = Text(LETTER_TEXT.encode, LETTER_TEXT.decode, begin=1, end=2)
    task = task_of(np.array([source + target] * 9), text)
    predictions = np.tile([7, 2, 8, 0], (9, 1))
    found = translations(task, predictions)
    assert len(found) == 6
    assert {(one.source, one.reference, one.output) for one in found} == {("ab", "cd", "e")}
    assert translations(task_of(np.ones((3, 4), int), None), predictions) == ()


def test_a_text_goes_on_as_the_golden_arithmetic_does() -> None:
    net = NetworkFactory((8,), "w4a4", n_tokens=len(LETTERS))
    codes = net.quantize(net.layer_norm(net.embedding("x", 24)), signed=True)
    net.linear(codes, len(LETTERS))
    network, rows = net.network(), np.random.default_rng(0).integers(0, len(LETTERS), (4, 9))
    found = continuations(task_of(rows, LETTER_TEXT), PackedNetwork(network, net.arrays), 1)
    assert [one.source for one in found] == [LETTER_TEXT.decode(rows[i, :4].tolist()) for i in (0, 1, 3)]
    for one in found:
        assert len(one.output) == len(one.reference) == 4
        tokens = LETTER_TEXT.encode(one.source + one.output)
        logits = evaluate(network, net.arrays, np.array([tokens]))
        assert logits[0, 3:-1].argmax(axis=-1).tolist() == tokens[4:]
    assert continuations(task_of(rows, None), PackedNetwork(network, net.arrays), 1) == ()
