"""What a network of text says: translations beside their references, or how it goes on behind the start of a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from soniq_dse.errors import UserError
from soniq_dse.records.front import TextSample
from soniq_dse.runtime.decoder import Decoder
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.workloads.task import Split, Task, Text

TRANSLATIONS, CONTINUATIONS = 6, 3
"""Test examples shown, evenly spread."""
MOST_TOKENS = 48
"""Of a continuation."""
PAD = 0
Array = npt.NDArray[Any]


def translations(task: Task, predictions: Array) -> tuple[TextSample, ...]:
    """Test examples with what was generated for them; empty where the task is no translation.

    Args:
        task: of which the test split is ``[n, source + target]`` tokens.
        predictions: generated tokens ``[n, target]``.
    """
    text = task.text
    if text is None or text.begin is None:
        return ()
    length = predictions.shape[1]
    return tuple(
        TextSample(
            source=_sentence(text, task.test.inputs[i, :-length]),
            reference=_sentence(text, task.test.targets[i, -length:]),
            output=_sentence(text, predictions[i]),
        )
        for i in _spread(len(task.test), TRANSLATIONS)
    )


def continuations(task: Task, packed: PackedNetwork, threads: int) -> tuple[TextSample, ...]:
    """The likeliest tokens of the packed network behind the first halves of test examples; empty where the task is no
    text, or a network cannot be asked token by token.

    Raises:
        MissingCapabilityError: there is no compiler.
    """
    text = task.text
    if text is None or text.begin is not None:
        return ()
    try:
        decoder = Decoder(packed, threads=threads)
    except UserError as error:
        if error.exit_code != UserError.exit_code:
            raise
        return ()
    return tuple(_continued(decoder, text, task.test, i) for i in _spread(len(task.test), CONTINUATIONS))


def _continued(decoder: Decoder, text: Text, data: Split, index: int) -> TextSample:
    tokens = data.inputs[index]
    half = len(tokens) // 2
    count = min(MOST_TOKENS, len(tokens) - half)
    decoder.begin()
    found = decoder.generate(tokens[None, :half], count)
    return TextSample(
        source=text.decode(tokens[:half].tolist()),
        reference=text.decode(tokens[half : half + count].tolist()),
        output=text.decode(found[0].tolist()),
    )


def _sentence(text: Text, tokens: Array) -> str:
    """Up to the end mark, without marks and padding."""
    words = tokens.tolist()
    if text.end in words:
        words = words[: words.index(text.end)]
    return text.decode([word for word in words if word not in (PAD, text.begin)]).strip()


def _spread(n: int, count: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, n - 1, count)})
