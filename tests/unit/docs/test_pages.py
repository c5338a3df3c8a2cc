"""Pages that are followed literally: their files are written, their commands run, their output is compared."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_FENCE = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, file, text) of each fenced block."""
    return [(language, file, text) for language, file, text in _FENCE.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.slow  # it measures this machine
def test_the_page_on_adding_a_machine_works_as_it_stands(repository: Path, tmp_path: Path) -> None:
    found = blocks(repository / "docs" / "add-a-machine.md")
    assert {language for language, _, _ in found} == {"sh", "text", "yaml"}
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    output, ran = "", 0
    for language, file, text in found:
        if language == "yaml":
            (tmp_path / file).write_text(text, encoding="utf-8")
        elif language == "sh":
            done = subprocess.run(["bash", "-ec", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            output, ran = done.stdout + done.stderr, ran + 1
        else:
            assert [line for line in text.splitlines() if line not in output] == []
    assert ran >= 5


def test_the_json_schemas_are_fresh(repository: Path) -> None:
    module = runpy.run_path(str(repository / "docs" / "schemas" / "generate.py"))
    assert module["stale"]() == []


def test_a_schema_that_nobody_writes_counts_as_stale(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = runpy.run_path(str(repository / "docs" / "schemas" / "generate.py"))
    for name, schema in module["schemas"]().items():
        (tmp_path / name).write_text(module["as_text"](schema), encoding="utf-8")
    (tmp_path / "old.schema.json").write_text("{}", encoding="utf-8")
    monkeypatch.setitem(module["stale"].__globals__, "FOLDER", tmp_path)
    assert module["stale"]() == ["old.schema.json"]


def as_installed(repository: Path, folder: Path) -> None:
    """What ``make explore`` needs of the repository, and a ``.venv`` that is the one of the tests."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, folder)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv" / ".installed").touch()


QUICK = {"PALETTES": "w2a2", "EPOCHS": "1,1,1", "LIMIT": "100"}
"""Flags of ``explore`` by the environment, so that the tutorial's own command ends within seconds."""


@pytest.mark.slow
@pytest.mark.timeout(1200)  # it trains: a minute of a machine that rests, many of a busy one
def test_the_tutorial_works_as_it_stands(repository: Path, tmp_path: Path) -> None:
    as_installed(repository, tmp_path)
    found = blocks(repository / "docs" / "tutorial.md")
    assert {language for language, _, _ in found} == {"sh", "text"}
    script = "\n".join(text for language, _, text in found if language == "sh")
    script = script.replace("--max-us 40", "--max-us 4000")  # nothing keeps 40 us on a busy or an older machine
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    environment |= {f"SONIQ_DSE_EXPLORE_{name}": value for name, value in QUICK.items()}
    done = subprocess.run(["bash", "-exc", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    expected = [line for language, _, text in found if language == "text" for line in text.splitlines()]
    assert [line for line in expected if line not in output] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", ["add-a-kernel", "add-a-format", "add-an-allocator"])
def test_the_pages_on_adding_a_unit_work_as_they_stand(repository: Path, tmp_path: Path, page: str) -> None:
    for name in ("soniq_dse", "tests", "hwmodels", "palettes"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path)}
    output = ""
    for language, file, text in blocks(repository / "docs" / f"{page}.md"):
        if language == "sh":
            done = subprocess.run(["bash", "-ec", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
            output = done.stdout + done.stderr
            assert done.returncode == 0, output
        elif language == "text":
            assert [line for line in text.splitlines() if line not in output] == []
        else:
            assert not (tmp_path / file).exists()
            (tmp_path / file).write_text(text, encoding="utf-8")
