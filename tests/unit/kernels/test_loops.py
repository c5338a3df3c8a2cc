"""Kept hot loops: written for every vector kernel, read back, stale when a source changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from soniq_dse.errors import UserError
from soniq_dse.kernels import keep_loops as writer
from soniq_dse.kernels.catalog import CPU_FOLDER, catalog, instruction_set
from soniq_dse.kernels.keep_loops import is_stale, source_sha256
from soniq_dse.kernels.loops import ISA, kept_loop, kept_loops_folder

VECTOR = [spec for spec in catalog() if instruction_set(spec) == ISA]


@pytest.mark.parametrize("spec", VECTOR, ids=lambda spec: spec.symbol)
def test_shipped_loop_fits_its_kernel(spec) -> None:
    loop = kept_loop(spec.symbol)
    assert loop is not None, "run python -m soniq_dse.kernels.keep_loops"
    assert not is_stale(loop), "its source has changed: run python -m soniq_dse.kernels.keep_loops"
    rows, cols, _ = spec.tile
    k, rest = divmod(loop.macs_per_iteration, rows * cols)
    assert rest == 0
    assert k > 0
    # No instruction of 512 bits yields more than 512 products on average: look-ups of 384 need an addition each.
    vectors = sum(instruction.width_bits > 0 for instruction in loop.instructions)
    assert loop.macs_per_iteration <= 512 * vectors


def test_shipped_loops_are_of_kernels_that_exist() -> None:
    symbols = {spec.symbol for spec in VECTOR}
    assert {path.stem for path in kept_loops_folder().glob("*.json")} <= symbols


def test_a_changed_source_makes_a_loop_stale(tmp_path: Path) -> None:
    folder = tmp_path / "cpu"
    shutil.copytree(CPU_FOLDER, folder)
    loop = kept_loop(VECTOR[0].symbol)
    assert loop is not None
    source_sha256.cache_clear()
    assert not is_stale(loop, folder)
    source = folder / Path(VECTOR[0].path).name
    source.write_text(source.read_text() + "// changed\n")
    source_sha256.cache_clear()
    assert is_stale(loop, folder)
    source.unlink()
    catalog.cache_clear()
    assert is_stale(loop, folder)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    assert kept_loop("gemm_absent", tmp_path) is None
    (tmp_path / "gemm_bad.json").write_text('{"symbol": 1}')
    with pytest.raises(UserError, match="expected a HotLoop"):
        kept_loop("gemm_bad", tmp_path)
    (tmp_path / "gemm_other.json").write_text((kept_loops_folder() / f"{VECTOR[0].symbol}.json").read_text())
    with pytest.raises(UserError, match="expected gemm_other"):
        kept_loop("gemm_other", tmp_path)


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed (Debian package binutils)")
def test_writer_brings_a_folder_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "catalog", lambda *_: [VECTOR[0]])
    (tmp_path / "gemm_gone.json").write_text("{}")
    assert writer.keep_loops(tmp_path) == []
    assert [path.stem for path in tmp_path.glob("*.json")] == [VECTOR[0].symbol]
    written = (tmp_path / f"{VECTOR[0].symbol}.json").stat().st_mtime_ns
    assert writer.keep_loops(tmp_path) == []
    assert (tmp_path / f"{VECTOR[0].symbol}.json").stat().st_mtime_ns == written
