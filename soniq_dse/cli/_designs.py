"""Where a trained design's packed file is: in the folder of its run, or of a run behind a front over machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from soniq_dse.cli._find_run import load_report
from soniq_dse.errors import UserError, nearest, unknown_name


def find_in_run(folder: Path, design: str) -> Path:
    """The packed file of ``design`` of the run in ``folder``; of a front over machines ``MACHINE/DESIGN``, the machine
    left out where all that have the design trained it alike.

    Raises:
        UserError: there is none, or several that differ.
    """
    from soniq_dse.runtime.pack import PackedNetwork

    runs = runs_behind(folder)
    machine, _, name = ("", "", design) if "" in runs else design.rpartition("/")
    if machine and machine not in runs:
        raise unknown_name(f"machine of {folder}", machine, runs)
    asked = {machine: runs[machine]} if machine else runs
    found = {of: path for of, run in asked.items() for path in [of_name(packed_in(run), name, run)] if path}
    if not found:
        names = [path.stem for run in asked.values() for path in packed_in(run)]
        hint = nearest(name, {*map(short_name, names)}) or "; it holds none: the command of the run writes them"
        raise UserError(f"design: expected the name of a trained design of {folder}, got {design!r}{hint}")
    first, *others = (PackedNetwork.load(path).network for path in found.values())
    if any(other != first for other in others):
        which = ", ".join(f"{of}/{name}" for of in found)
        raise UserError(f"design: expected MACHINE/DESIGN, since machines trained {name!r} differently: {which}")
    return next(iter(found.values()))


def runs_behind(folder: Path) -> Mapping[str, Path]:
    """The run's own folder, without a name; of a front over machines, those of its runs by machine.

    Raises:
        UserError: a run of a front is gone, or the front was written before it named them.
    """
    if (folder / "run.json").is_file() or (folder / "designs").is_dir():
        return {"": folder}
    report = load_report(folder)
    if not report.folders:
        raise UserError(
            f"{folder}: expected a run, got a page that names none; the command that wrote it writes it anew"
        )
    names = (report.hardware, *(other.machine for other in report.others))
    runs = {name: folder / run for name, run in zip(names, report.folders, strict=True)}
    for run in runs.values():
        if not run.is_dir():
            raise UserError(f"{folder}: expected the run behind it in {run}, got no such folder")
    return runs


def packed_in(run: Path) -> list[Path]:
    """The packed files of a run's designs."""
    return sorted((run / "designs").glob("*.safetensors"))


def of_name(packed: list[Path], name: str, where: object) -> Path | None:
    """The one of ``packed`` that is called ``name``, with or without allocator and seed; None where none is.

    Raises:
        UserError: there are several.
    """
    found = [path for path in packed if path.stem == name] or [path for path in packed if short_name(path.stem) == name]
    if len(found) > 1:
        which = ", ".join(path.stem for path in found)
        raise UserError(f"design: expected one design, got {name!r}, of which {where} has several: {which}")
    return found[0] if found else None


def short_name(stem: str) -> str:
    """The name of a design in tables and reports: without ``-ALLOCATOR-sSEED``."""
    return re.sub(r"-[a-z_]+-s\d+$", "", stem)
