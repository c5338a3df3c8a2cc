"""What every test may use.

Where ``SONIQ_DSE_TESTS_REQUIRE=1``, a missing program or header fails the test instead of skipping it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from soniq_dse.native.compiler import host_compiler

os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; programs under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _missing(reason: str) -> NoReturn:
    if os.environ.get("SONIQ_DSE_TESTS_REQUIRE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def need_program() -> Callable[[str, str], str]:
    """``need_program("chromium", "chromium")``: the program's path, else a skip that names its Debian package."""

    def need(program: str, debian_package: str) -> str:
        found = shutil.which(program)
        if found:
            return found
        _missing(f"{program} is not installed (Debian package {debian_package})")

    return need


@pytest.fixture(scope="session")
def need_header() -> Callable[[str, str], None]:
    """``need_header("simde/x86/avx512.h", "libsimde-dev")``: a skip, as above, where the compiler lacks the header."""

    def need(header: str, debian_package: str) -> None:
        command = [host_compiler().path, "-fsyntax-only", "-x", "c++", "-"]
        source = f"#if !__has_include(<{header}>)\n#error\n#endif\n"
        found = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
        if found.returncode:
            _missing(f"{header} is not installed (Debian package {debian_package})")

    return need


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``shared_data("fashion-mnist")``: real data below ``SONIQ_DSE_DATA`` or ``../shared/data``, else a skip.

    A set that lies there packed is unpacked by the script beside it."""

    def need(name: str) -> Path:
        root = Path(os.environ.get("SONIQ_DSE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
        packed = root / "unpack_cifar10.py"
        if name == "cifar-10-batches-bin" and not (root / name).is_dir() and packed.is_file():
            root = tmp_path_factory.getbasetemp() / "unpacked"
            if not (root / name).is_dir():
                subprocess.run([sys.executable, str(packed), str(root)], check=True, capture_output=True)
        if not (root / name).is_dir():
            pytest.skip(f"data set {name} is not at {root} (set SONIQ_DSE_DATA to its parent folder)")
        return root / name

    return need
