"""Tables at the width of a terminal: what does not fit is broken, never cut off."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from soniq_dse.cli._common import table

COLUMNS = {"design": "left", "test %": "right", "predicted us": "right", "source": "left"}
ROW = ["w1a1+w4a4@2-x0.125", "98.52", "1527.0", "https://doi.org/10.1109/ISSCC.2014.6757323"]


@pytest.mark.parametrize("width", [48, 60, 200])
def test_nothing_is_lost_and_no_number_is_broken(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(table("", COLUMNS, [ROW, ["", "7", "8", ""]]))
    lines = out.getvalue().splitlines()
    assert "\u2026" not in out.getvalue()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert any("98.52" in line and "1527.0" in line for line in lines)
    letters = "".join(sorted("".join(lines)))
    assert all(letters.count(letter) >= "".join(ROW).count(letter) for letter in "".join(ROW))
