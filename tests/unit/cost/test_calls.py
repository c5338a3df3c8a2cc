"""Whole calls: what is left out of a path, what the predictor gets wrong, and sums against a call followed whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from soniq_dse.cost.branches import mispredicted
from soniq_dse.cost.calls import CallCosts, shortened
from soniq_dse.hardware.load import load_hardware
from soniq_dse.kernels.code import kept_code
from soniq_dse.kernels.loops import kept_loop, kept_loops_folder

SYMBOLS = ("gemm_u8_z4_s32_6x16x16__avx2_maddubs", "gemm_z1_z1_s32_1x128x8__avx2_shuffle")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONIQ_DSE_CACHE", str(tmp_path))


def costs(symbol: str) -> CallCosts:
    code = kept_code(symbol)
    assert code is not None
    return CallCosts(load_hardware("avx2"), code)


def test_of_a_loop_that_repeats_itself_some_passes_remain() -> None:
    """Instruction 0, then 1-2-3 a hundred times, then 4: with 6 passes kept behind the first, 93 are skipped."""
    path = [0, *[1, 2, 3] * 100, 4]
    kept, (skip,) = shortened(path, 6)
    assert [path[i] for i in kept] == [0, *[1, 2, 3] * 7, 4]
    assert (skip.passes, skip.measured) == (93, 2)
    assert skip.at == 3 * 7  # the last instruction of the last pass that is kept
    assert skip.at - skip.since == 2 * 3


def test_nothing_is_left_out_of_short_loops_or_of_loops_with_a_jump_inside() -> None:
    short = [0, *[1, 2, 3] * 7, 4]
    assert shortened(short, 6) == (list(range(len(short))), [])
    jumping = [0, *[1, 3, 4] * 50, 5]
    assert shortened(jumping, 6)[1] == []


@pytest.mark.parametrize(("passes", "expected"), [(8, 0), (40, 0), (60, 1)])
def test_the_exit_of_a_loop_is_foreseen_within_the_history(passes: int, expected: int) -> None:
    """Branch 2 goes back to 1 all but the last time. Once a loop is longer than the history of 50, its end looks as
    each pass before it; what came behind that many passes last time is one more, and at the end that is wrong."""
    path = [0, *[1, 2] * passes, 3]
    wrong = mispredicted(path, {0: False, 1: False, 2: True, 3: False}, 50)
    assert len(wrong) == expected
    assert all(position == 2 * passes for position in wrong)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_many_at_once_cost_what_each_does(symbol: str) -> None:
    calls, rng = costs(symbol), np.random.default_rng(0)
    sizes = [rng.integers(1, most, 200) for most in (40, 200, 10, 3000)]
    one_by_one = [calls.cycles(*(int(size) for size in call)) for call in zip(*sizes, strict=True)]
    assert calls.batch(*sizes).tolist() == pytest.approx(one_by_one, rel=1e-12)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_call_is_the_sum_of_its_tiles(symbol: str) -> None:
    """Against the whole call followed instruction by instruction; depth and height lie between the simulated ones."""
    calls = costs(symbol)
    height, width, _ = calls.code.spec.tile
    for rows, panels, taps, groups in ((2 * height, 3, 1, 12), (2 * height, 2, 3, 8), (max(1, height - 1), 4, 1, 40)):
        k = groups * calls.code.spec.k_group
        trace = calls.code.call(rows, panels * width, taps, k).trace
        (whole,) = calls._retired(trace, [len(trace.path) - 1])
        assert calls.cycles(rows, panels * width, taps, k) == pytest.approx(whole, rel=0.12)


def test_more_work_is_not_cheaper() -> None:
    calls = costs(SYMBOLS[0])
    for k in range(2, 400, 20):
        assert calls.cycles(12, 64, 1, k) <= calls.cycles(12, 64, 1, k + 20)
    for rows in range(1, 30):
        assert calls.cycles(rows, 64, 1, 128) <= calls.cycles(rows + 1, 64, 1, 128) * 1.02


def test_what_was_simulated_is_remembered(tmp_path: Path) -> None:
    first = costs(SYMBOLS[1]).cycles(1, 64, 1, 256)
    (file,) = tmp_path.rglob("calls-*.json")
    file.write_text(file.read_text().replace('"fixed": ', '"fixed": 1000000'))
    assert costs(SYMBOLS[1]).cycles(1, 64, 1, 256) > first
    file.write_text("{")
    assert costs(SYMBOLS[1]).cycles(1, 64, 1, 256) == first


def test_every_kept_loop_has_its_code_beside_it() -> None:
    symbols = [path.stem for path in kept_loops_folder().glob("*.json")]
    assert symbols
    for symbol in symbols:
        loop, code = kept_loop(symbol), kept_code(symbol)
        assert loop is not None
        assert code is not None, symbol
        assert code.source_sha256 == loop.source_sha256, symbol
