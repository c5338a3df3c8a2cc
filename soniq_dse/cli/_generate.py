"""``soniq-dse run --generate``: a packed network continues a text, token by token, and says how fast."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError

if TYPE_CHECKING:
    from soniq_dse.runtime.decoder import Decoder
    from soniq_dse.runtime.pack import PackedNetwork
    from soniq_dse.workloads.task import Text

PADDING = 0


@dataclass(frozen=True)
class Generated:
    """``prompt`` and what was generated behind it, the seconds of reading the prompt (behind which the first token is
    known) and of every further token, the tokens before the last that was read, and whether all logits were those of
    one run of the whole sequence."""

    prompt: list[int]
    tokens: list[int]
    prompt_s: float
    step_s: list[float]
    position: int
    exact: bool

    def as_json(self, text: Text | None) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "prompt": self.prompt,
            "tokens": self.tokens,
            "text": None if text is None else text.decode(self.tokens),
            "prompt_us": 1e6 * self.prompt_s,
            "prompt_tokens_per_s": len(self.prompt) / self.prompt_s,
            "token_us": 1e6 * float(np.median(self.step_s)) if self.step_s else None,
            "tokens_per_s": 1 / float(np.median(self.step_s)) if self.step_s else None,
            "exact": self.exact,
        }

    def shown(self, text: Text | None) -> list[str]:
        """As lines to read."""
        words = str(self.tokens) if text is None else text.decode(self.tokens)
        count = len(self.prompt)
        lines = [
            words,
            f"prompt: {count} token{'s' * (count > 1)} in {1e6 * self.prompt_s:.0f} us, "
            f"{count / self.prompt_s:.0f} tokens a second",
        ]
        if self.step_s:
            median = float(np.median(self.step_s))
            lines.append(
                f"decoding: {1e6 * median:.0f} us a token (median of {len(self.step_s)}), {1 / median:.0f} a second"
            )
        equal = "equal" if self.exact else "DIFFER from"
        return [*lines, f"all logits {equal} those of a run of the whole sequence{', bit for bit' * self.exact}"]


def generate(packed: PackedNetwork, prompt: str, count: int, text: Text | None, threads: int) -> Generated:
    """``count`` tokens behind ``prompt``: text, or token numbers with commas between; fewer where a translation ends.

    Raises:
        UserError: the prompt is no text of ``text``, too long, or the network gives no row for each token.
    """
    from soniq_dse.runtime.decoder import Decoder

    decoder, tokens = Decoder(packed, threads=threads), _tokens(prompt, text)
    source = None
    if decoder.source_tokens:
        if len(tokens) > decoder.source_tokens:
            raise UserError(f"prompt: expected at most {decoder.source_tokens} tokens, got {len(tokens)}")
        source = np.full((1, decoder.source_tokens), PADDING, np.int64)
        source[0, : len(tokens)] = tokens
    first = tokens if source is None else [1 if text is None or text.begin is None else text.begin]
    if len(first) + count - 1 > decoder.most:
        most = decoder.most + 1 - len(first)
        raise UserError(f"generate: expected at most {most} tokens behind a prompt of {len(first)}, got {count}")
    _run(decoder, source, first, min(count, 2), None)  # warms caches
    end = None if text is None else text.end
    found, logits, seconds = _run(decoder, source, first, count, end)
    whole = _whole(packed, source, [*first, *found])[len(first) - 1 :][: len(logits)]
    position = len(first) + len(found) - 2
    return Generated(tokens, found, seconds[0], seconds[1:], position, bool((whole == logits).all()))


def _run(
    decoder: Decoder, source: NDArray[np.int64] | None, first: list[int], count: int, end: int | None
) -> tuple[list[int], NDArray[np.float32], list[float]]:
    """(tokens, logits ``[n, n_tokens]`` that they are the likeliest of, seconds of each)."""
    found: list[int] = []
    logits, seconds, now = [], [], first
    while len(found) < count:
        start = time.perf_counter()
        if not found:
            decoder.begin(source)
        logits.append(decoder.read(np.array([now]))[0])
        found.append(int(logits[-1].argmax()))
        seconds.append(time.perf_counter() - start)
        now = found[-1:]
        if found[-1] == end:
            break
    return found, np.array(logits), seconds


def _whole(packed: PackedNetwork, source: NDArray[np.int64] | None, tokens: list[int]) -> NDArray[np.float32]:
    """Logits ``[n, n_tokens]`` of one run that reads all tokens at once."""
    behind = [] if source is None else source[0].tolist()
    inputs = np.full((1, *packed.in_shape), PADDING, np.int64)
    joined = [*behind, *tokens][: inputs.shape[1]]
    inputs[0, : len(joined)] = joined
    return np.asarray(packed.run(inputs)[0])


def _tokens(prompt: str, text: Text | None) -> list[int]:
    if text is not None:
        found = text.encode(prompt)
    else:
        try:
            found = [int(part) for part in prompt.split(",")]
        except ValueError as error:
            raise UserError(
                f"prompt: expected token numbers such as 3,1,4 or --data whose text it is, got {prompt!r}"
            ) from error
    if not found:
        raise UserError("prompt: expected at least one token, got none")
    return found
