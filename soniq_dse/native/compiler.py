"""Build C++ sources into shared libraries when they are used, kept in a cache named by content.

The name of a cached library is a hash of all that decides its bytes: the sources, the project headers they include,
the flags and the compiler's version. A library is built in a private file and renamed, under a lock, so that parallel
processes build it once and none ever sees half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from soniq_dse.errors import MissingCapabilityError, UserError

BASE_FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-shared", "-ffp-contract=off", "-fno-exceptions", "-fno-rtti", "-fno-math-errno",
    "-fno-trapping-math", "-Wall", "-Wextra",
)  # fmt: skip
"""Flags of every build. No contraction and no fast-math: floating-point results are the same on every machine."""

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: how it is called and the first line of its ``--version``."""

    path: str
    version: str

    @property
    def name(self) -> str:
        """How it is called, without its folder."""
        return Path(self.path).name


def host_compiler() -> Compiler:
    """The compiler for this machine: ``$CXX``, else ``g++``, else ``clang++``.

    Raises:
        MissingCapabilityError: there is none.
        UserError: ``$CXX`` names something that does not run.
    """
    return _host_compiler(os.environ.get("CXX", ""), os.environ.get("PATH", ""))


def find_compiler(name: str) -> Compiler | None:
    """The C++ compiler called ``name`` (``clang++-19``); None where it is not on PATH."""
    return _host_compiler(name, os.environ["PATH"]) if shutil.which(name) else None


def cross_compiler(isa: str) -> Compiler:
    """The GNU compiler on PATH for the instruction set ``isa``, for instance ``aarch64``.

    Raises:
        MissingCapabilityError: there is none.
    """
    name = f"{isa}-linux-gnu-g++"
    path = shutil.which(name)
    if path is None:
        raise MissingCapabilityError(
            f"C++ compiler for {isa}: expected {name} on PATH, got none; install g++-{isa}-linux-gnu (Debian package)"
        )
    return _host_compiler(path, os.environ.get("PATH", ""))


def build_library(
    sources: Sequence[Path],
    *,
    flags: Sequence[str] = (),
    include: Sequence[Path] = (),
    compiler: Compiler | None = None,
) -> Path:
    """The shared library built from ``sources`` with ``BASE_FLAGS`` and ``flags``; from the cache where it is there.

    Args:
        sources: C++ files.
        flags: further flags (ISA features, definitions).
        include: folders in which quoted includes are looked up, besides the including file's own.
        compiler: default ``host_compiler()``.

    Raises:
        UserError: the compiler rejects the sources; the message ends with what it said.
        MissingCapabilityError: there is no compiler.
    """
    compiler = compiler or host_compiler()
    all_flags = (*BASE_FLAGS, *flags)
    key = hashlib.sha256("\0".join((compiler.path, compiler.version, *all_flags)).encode())
    key.update(sources_sha256(sources, include).encode())
    library = cache_folder() / f"{sources[0].stem}-{key.hexdigest()[:32]}.so"
    if _is_intact(library):
        return library
    with _locked(library.with_suffix(".lock")):
        if not _is_intact(library):  # another process may have built it while this one waited
            _build(compiler, sources, all_flags, include, library)
    return library


def sources_sha256(sources: Sequence[Path], include: Sequence[Path] = ()) -> str:
    """Hash of the names and bytes of ``sources`` and of every project header that they include, however deep."""
    digest = hashlib.sha256()
    for path in with_headers(sources, include):
        data = path.read_bytes()
        digest.update(f"{path.name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def cache_folder() -> Path:
    """``$SONIQ_DSE_CACHE``, ``$XDG_CACHE_HOME/soniq-dse`` or ``~/.cache/soniq-dse``.

    Where none can be written: a folder below the system's temporary folder that only this user can enter.
    """
    wanted = [Path(value) for value in (os.environ.get("SONIQ_DSE_CACHE"),) if value]
    wanted += [Path(value) / "soniq-dse" for value in (os.environ.get("XDG_CACHE_HOME"),) if value]
    with contextlib.suppress(RuntimeError):  # no home at all
        wanted.append(Path.home() / ".cache" / "soniq-dse")
    for folder in wanted:
        native = folder / "native"
        with contextlib.suppress(OSError):
            native.mkdir(parents=True, exist_ok=True)
            if os.access(native, os.W_OK | os.X_OK):
                return native
    return _private_temporary_folder()


@functools.lru_cache(maxsize=8)
def _host_compiler(cxx: str, search_path: str) -> Compiler:
    for name in (cxx,) if cxx else ("g++", "clang++"):
        path = shutil.which(name, path=search_path)
        if path is None:
            continue
        try:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"C++ compiler: expected {path} --version to work, got {error}") from error
        return Compiler(path, said.splitlines()[0] if said else "unknown")
    if cxx:
        raise UserError(
            f"CXX: expected the name of a C++ compiler on PATH, got {cxx!r}; unset it to use g++ or clang++"
        )
    raise MissingCapabilityError(
        "C++ compiler: expected g++ or clang++ on PATH, got none; install g++ (Debian package g++)"
    )


def with_headers(sources: Sequence[Path], include: Sequence[Path]) -> list[Path]:
    """``sources`` and every project header that they include, however deep."""
    found: dict[Path, None] = {}
    todo = list(sources)
    while todo:
        path = todo.pop(0)
        if path in found:
            continue
        if not path.is_file():
            raise UserError(f"C++ source: expected a file, got {path}")
        found[path] = None
        for name in _INCLUDE.findall(path.read_bytes()):
            candidates = (folder / os.fsdecode(name) for folder in (path.parent, *include))
            todo += [candidate.resolve() for candidate in candidates if candidate.is_file()][:1]
    return list(found)


def _build(
    compiler: Compiler, sources: Sequence[Path], flags: Sequence[str], include: Sequence[Path], library: Path
) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{library.stem}-", suffix=".so", dir=library.parent)
    os.close(handle)
    built = Path(name)
    command = [compiler.path, *flags, *(f"-I{folder}" for folder in include), *map(str, sources), "-o", str(built)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            names = ", ".join(path.name for path in sources)
            raise UserError(
                f"{names}: expected {compiler.version} to compile it, got exit code {done.returncode}\n"
                + "\n".join(lines[:10])
            )
        built.chmod(0o755)
        digest = built.with_suffix(".sha256")
        digest.write_text(_sha256(built))
        digest.replace(_digest_path(library))
        built.replace(library)
    finally:
        built.unlink(missing_ok=True)
        built.with_suffix(".sha256").unlink(missing_ok=True)


def _is_intact(library: Path) -> bool:
    try:
        return _digest_path(library).read_text() == _sha256(library)
    except (OSError, UnicodeDecodeError):
        return False


def _digest_path(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _private_temporary_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"soniq-dse-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owned = folder.lstat()
        # A folder that another user made, or may enter, could hold a library of theirs.
        if owned.st_uid == os.getuid() and owned.st_mode & 0o170777 == 0o040700:
            return folder
    except OSError:
        pass
    return _process_folder()


@functools.lru_cache(maxsize=1)
def _process_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="soniq-dse-"))
    except OSError as error:
        raise MissingCapabilityError(
            f"cache: expected a folder that can be written (set SONIQ_DSE_CACHE), got none: {error}"
        ) from error
