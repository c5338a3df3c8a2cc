"""Which descriptors there are, and which file a name means."""

from __future__ import annotations

from pathlib import Path

from soniq_dse.errors import UserError, unknown_name
from soniq_dse.hardware.document import SIZE_LIMIT_BYTES
from soniq_dse.resources import shipped_folder

SUFFIXES = (".yaml", ".yml")
_TOP_KEYS = ("schema_version:", "extends:")


def shipped_descriptors() -> tuple[Path, ...]:
    """The descriptors that come with the package, sorted by name.

    Raises:
        UserError: the installation lacks their folder.
    """
    try:
        return tuple(sorted(shipped_folder("hwmodels").glob("*.yaml")))
    except FileNotFoundError as error:
        raise UserError(f"shipped descriptors: {error}; install soniq-dse again") from error


def list_descriptors() -> tuple[Path, ...]:
    """Descriptors of the current folder, then the shipped ones that none of them hides by its name."""
    local = [path for suffix in SUFFIXES for path in Path().glob(f"*{suffix}") if _looks_like_one(path)]
    hidden = {path.name for path in local}
    return (*sorted(local), *(path for path in shipped_descriptors() if path.name not in hidden))


def find_descriptor(spec: str, folder: Path | None = None, besides: Path | None = None) -> Path:
    """The file behind ``spec``: a path, or a name with or without ``.yaml``.

    It is looked up in ``folder`` (default: the current one), then among the shipped descriptors. ``besides`` is left
    out where another file answers: a descriptor may extend the shipped one of its own name.

    Raises:
        UserError: there is none; names the nearest.
    """
    base = folder or Path()
    name = spec if spec.endswith(SUFFIXES) else f"{spec}.yaml"
    shipped = {path.name: path for path in shipped_descriptors()}
    candidates = [base / name, *([shipped[name]] if name in shipped else []), base / spec]
    found = [path for path in candidates if spec and _exists(path)]
    if not found:
        known = [path.stem for path in list_descriptors()]
        what = "hardware descriptor: no such file; name" if spec.endswith(SUFFIXES) else "hardware descriptor"
        raise unknown_name(what, spec, known)
    return next((path for path in found if besides is None or not path.samefile(besides)), found[0])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False


def _looks_like_one(path: Path) -> bool:
    """True where a YAML file has a top-level key that only descriptors have; other files are not ours to list."""
    try:
        if not path.is_file() or path.stat().st_size > SIZE_LIMIT_BYTES:
            return False
        lines = path.read_bytes().decode("utf-8-sig", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith(_TOP_KEYS) for line in lines)
