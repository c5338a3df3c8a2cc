"""Data sets: one file each, named as ``--data`` names it.

To add one: a file here with one class deriving from ``Base`` that reads the set's official layout from a folder
(``folder_name``), or needs none. ``tests/contracts/test_datasets.py`` then tests it. Files are parsed, never unpickled.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from soniq_dse.errors import UserError, nearest

if TYPE_CHECKING:
    from soniq_dse.workloads.task import Task

HELPERS = frozenset({"idx", "text"})
"""Modules of this package that are no data sets."""

DATA_VARIABLE = "SONIQ_DSE_DATA"
"""The environment variable that names the folder in which data sets are looked for."""


class Base(ABC):
    """A data set.

    ``folder_name`` is its folder below the one that ``SONIQ_DSE_DATA`` names ("" where it needs no files),
    ``input_shape`` the shape of one input, ``nonnegative`` whether inputs are at least 0. ``n_classes`` is None where
    it is no classification; ``n_tokens``: inputs are token numbers below it, None: they are fp32.
    """

    folder_name: ClassVar[str] = ""
    input_shape: ClassVar[tuple[int, ...]]
    n_classes: ClassVar[int | None]
    n_tokens: ClassVar[int | None] = None
    nonnegative: ClassVar[bool]

    @abstractmethod
    def read(self, folder: Path) -> Task:
        """The task from the files in ``folder`` (ignored where no files are needed): the same split on every machine.

        Raises:
            UserError: a file is missing, cut short or something else.
        """

    def load(self, folder: str | Path | None = None, limit: int | None = None) -> Task:
        """The task, at most ``limit`` examples in each split.

        Raises:
            UserError: as ``read``; or the folder is not there, or none is named.
        """
        return self.read(self._folder(folder)).limited(limit)

    def _folder(self, folder: str | Path | None) -> Path:
        name = type(self).__module__.rpartition(".")[2]
        if not self.folder_name:
            if folder is not None:
                raise UserError(f"data {name}: expected no folder (it comes installed), got {str(folder)!r}")
            return Path()
        root = os.environ.get(DATA_VARIABLE)
        if folder is None and not root:
            raise UserError(
                f"data {name}: expected a folder, got none: give {name}:FOLDER, or set {DATA_VARIABLE} to the folder "
                f"that holds {self.folder_name}"
            )
        path = Path(folder).expanduser() if folder is not None else Path(str(root)).expanduser() / self.folder_name
        if not path.is_dir():
            siblings = [str(p) for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
            raise UserError(f"data {name}: expected a folder, got {str(path)!r}{nearest(str(path), siblings)}")
        return path
