"""Which folder RUN means, and what its report says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from soniq_dse.errors import UserError, unknown_name

if TYPE_CHECKING:
    from soniq_dse.records.front import Report

ROOT = Path("reports") / "runs"


def find_run(run: str, root: Path = ROOT) -> Path:
    """The folder behind RUN.

    Raises:
        UserError: there is none, or more than one name begins so.
    """
    if (Path(run) / "run.json").is_file() or (Path(run) / "report.json").is_file():
        return Path(run)
    run = run.rstrip("/")  # as a shell completes it
    files = [path for name in ("run.json", "report.json") for path in root.glob(f"*/{name}")] if root.is_dir() else []
    names = sorted({path.parent.name for path in files})
    exact_or_prefix = [name for name in names if name == run] or [name for name in names if name.startswith(run)]
    if len(exact_or_prefix) > 1:
        raise UserError(f"run: expected one run, got {run!r}, with which these begin: {', '.join(exact_or_prefix)}")
    if not exact_or_prefix:
        raise unknown_name(f"run in {root}", run, names)
    return root / exact_or_prefix[0]


def load_report(folder: Path) -> Report:
    """The numbers of a finished run.

    Raises:
        UserError: it is not finished, or its file is not valid.
    """
    from pydantic import ValidationError

    from soniq_dse.records.front import Report

    path = folder / "report.json"
    try:
        return Report.from_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: expected a finished run, got no report.json; soniq-dse runs show says how to go on"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}." for part in first["loc"])[:-1] or "the file"
        raise UserError(
            f"{path}: expected a report of schema version 1, got at {place}: {first['msg']}; the command of this run "
            "writes it again, finished trainings are kept"
        ) from error
