"""A static buffer plan: tensors whose lives do not overlap share memory, so that the working set stays in cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from soniq_dse.kernels.library import ALIGNMENT_BYTES, GUARD_BYTES, round_up


@dataclass(frozen=True)
class Life:
    """A buffer of ``size_bytes`` that is written at step ``first`` and read for the last time at step ``last``."""

    size_bytes: int
    first: int
    last: int


def place(lives: Mapping[str, Life]) -> tuple[dict[str, int], int]:
    """Offsets of the buffers (64-byte aligned) and the bytes of all of them: first fit, largest buffer first."""
    offsets: dict[str, int] = {}
    total = 0
    for name in sorted(lives, key=lambda key: (-lives[key].size_bytes, key)):
        life, size = lives[name], _room(lives[name])
        busy = sorted((offsets[other], _room(lives[other])) for other in offsets if _overlap(life, lives[other]))
        at = 0
        for start, taken in busy:
            if start - at >= size:
                break
            at = max(at, start + taken)
        offsets[name] = at
        total = max(total, at + size)
    return offsets, total


def _room(life: Life) -> int:
    return round_up(life.size_bytes + GUARD_BYTES, ALIGNMENT_BYTES)


def _overlap(one: Life, other: Life) -> bool:
    return one.first <= other.last and other.first <= one.last
