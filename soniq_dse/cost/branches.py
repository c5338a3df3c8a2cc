"""Which branches of a path a predictor gets wrong, once it has met the path before.

It knows the outcome of a branch where it has met that branch behind the same last ``history`` branches, or else behind
fewer, by a two-bit counter each, as predictors with tagged histories of growing length do (Seznec and Michaud, A case
for (partially) TAgged GEometric history length branch prediction, JILP 2006). Tables are unbounded, nothing collides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_PRIME, _BASE = (1 << 61) - 1, 1_000_003
_SHORTENED = (1, 4, 16)
"""The histories as parts of the longest, and none at all."""


def mispredicted(path: Sequence[int], is_branch: Mapping[int, bool], history: int) -> frozenset[int]:
    """Positions of ``path`` (of instructions) at which a branch is guessed wrong, run again and again."""
    lengths = [*(max(1, history // part) for part in _SHORTENED), 0]
    drops = [pow(_BASE, length, _PRIME) for length in lengths]
    tables: list[dict[tuple[int, int], int]] = [{} for _ in lengths]
    hashes, past, wrong = [0] * len(lengths), [0] * (history + 1), set[int]()
    n, last = 0, len(path) - 1
    n_branches = sum(is_branch[instruction] for instruction in path)
    n_before = 1 + -(-2 * history // max(1, n_branches))  # until all histories are full, and then once more
    for run in range(n_before + 1):
        for position, instruction in enumerate(path):
            if not is_branch[instruction]:
                continue
            following = path[position + 1] if position < last else path[0]
            taken = following != instruction + 1
            keys = [(instruction, value) for value in hashes]
            seen = next((table[key] for table, key in zip(tables, keys, strict=True) if key in table), None)
            if run == n_before and (seen is None or (seen >= 0) != taken):
                wrong.add(position)
            event = 2 * instruction + taken + 1
            for i, (table, key) in enumerate(zip(tables, keys, strict=True)):
                counter = table.get(key, -1 if taken else 0) + (1 if taken else -1)
                table[key] = max(-2, min(1, counter))
                old = past[(n - lengths[i]) % (history + 1)] if lengths[i] else event
                hashes[i] = (hashes[i] * _BASE + event - old * drops[i]) % _PRIME
            past[n % (history + 1)] = event
            n += 1
    return frozenset(wrong)
