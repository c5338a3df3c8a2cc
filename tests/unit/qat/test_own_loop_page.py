"""docs/own-loop.md, followed literally."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_the_example_runs(repository: Path, tmp_path: Path) -> None:
    text = (repository / "docs" / "own-loop.md").read_text()
    (code,) = re.findall(r"```python\n# own_loop.py\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 35
    (tmp_path / "own_loop.py").write_text(code)
    done = subprocess.run([sys.executable, "own_loop.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    bits, accuracy = (float(line.split()[0]) for line in done.stdout.splitlines())
    assert 2.4 < bits <= 2.5
    assert accuracy > 90
