"""docs/own-model.md, followed literally."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_S = 280


@pytest.fixture
def page(repository: Path, tmp_path: Path) -> tuple[str, Path]:
    """The page, and a folder that holds the files it tells the reader to save."""
    text = (repository / "docs" / "own-model.md").read_text()
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).write_text(code)
    assert {path.name for path in tmp_path.iterdir()} == {"my_net.py", "look.py", "my_task.py"}
    return text, tmp_path


def test_look_prints_what_the_page_shows(page: tuple[str, Path]) -> None:
    text, folder = page
    command = [sys.executable, "look.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    (shown,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown


def test_own_task_loads(page: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from soniq_dse.workloads import load_task

    monkeypatch.chdir(page[1])
    task = load_task("my_task:task")
    perfect = -abs(task.test.targets[:, None] - range(10))
    assert (task.metric.name, task.metric.compute(perfect, task.test.targets)) == ("top-3 accuracy", 100)
    sys.modules.pop("my_task")
    sys.path.remove(str(page[1]))


@pytest.mark.slow
def test_explore_takes_the_example(page: tuple[str, Path]) -> None:
    text, folder = page
    short, whole, own_task = re.findall(r"```console\nsoniq-dse (explore .*?)\n```", text)
    for command in (short, f"{whole} --dry-run", f"{own_task} --dry-run"):
        done = subprocess.run(
            [sys.executable, "-m", "soniq_dse", *command.split()],
            cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    (front,) = folder.rglob("front.json")
    names = {point["name"] for point in json.loads(front.read_text())["points"]}
    assert any("w1a1" in name for name in names)
    assert any("w2a2+w8a8" in name for name in names)
