"""docs/own-loop.md, followed literally."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any


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


def test_the_budget_in_microseconds_is_kept(repository: Path) -> None:
    """The snippet in place of the example's session, which is hardened at once: untrained levels must keep it too."""
    text = (repository / "docs" / "own-loop.md").read_text()
    (code,) = re.findall(r"```python\n# own_loop.py\n(.*?)```", text, re.DOTALL)
    (snippet,) = re.findall(r"  ```python\n(  from soniq_dse.cost.*?)  ```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.partition("session =")[0] + textwrap.dedent(snippet), names)
    assignment = names["session"].finetune()
    spent = names["assignment_cost"](names["machine"], names["graph"], assignment, "latency_us")
    assert 0 < spent <= names["costs"].budget == 1.5
