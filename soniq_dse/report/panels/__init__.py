"""The panels of the report page, one file each.

To add one: a new file here, named for the panel, with one class deriving from ``Base``, and beside it ``NAME.js`` where
the panel moves. The script calls ``soniq.panel("NAME", (app, root) => { ... })``; ``page.js`` says what ``app`` offers.
Data come from the report alone: ``fields`` names what the panel reads, and the page carries exactly those fields of
``report.json``, so no number can appear that is not there. Strings are set as text, never as HTML.
``tests/contracts/test_panels.py`` finds a new panel by itself.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from markupsafe import Markup

from soniq_dse.records.front import Report


class Base(ABC):
    """One section of the page."""

    title: ClassVar[str]
    """The section's heading."""
    help: ClassVar[str]
    """One or two sentences: what the reader sees, and every term that is not plain English."""
    order: ClassVar[int]
    """Position on the page, small first."""
    fields: ClassVar[tuple[str, ...]]
    """The fields of ``Report`` that the panel reads."""

    @property
    def id(self) -> str:
        """The panel's key: its file's name."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def fragment(self, report: Report) -> Markup:
        """The section's HTML below its heading. Strings of the report come in by ``Markup.format``: escaped."""

    def script(self) -> str:
        """The text of ``NAME.js`` beside the panel's file, empty where there is none."""
        path = Path(inspect.getfile(type(self))).with_suffix(".js")
        return path.read_text(encoding="utf-8") if path.is_file() else ""
