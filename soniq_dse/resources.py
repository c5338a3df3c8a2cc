"""Where the shipped files are: in a wheel inside the package, in a checkout or an editable install beside it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def shipped_folder(name: str) -> Path:
    """Folder ``hwmodels``, ``palettes`` or ``reports`` as shipped.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    package = Path(str(files("soniq_dse")))
    in_wheel = package / ("palettes_kept" if name == "palettes" else name)
    candidates = [in_wheel, package.parent / name]
    for folder in candidates:
        if folder.is_dir() and (folder is not candidates[1] or (package.parent / "pyproject.toml").is_file()):
            return folder
    raise FileNotFoundError(f"{name}: expected at {' or '.join(map(str, candidates))}")
