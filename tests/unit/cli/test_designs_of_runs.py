"""Which packed file is meant: of a run, and of a front over machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from network_factory import NetworkFactory
from report_factory import toy_report

from soniq_dse.cli._designs import find_in_run
from soniq_dse.errors import UserError
from soniq_dse.report.build import build_report
from soniq_dse.report.overlay import joint
from soniq_dse.runtime.pack import PackedNetwork

FILES = {
    "fast": {"w2a2-soniq-s0": "w2a2", "w1a1+w4a4-soniq-s0": "w1a1+w4a4"},
    "slow": {"w2a2-soniq-s0": "w2a2", "w1a1+w4a4-soniq-s0": "w4a4", "w4a4-soniq-s0": "w4a4", "w4a4-uniform-s0": "w4a4"},
}


def save(palette: str, path: Path) -> None:
    net = NetworkFactory((1, 4, 4), palette)
    net.linear(net.quantize(net.flatten("x"), signed=True), 4)
    PackedNetwork(net.network(), net.arrays).save(path)


@pytest.fixture
def front(tmp_path: Path) -> Path:
    """The page over two machines, beside their runs."""
    for run, designs in FILES.items():
        (tmp_path / run / "designs").mkdir(parents=True)
        for name, palette in designs.items():
            save(palette, tmp_path / run / "designs" / f"{name}.safetensors")
    page = tmp_path / "joint"
    build_report(joint({"avx512": toy_report(4), "avx2": toy_report(4)}, ["../fast", "../slow"]), page)
    return page


def test_what_the_machines_share_needs_no_machine(front: Path) -> None:
    assert find_in_run(front, "w2a2") == front / "../fast/designs/w2a2-soniq-s0.safetensors"
    assert find_in_run(front, "avx2/w1a1+w4a4") == front / "../slow/designs/w1a1+w4a4-soniq-s0.safetensors"
    assert find_in_run(front.parent / "slow", "w4a4-uniform-s0").name == "w4a4-uniform-s0.safetensors"


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ("w1a1+w4a4", r"trained 'w1a1\+w4a4' differently: avx512/w1a1\+w4a4, avx2/w1a1\+w4a4"),
        ("avx2/w4a4", "has several: w4a4-soniq-s0, w4a4-uniform-s0"),
        ("avx/w2a2", "machine of .*joint: expected a known name, got 'avx'; nearest valid choice: 'avx2'"),
        ("avx512/w2a3", "got 'avx512/w2a3'; nearest valid choice: 'w2a2'"),
    ],
)
def test_what_is_not_clear_is_said(front: Path, design: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_in_run(front, design)


def test_a_run_that_is_gone_is_named(front: Path) -> None:
    (front.parent / "fast").rename(front.parent / "moved")
    with pytest.raises(UserError, match=r"joint: expected the run behind it in .*fast, got no such folder"):
        find_in_run(front, "w2a2")
