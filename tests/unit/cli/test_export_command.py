"""``soniq-dse export``: a design of a run becomes a file of its own, which runs anywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from network_factory import NetworkFactory

from soniq_dse.cli import export, run
from soniq_dse.errors import UserError
from soniq_dse.export.onnx import Onnx
from soniq_dse.records.front import RunInfo
from soniq_dse.runtime.pack import PackedNetwork


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run on the digits with one design."""
    net = NetworkFactory((1, 8, 8), "w1a1+w4a4")
    inner = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), 8, 3))
    net.linear(net.quantize(net.flatten(inner), signed=False), 10)
    info = RunInfo(
        key="0", command="soniq-dse explore", started="now", model="digits_cnn", data="digits", hardware="avx512",
        palettes=("w1a1+w4a4",), n_seeds=1, total=1,
    )  # fmt: skip
    (tmp_path / "one" / "designs").mkdir(parents=True)
    (tmp_path / "one" / "run.json").write_text(info.model_dump_json())
    PackedNetwork(net.network(), net.arrays).save(tmp_path / "one" / "designs" / "w1a1+w4a4@2-soniq-s0.safetensors")
    return tmp_path


def invoke(root: Path, *words: str) -> Result:
    return CliRunner().invoke(export.command, [*words, "--root", str(root)], catch_exceptions=False)


def test_the_exported_file_is_the_design_and_runs_without_its_run(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "net.soniq"
    result = invoke(root, "one", "w1a1+w4a4@2", "--to", str(target), "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found == {
        "design": "w1a1+w4a4@2-soniq-s0", "path": str(target), "size_bytes": target.stat().st_size, "notes": [],
        "largest_difference": None,
    }  # fmt: skip
    source = root / "one" / "designs" / "w1a1+w4a4@2-soniq-s0.safetensors"
    assert PackedNetwork.load(target).network == PackedNetwork.load(source).network
    words = [str(target), "--data", "digits", "--limit", "20"]
    ran = CliRunner().invoke(run.command, words, catch_exceptions=False)
    assert "equal the golden arithmetic, bit for bit" in ran.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("one", "w1a1+w4a4@2", "--to", "net.sonic"), "nearest valid choice: '.soniq'"),
        (("one", "w1a1+w4a4@2", "--to", "net.onxx"), "nearest valid choice: '.onnx'"),
        (("one", "w1a1+w4a4@2", "--to", "net"), "valid choices: .onnx"),
        (("one", "w1a1+w4a4@2", "--to", "net.onnx", "--portable"), "--portable: expected with NAME.zip, got net.onnx"),
        (("one", "w1a1+w4a4@2", "--to", "net.zip", "--portable", "--hw", "neon"), "expected without --hw, got both"),
        (("one", "w1a1+w4a4@2", "--to", "net.zip", "--hw", "neom"), "nearest valid choice: 'neon'"),
        (("one", "w1a1+w4a4@3", "--to", "net.onnx"), "expected the name of a trained design"),
        (("one", "w1a1+w4a4@2", "--to", "absent/net.onnx"), "expected a place to write"),
        (("one", "w1a1+w4a4@3", "--to", "net.soniq"), "expected the name of a trained design"),
        (("two", "w1a1+w4a4@2", "--to", "net.soniq"), "run in"),
        (("one", "w1a1+w4a4@2", "--to", "absent/net.soniq"), "expected a place to write"),
    ],
)
def test_what_cannot_be_exported(root: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        invoke(root, *words)


def test_a_file_for_another_program_is_checked_at_once(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    result = invoke(root, "one", "w1a1+w4a4@2", "--to", str(target))
    assert result.exit_code == 0
    assert f"outputs of {export.CHECKED_SAMPLES} random samples equal those of the golden arithmetic" in result.output
    found = json.loads(invoke(root, "one", "w1a1+w4a4@2", "--to", str(target), "--json").stdout)
    assert found["largest_difference"] == 0
    assert found["size_bytes"] == target.stat().st_size


def test_a_file_that_computes_something_else_is_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Onnx, "outputs", lambda _, path, x: np.zeros((len(x), 10), np.float32))
    result = invoke(root, "one", "w1a1+w4a4@2", "--to", str(tmp_path / "net.onnx"))
    assert "differ by up to" in result.output
    assert result.exit_code == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_works_as_it_stands(root: Path, tmp_path: Path, repository: Path) -> None:
    (tmp_path / "reports" / "runs").mkdir(parents=True)
    (root / "one").rename(tmp_path / "reports" / "runs" / "digits-avx512")
    page = (repository / "docs" / "export.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(sh|python)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in found] == ["sh", "python"] * 3 + ["sh"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for language, text in found:
        command = ["bash", "-ec", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
