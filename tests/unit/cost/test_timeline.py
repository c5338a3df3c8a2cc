"""The timeline says what the simulation found, and the page needs and trusts nothing from outside."""

from __future__ import annotations

import re

import pytest

from soniq_dse.cost.timeline import as_html, as_text, rows_of
from soniq_dse.hardware.load import load_hardware
from soniq_dse.kernels.loops import kept_loop
from soniq_dse.records.cost import HotLoop

SYMBOL = "gemm_u8_s8_s32_4x16x4__avx2_fip"


@pytest.fixture(scope="module")
def loop() -> HotLoop:
    found = kept_loop(SYMBOL)
    assert found is not None
    return found


def test_cycles_of_an_instruction_are_in_order(loop: HotLoop) -> None:
    rows = rows_of(loop, load_hardware("avx2"))
    assert len(rows) == 2 * len(loop.instructions)
    assert rows[0].dispatched == 0
    for row in rows:
        start = row.done if row.issued is None else row.issued
        assert row.dispatched < row.ready <= start <= row.done < row.retired
        assert bool(row.port) == (row.issued is not None)
    assert [row.retired for row in rows] == sorted(row.retired for row in rows)


def test_text_has_a_line_an_instruction_with_its_marks(loop: HotLoop) -> None:
    rows = rows_of(loop, load_hardware("avx2"))
    title, _, *lines = as_text(rows, "a title", len(loop.instructions)).splitlines()
    assert title == "a title"
    assert [line.rstrip().endswith(row.text) for line, row in zip(lines, rows, strict=True)] == [True] * len(rows)
    bar = lines[-1][5:]
    assert bar.index("D") == rows[-1].dispatched
    assert bar.index("R") == rows[-1].retired


def test_the_page_is_whole_and_escaped(loop: HotLoop) -> None:
    hostile = loop.model_copy(
        update={"instructions": tuple(i.model_copy(update={"text": "<script>x</script>"}) for i in loop.instructions)}
    )
    page = as_html(rows_of(hostile, load_hardware("avx2")), "<b>", len(loop.instructions))
    assert "<script" not in page
    assert "&lt;script&gt;x" in page
    assert "<title>&lt;b&gt;</title>" in page
    assert not re.search(r"(src|href)=|url\(|https?:", page)
