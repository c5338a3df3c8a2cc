"""Which classes a design takes for which."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MOST_CLASSES = 32
"""More than these no page can show."""


def confusion(
    outputs: npt.NDArray[np.floating], targets: npt.NDArray[np.integer], n_classes: int | None
) -> tuple[tuple[int, ...], ...] | None:
    """Examples by ``[true class][class of the largest output]``; None where there are no classes, or too many.

    Args:
        outputs: ``[n, classes]``.
        targets: ``[n]``, class numbers.
        n_classes: of the task; None where it is no classification.
    """
    if n_classes is None or n_classes > MOST_CLASSES or outputs.ndim != 2:
        return None
    cells = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(cells, (targets, outputs.argmax(axis=1)), 1)
    return tuple(tuple(int(n) for n in row) for row in cells)
