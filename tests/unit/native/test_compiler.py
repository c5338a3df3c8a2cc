"""The compile cache: content names, one build among many, damage, read-only homes, the compiler's own words."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from pathlib import Path

import pytest

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.native import compiler
from soniq_dse.native.compiler import build_library, cache_folder, cross_compiler, host_compiler


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SONIQ_DSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "native"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "inner.h").write_text("#define VALUE 7\n")
    (tmp_path / "outer.h").write_text('  #  include "inner.h"\n')
    path = tmp_path / "answer.cpp"
    path.write_text('#include "outer.h"\nextern "C" int answer() { return VALUE; }\n')
    return path


def answer(library: Path) -> int:
    return int(ctypes.CDLL(str(library)).answer())


def test_builds_once_and_again_where_anything_changes(cache: Path, source: Path, tmp_path: Path) -> None:
    first = build_library([source])
    assert answer(first) == 7
    built = first.stat().st_mtime_ns
    assert build_library([source]) == first
    assert first.stat().st_mtime_ns == built
    assert build_library([source], flags=["-DOTHER"]) != first
    (tmp_path / "inner.h").write_text("#define VALUE 8\n")  # two includes deep
    changed = build_library([source])
    assert changed != first
    assert answer(changed) == 8
    assert sorted(path.suffix for path in cache.iterdir()) == sorted([".lock", ".sha256", ".so"] * 3)


def test_header_of_an_include_folder_counts(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "include"
    folder.mkdir()
    (folder / "far.h").write_text("#define VALUE 1\n")
    path = tmp_path / "far.cpp"
    path.write_text('#include "far.h"\nextern "C" int answer() { return VALUE; }\n')
    first = build_library([path], include=[folder])
    (folder / "far.h").write_text("#define VALUE 2\n")
    assert build_library([path], include=[folder]) != first


@pytest.mark.parametrize("damage", ["truncate", "flip", "no digest"])
def test_damaged_library_is_built_again(cache: Path, source: Path, damage: str) -> None:
    library = build_library([source])
    data = library.read_bytes()
    if damage == "truncate":
        library.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        library.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    else:
        library.with_suffix(".sha256").unlink()
    assert build_library([source]) == library
    assert library.read_bytes() == data
    assert answer(library) == 7


def _build_in_process(source: Path, counter: Path, folder: str) -> None:
    os.environ["SONIQ_DSE_CACHE"] = folder
    original = compiler._build

    def counted(*arguments: object) -> None:
        with counter.open("a") as file:
            file.write("x")
        original(*arguments)  # type: ignore[arg-type]

    compiler._build = counted
    build_library([source])


def test_parallel_processes_build_once(cache: Path, source: Path, tmp_path: Path) -> None:
    counter = tmp_path / "builds"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_build_in_process, args=(source, counter, str(cache.parent))) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert counter.read_text() == "x"


def test_compile_error_is_shown_in_the_compilers_words(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.cpp"
    path.write_text("int f() { return nonsense; }\n")
    with pytest.raises(UserError, match=r"wrong\.cpp: expected .* to compile it(.|\n)*nonsense"):
        build_library([path])
    assert not list(cache.glob("*.so"))
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_missing_source_is_named(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a file, got .*absent\.cpp"):
        build_library([tmp_path / "absent.cpp"])


def test_no_compiler_is_a_missing_capability(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingCapabilityError, match=r"install g\+\+"):
        host_compiler()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no-such-compiler"):
        host_compiler()


def test_read_only_home_falls_back_to_a_private_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")  # a folder cannot be made below a file, whoever asks
    monkeypatch.setenv("SONIQ_DSE_CACHE", str(blocked))
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setenv("HOME", str(blocked))
    monkeypatch.setattr(compiler.tempfile, "tempdir", str(tmp_path))
    folder = cache_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == folder


def test_private_folder_of_loose_mode_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiler.tempfile, "tempdir", str(tmp_path))
    loose = tmp_path / f"soniq-dse-{os.getuid()}"
    loose.mkdir()
    loose.chmod(0o777)
    compiler._process_folder.cache_clear()
    folder = compiler._private_temporary_folder()
    assert folder != loose
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_missing_cross_compiler_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingCapabilityError, match="install g\\+\\+-aarch64-linux-gnu"):
        cross_compiler("aarch64")
    program = tmp_path / "aarch64-linux-gnu-g++"
    program.write_text("#!/bin/sh\necho 'aarch64-linux-gnu-g++ 12'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = cross_compiler("aarch64")
    assert (found.path, found.version) == (str(program), "aarch64-linux-gnu-g++ 12")
