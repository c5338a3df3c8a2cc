"""``python -m benchmarks``: list the benchmarks and what each last gave; ``--run`` runs all, ``--quick`` shortly."""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

from benchmarks._frame import kept_documents


def benchmark_files() -> list[Path]:
    """Every benchmark, by file name."""
    return sorted(path for path in Path(__file__).parent.glob("[!_]*.py"))


def describe(path: Path) -> str:
    """A line on one benchmark: its first docstring line and how many of its goals each kept result meets."""
    summary = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n", maxsplit=1)[0]
    kept = kept_documents(path.stem)
    said = [
        f"{sum(goal['met'] for goal in one['goals'])} of {len(one['goals'])} goals met on {one['host']['processor']}, "
        f"{one['date']}"
        for one in kept
    ]
    return f"{path.stem:14} {summary}  [{'; '.join(said) or 'never run in full'}]"


def succeeds(path: Path, flags: list[str]) -> bool:
    """Whether one benchmark ran to its end, in a process of its own."""
    return subprocess.run([sys.executable, "-m", f"benchmarks.{path.stem}", *flags], check=False).returncode == 0


def main() -> None:
    """List, or run each benchmark in a process of its own; the exit code counts those that failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--run", action="store_true", help="run every benchmark")
    parser.add_argument("--quick", action="store_true", help="with --run: each within a minute")
    arguments = parser.parse_args()
    if not arguments.run:
        sys.stdout.write("\n".join(map(describe, benchmark_files())) + "\n")
        return
    failed = [path.stem for path in benchmark_files() if not succeeds(path, ["--quick"] if arguments.quick else [])]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


main()
