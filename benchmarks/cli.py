"""Start-up time of the command line: --help, hw list with 50 descriptors."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._frame import Goal, Result, main
from soniq_dse.hardware.find import list_descriptors

N_DESCRIPTORS = 50


def seconds(arguments: list[str], folder: str, repeats: int) -> tuple[float, float]:
    """Median and median absolute deviation of whole-process wall seconds, after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "soniq_dse", *arguments], cwd=folder, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    median = statistics.median(times[1:])
    return median, statistics.median(abs(t - median) for t in times[1:])


def measure(quick: bool) -> Result:
    """Both commands in a folder that holds 50 descriptors."""
    repeats = 5 if quick else 15
    shipped = list_descriptors()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(N_DESCRIPTORS):
            shutil.copy(shipped[index % len(shipped)], Path(folder) / f"machine{index}.yaml")
        help_s, help_mad = seconds(["--help"], folder, repeats)
        list_s, list_mad = seconds(["hw", "list"], folder, repeats)
    rows = [
        {"command": "soniq-dse --help", "median_s": help_s, "mad_s": help_mad, "runs": repeats},
        {
            "command": f"soniq-dse hw list ({N_DESCRIPTORS} descriptors)",
            "median_s": list_s,
            "mad_s": list_mad,
            "runs": repeats,
        },
    ]
    goals = [
        Goal("CLI1", "soniq-dse --help", "s", help_s, at_most=0.3),
        Goal("CLI2", f"hw list with {N_DESCRIPTORS} descriptors", "s", list_s, at_most=0.5),
    ]
    return Result(goals, rows)


if __name__ == "__main__":
    main("cli", "Command-line start-up", measure)
