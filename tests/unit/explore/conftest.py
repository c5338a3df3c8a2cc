"""A finished run of two palettes, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from explore_command import PALETTES, explore


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    out, err = explore(*PALETTES, "--out", str(folder))
    assert out.rstrip().endswith(f"report: {folder / 'report.html'}")
    assert "accuracy" in err
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
