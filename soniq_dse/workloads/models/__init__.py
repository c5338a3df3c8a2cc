"""Models: one file each, named as ``--model`` names it.

To add one: a file here with one class deriving from ``Base`` whose ``build`` gives an ordinary ``torch.nn.Module``.
``tests/contracts/test_models.py`` then tests it. A model of one's own needs nothing of this package: ``--model
pkg.mod:build`` takes any function that returns a module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from soniq_dse.records.design import Schedule

if TYPE_CHECKING:
    import torch

HELPERS = frozenset({"blocks", "transformer"})
"""Modules of this package that are no models."""


class Base(ABC):
    """A model with what it is trained on unless the user says otherwise.

    ``dataset`` names a data set, ``input_shape`` is one input without the batch axis, ``widths`` are the width
    multipliers that an exploration tries unless told otherwise.
    """

    dataset: ClassVar[str]
    input_shape: ClassVar[tuple[int, ...]]
    schedule: ClassVar[Schedule]
    widths: ClassVar[tuple[float, ...]] = (1.0,)

    @abstractmethod
    def build(self, width: float = 1.0) -> torch.nn.Module:
        """A new module with fresh weights, drawn from torch's global generator.

        ``width`` multiplies the channels of every layer but the input and the output (``blocks.scaled`` rounds them).
        """
