"""The wheel, an editable install and a checkout each find the shipped descriptors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

LIST_SHIPPED = (
    "import json; from soniq_dse.resources import shipped_folder; "
    "print(json.dumps([[str(p) for p in sorted(shipped_folder(n).glob('*.yaml'))] for n in ('hwmodels', 'palettes')]))"
)


def shipped(python_path: Path, cwd: Path) -> list[list[str]]:
    """Paths of the descriptors and palettes that a Python with ``python_path`` in front finds."""
    environment = {**os.environ, "PYTHONPATH": str(python_path)}
    command = [sys.executable, "-c", LIST_SHIPPED]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=True)
    found: list[list[str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def unpacked_wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(repository)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_checkout_and_editable_install_find_the_repository_files(repository: Path, tmp_path: Path) -> None:
    machines, palettes = shipped(repository, tmp_path)
    assert {Path(p).stem for p in machines} >= {"avx512", "avx2", "neon"}
    assert machines == [str(p) for p in sorted((repository / "hwmodels").glob("*.yaml"))]
    assert palettes


def test_wheel_holds_every_shipped_file(repository: Path, unpacked_wheel: Path, tmp_path: Path) -> None:
    machines, palettes = shipped(unpacked_wheel, tmp_path)
    assert all(Path(p).is_relative_to(unpacked_wheel) for p in machines + palettes)
    for name, found in (("hwmodels", machines), ("palettes", palettes)):
        assert [Path(p).name for p in found] == [p.name for p in sorted((repository / name).glob("*.yaml"))]
    sources = {p.name for p in (repository / "soniq_dse/kernels/cpu").iterdir() if p.suffix in {".cpp", ".h"}}
    assert sources == {
        p.name for p in (unpacked_wheel / "soniq_dse/kernels/cpu").iterdir() if p.suffix in {".cpp", ".h"}
    }
    loops = {p.relative_to(repository / "hwmodels") for p in (repository / "hwmodels/loops").rglob("*.json")}
    held = unpacked_wheel / "soniq_dse/hwmodels"
    assert loops == {p.relative_to(held) for p in (held / "loops").rglob("*.json")}


def test_import_contract_holds_and_bites(repository: Path, tmp_path: Path) -> None:
    """lint-imports passes here, and fails once a stage imports another."""
    import shutil

    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    assert subprocess.run(command, cwd=repository, capture_output=True).returncode == 0
    copy = tmp_path / "copy"
    shutil.copytree(repository / "soniq_dse", copy / "soniq_dse", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", copy)
    (copy / "soniq_dse/cost/leak.py").write_text("import soniq_dse.report\n")
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    assert subprocess.run(command, cwd=copy, capture_output=True, env=environment).returncode != 0
