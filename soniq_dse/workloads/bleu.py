"""Greedy translation, and BLEU of what it gives.

Source: K. Papineni et al., ACL 2002; M. Post, "A Call for Clarity in Reporting BLEU Scores", 2018 (sacrebleu).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from soniq_dse.errors import UserError
from soniq_dse.workloads.task import Metric

Array = npt.NDArray[Any]
PAD, BEGIN, END = 0, 1, 2
BATCH = 128
"""Sentences that are translated together, of about the same length."""


@runtime_checkable
class TokenByToken(Protocol):
    """A network that keeps what it knows of a sequence, so that a step costs one token and not all."""

    def generate(self, source: Array, begin: int, end: int, padding: int, length: int) -> Array:
        """The likeliest tokens behind ``source`` ``[n, tokens]`` and ``begin``, ``[n, length]``, with ``padding``
        behind ``end``."""


def greedy(network: Callable[[Array], Array], inputs: Array, length: int) -> Array:
    """The likeliest next token, again and again: ``[n, length]``, padded behind the end.

    ``network`` takes ``[n, source + target]`` tokens, of any target length up to ``length``, to logits
    ``[n, target, tokens]``, or is ``TokenByToken``. Of ``inputs`` the source is read, the last ``length`` tokens are
    not.
    """
    source = inputs[:, :-length]
    found = np.full((len(inputs), length), PAD, dtype=np.int64)
    order = np.argsort((source != PAD).sum(axis=1), kind="stable")
    for start in range(0, len(order), BATCH):
        open_rows = order[start : start + BATCH]
        if isinstance(network, TokenByToken):
            found[open_rows] = network.generate(source[open_rows], BEGIN, END, PAD, length)
            continue
        for step in range(length):
            begin = np.full((len(open_rows), 1), BEGIN, dtype=np.int64)
            outputs = network(np.concatenate([source[open_rows], begin, found[open_rows, :step]], axis=1))
            found[open_rows, step] = outputs[:, -1].argmax(axis=-1)
            open_rows = open_rows[found[open_rows, step] != END]
            if not len(open_rows):
                break
    return found


def bleu_metric(decode: Callable[[Array], list[str]], length: int) -> Metric:
    """BLEU of greedy translations of at most ``length`` tokens, one reference each; ``decode`` makes both text.

    Raises:
        UserError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise UserError("metric BLEU: expected the package sacrebleu: pip install 'soniq-dse[text]'") from error

    def compute(tokens: Array, targets: Array) -> float:
        references = [decode(targets[:, -length:])]
        return float(BLEU().corpus_score(decode(tokens), references).score)

    scorer = BLEU()
    scorer.corpus_score(["a"], [["a"]])  # the signature says how many references there are
    signature = str(scorer.get_signature())
    return Metric("BLEU", "", "up", compute, generate=lambda net, x: greedy(net, x, length), signature=signature)
