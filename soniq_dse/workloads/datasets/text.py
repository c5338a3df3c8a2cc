"""Text files, plain or gzip, and their tokens as examples of equal length."""

from __future__ import annotations

import gzip
import hashlib
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from soniq_dse.errors import UserError, nearest
from soniq_dse.workloads.task import Split, Text

LONGEST_BYTES = 2**28
"""Of a file once unpacked."""


def read(folder: Path, names: Sequence[str], sha256: str) -> str:
    """The first of ``names`` that ``folder`` holds, plain or with ``.gz`` behind; other content than ``sha256`` warns.

    Lines end in ``\\n`` whatever they end in on disk; a byte order mark is left out.

    Raises:
        UserError: none is there, or it is cut short, too long or no UTF-8.
    """
    paths = [folder / f"{name}{end}" for name in names for end in ("", ".gz")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        present = [p.name for p in folder.iterdir() if p.is_file()]
        got = nearest(names[0], present) if present else "; the folder holds no file"
        raise UserError(f"{folder}: expected a file {' or '.join(names)} (or with .gz), got none{got}")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(LONGEST_BYTES + 1)
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: expected a whole file, got one that cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8, got byte {error.start} of another kind") from error
    if not 0 < len(content) <= LONGEST_BYTES:
        raise UserError(f"{path}: expected 1 to {LONGEST_BYTES} bytes of text, got {len(content) and 'more'}")
    if hashlib.sha256(content).hexdigest() != sha256:
        warnings.warn(f"{path}: not the official content; taken as it is", stacklevel=3)
    return text


def by_number(words: Sequence[str], between: str, unknown: str | None = None) -> Text:
    """Text of ``words``, numbered in their order, with ``between`` them; others are ``unknown``."""
    number_of = {word: number for number, word in enumerate(words)}

    def encode(content: str) -> list[int]:
        parts = content.split() if between else list(content)
        foreign = next((part for part in parts if part not in number_of), None)
        if foreign is not None and unknown is None:
            raise UserError(f"text: expected characters of {''.join(words)!r}, got {foreign!r}")
        return [number_of.get(part, number_of.get(unknown or "", 0)) for part in parts]

    return Text(encode, lambda tokens: between.join(words[token] for token in tokens))


def next_token_split(where: str, tokens: npt.NDArray[np.int64], length: int) -> Split:
    """Consecutive examples of ``length`` tokens, each with the tokens that follow them as targets; a rest is left out.

    Raises:
        UserError: there are too few tokens for one.
    """
    count = (len(tokens) - 1) // length
    if count < 1:
        raise UserError(f"{where}: expected at least {length + 1} tokens, got {len(tokens)}")
    shape = (count, length)
    return Split(tokens[: count * length].reshape(shape), tokens[1 : count * length + 1].reshape(shape))
