"""The command line's frame: lazy imports, errors without tracebacks, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from soniq_dse.cli import COMMANDS


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "soniq_dse", *arguments], capture_output=True, text=True)


def test_help_lists_every_command_and_imports_no_heavy_library() -> None:
    code = "import sys; sys.argv = ['soniq-dse', '--help']\ntry:\n import soniq_dse.__main__\nexcept SystemExit: pass\n"
    heavy = "print([m for m in ('torch', 'numpy', 'plotly', 'pydantic', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_exit_code_of_zero(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert f"Example:  soniq-dse {name}" in done.stdout


def test_an_unknown_command_names_the_nearest_one() -> None:
    done = run("explor")
    assert done.returncode == 2
    assert "nearest valid choice: 'explore'" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_reports_as_json() -> None:
    done = run("doctor", "--json")
    findings = json.loads(done.stdout)
    assert findings["python"]["status"] == "ok"
    assert done.returncode == (3 if any(f["status"] == "failed" for f in findings.values()) else 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert "_SONIQ_DSE_COMPLETE" in done.stdout


@pytest.mark.parametrize("words", [("hw", "show", "avx512"), ("hw", "show", "avx512", "--json")])
def test_a_reader_that_stops_early_is_no_failure(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "soniq_dse", *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_is_told_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "soniq_dse", "hw", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "error: expected to read or write there, got: No space left on device\n"
