"""Loops on the simulated core, as HTML."""

from __future__ import annotations

import re
from itertools import pairwise

from soniq_dse.cost.timeline import timeline
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.cost import Timeline, TimelineRow
from soniq_dse.report.timelines import timelines_html

SYMBOL = "gemm_u8_s8_s32_4x16x4__avx2_fip"


def test_bars_follow_one_another_and_stay_in_the_lane() -> None:
    found = timeline(SYMBOL, load_hardware("avx2"))
    assert found is not None
    lanes = re.findall(r'<div class="lane">(.*?)</div>', str(timelines_html([found])))
    assert len(lanes) == len(found.rows) == found.n_per_pass, "one pass of a loop this long"
    for lane in lanes:
        bars = [(float(left), float(width)) for left, width in re.findall(r"left:([\d.]+)%;width:([\d.]+)%", lane)]
        assert bars
        for (left, width), (following, _) in pairwise(bars):
            assert abs(left + width - following) < 0.02, "rounded to a hundredth each"
        assert bars[-1][0] + bars[-1][1] <= 100.01


def test_text_of_an_instruction_is_escaped() -> None:
    row = TimelineRow(text="<b>", dispatched=0, ready=1, issued=1, done=2, retired=3, port="p0", waited="")
    page = str(timelines_html([Timeline(symbol="<i>", n_per_pass=1, rows=(row,))]))
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<summary>&lt;i&gt;" in page


def test_a_kernel_without_a_kept_loop_has_none() -> None:
    assert timeline("gemm_u8_s8_s32_1x1x8__scalar_direct", load_hardware("avx2")) is None
    assert timelines_html([]) == ""
