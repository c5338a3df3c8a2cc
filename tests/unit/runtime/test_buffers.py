"""Buffers that live at the same time never share memory; those that do not, may."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.runtime.buffers import Life, place

LIVES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.builds(
        lambda size, first, length: Life(size, first, first + length),
        st.integers(0, 5000), st.integers(0, 9), st.integers(0, 4),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=100, deadline=None, derandomize=True)
@given(LIVES)
def test_nothing_overlaps_in_time_and_space(lives: dict[str, Life]) -> None:
    offsets, total = place(lives)
    for name, at in offsets.items():
        assert at % 64 == 0
        assert at + lives[name].size_bytes <= total
    for one, other in combinations(lives, 2):
        if lives[one].first <= lives[other].last and lives[other].first <= lives[one].last:
            low, high = sorted((one, other), key=offsets.__getitem__)
            assert offsets[low] + lives[low].size_bytes <= offsets[high]


def test_memory_is_used_again() -> None:
    offsets, total = place({"a": Life(1000, 0, 1), "b": Life(1000, 1, 2), "c": Life(1000, 2, 3)})
    assert offsets["a"] == offsets["c"]
    assert total < 3000
