"""Writes a trained design in the formats of other programs.

To add one: a new file here whose name is the suffix of what it writes (``onnx.py`` for ``--to NAME.onnx``), with one
class deriving from ``Base``. ``tests/contracts/test_exporters.py`` finds it by itself and holds what it wrote against
the golden arithmetic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.records.choice import Choices
from soniq_dse.records.network import IntegerNetwork

HELPERS = frozenset({"lowering", "onnx_tokens", "pt2_tokens", "static_plan"})
"""Modules of this package that are no formats."""

NO_CHOICES = Choices()


@dataclass(frozen=True)
class Design:
    """What is exported: a network and its arrays (``ArrayRef.sha256`` -> array).

    ``features`` are the CPU features that compiled code may use, none: it runs anywhere; ``choices`` say by which
    kernels.
    """

    network: IntegerNetwork
    arrays: Mapping[str, NDArray[Any]]
    features: tuple[str, ...] = ()
    choices: Choices = NO_CHOICES


class Base(ABC):
    """A format: how a design is written in it, and how such a file runs."""

    title: ClassVar[str]
    """What the file is, in a few words."""

    @abstractmethod
    def write(self, design: Design, target: Path) -> tuple[str, ...]:
        """Write ``target``; what its reader should know of it, a line each.

        Raises:
            UserError: it cannot be written, or a package is not installed.
        """

    @abstractmethod
    def outputs(self, path: Path, x: NDArray[Any]) -> NDArray[np.float32]:
        """What the file computes for ``x [n, ...]``, fp32 or token numbers, by the format's own runtime."""


def save(target: Path, data: bytes) -> None:
    """Write ``data``.

    Raises:
        UserError: it cannot be written.
    """
    try:
        target.write_bytes(data)
    except OSError as error:
        raise UserError(f"{target}: expected a place to write, got {error.strerror}") from error
