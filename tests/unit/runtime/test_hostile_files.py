"""Files that anyone may have written: a clear refusal or a run, never a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile_files import mutations, outcome

FEW, MANY = 500, 5_000


def test_changed_files_are_refused_in_words_or_run(tmp_path: Path) -> None:
    found = Counter(outcome(tmp_path / "net.soniq", content) for content in mutations(FEW))
    assert found["refused"] > FEW // 2
    assert found["ran"] > FEW // 50, "few changes get past the checks: the executor is hardly tried"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))  # four tests, so that two workers share them
def test_no_access_out_of_bounds(seed: int, need_program: Callable[[str, str], str]) -> None:
    compiler = need_program("g++", "g++")
    library = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip("g++ has no libasan.so")
    found = subprocess.run(
        [sys.executable, Path(__file__).with_name("hostile_files.py"), str(MANY), str(seed)],
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "LD_PRELOAD": library},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert f"{MANY} files" in found.stdout
