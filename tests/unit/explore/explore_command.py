"""``soniq-dse explore`` on a tiny network, as the tests here call it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from soniq_dse.cli import main

HERE = Path(__file__).parent
COMMAND = ["explore", "--hw", "avx512", "--model", "tiny_net:build", "--data", "tiny_net:task", "--epochs", "2,1,1"]
COMMAND += ["--no-measure", "--jobs", "2"]
PALETTES = ["--palettes", "w2a2,w1a1+w4a4@2.0"]
NAMES = ["FP32", "INT8 (w8a8)", "w2a2", "w1a1+w4a4@2"]


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command in a session of its own, to be interrupted."""
    return subprocess.Popen(
        [sys.executable, "-m", "soniq_dse", *COMMAND, *arguments],
        cwd=HERE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def soniq_dse(*arguments: str, code: int = 0) -> tuple[str, str]:
    """The program called in this process: (standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["soniq-dse", *arguments])
        patch.chdir(HERE)  # where tiny_net is found
        patch.syspath_prepend(str(HERE))
        with pytest.raises(SystemExit) as left:
            main()
    assert left.value.code == code, err.getvalue()
    assert "Traceback" not in err.getvalue()
    return out.getvalue(), err.getvalue()


def explore(*arguments: str, code: int = 0) -> tuple[str, str]:
    return soniq_dse(*COMMAND, *arguments, code=code)


def front_of(folder: Path) -> dict[str, Any]:
    """front.json without what is measured."""
    front = json.loads((folder / "front.json").read_text())
    for point in front["points"]:
        point.pop("latency_measured_us")
    return {key: value for key, value in front.items() if key != "host"}


def designs_in(folder: Path) -> list[Path]:
    return sorted((folder / "store" / "records" / "design").glob("*.json"))


def wait_for_design(folder: Path, process: subprocess.Popen[str]) -> None:
    while not designs_in(folder):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def nothing_is_left(leader: int) -> bool:
    """Whether the session that ``leader`` began is over within some seconds of its end."""
    for _ in range(200):
        if not any(_session(stat) == leader for stat in Path("/proc").glob("[0-9]*/stat")):
            return True
        time.sleep(0.05)
    return False


def _session(stat: Path) -> int | None:
    """The session of a living process."""
    try:
        fields = stat.read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[3])
