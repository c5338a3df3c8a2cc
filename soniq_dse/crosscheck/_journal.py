"""Measurements as they are made, on disk one by one: a crosscheck that was stopped goes on where it stood.

The journal is a file of lines beside the predictions. A hash of all that its measurements are of (predictions, kernels,
host, compiler) names it, so that anything else begins another one.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from soniq_dse.errors import UserError
from soniq_dse.records.base import content_sha256
from soniq_dse.records.cost import Measurement


class Journal:
    """``measured-HASH.jsonl`` in a folder; ``of``: JSON values that the hash is of."""

    def __init__(self, folder: Path, of: Sequence[Any]) -> None:
        self._path = folder / f"measured-{content_sha256(list(of))[:12]}.jsonl"

    def read(self) -> dict[int, Measurement]:
        """Row number -> its last measurement; a line that a kill cut short is left out."""
        found: dict[int, Measurement] = {}
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return found
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError, ValidationError):
                entry = json.loads(line)
                found[int(entry["row"])] = Measurement.model_validate(entry["measurement"])
        return found

    def add(self, row: int, measurement: Measurement) -> None:
        """Append a measurement; it is on disk when this returns.

        Raises:
            UserError: the disk refuses.
        """
        line = json.dumps({"row": row, "measurement": measurement.to_json_value()}, ensure_ascii=False)
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(f"\n{line}\n")  # first ends a line that a kill cut short
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise UserError(f"{self._path}: expected to write there, got: {error.strerror}") from error

    def finish(self) -> None:
        """Remove it: every row was measured, and the next run measures anew."""
        self._path.unlink(missing_ok=True)
