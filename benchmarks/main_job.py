"""Where the time of `make explore` goes: tracing, training, compiling kernels, measuring, report."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._frame import Goal, Result, main

LIMIT_S = 360.0
QUICK_ARGUMENTS = ["--model", "tiny_cnn", "--palettes", "w1a1,w2a2,w1a1+w4a4@2", "--epochs", "1,1,1"]


def timed(arguments: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """(wall seconds, standard error) of one `soniq-dse` process."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "soniq_dse", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return time.perf_counter() - start, done.stderr


def measure(quick: bool) -> Result:
    """The main job in stages on one run folder: what one process finished the next does not repeat."""
    given = QUICK_ARGUMENTS if quick else []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SONIQ_DSE_CACHE": str(Path(folder) / "cache")}
        out = ["explore", *given, "--out", str(Path(folder) / "run")]
        plan_s, _ = timed([*out, "--dry-run"], environment)
        train_s, _ = timed([*out, "--no-measure"], environment)
        first_s, _ = timed(out, environment)
        again_s, _ = timed([*out], environment)
    rows = [
        {"stage": "start, trace, cost, palettes (--dry-run)", "seconds": plan_s},
        {"stage": "training every design and the FP32 networks", "seconds": train_s - again_s},
        {"stage": "compiling kernels, checking against the golden arithmetic, timing", "seconds": first_s - again_s},
        {"stage": "the same command again, nothing left to do", "seconds": again_s},
    ]
    total = train_s + first_s - again_s
    goals = [
        Goal("M1", "main job with an empty cache, installing apart", "s", None if quick else total, at_most=LIMIT_S)
    ]
    return Result(goals, rows, ("A quick run trains a tiny network on three palettes.",) if quick else ())


if __name__ == "__main__":
    main("main_job", "Where the time of the main job goes", measure)
