from __future__ import annotations

import numpy as np

from soniq_dse.explore._confusion import MOST_CLASSES, confusion


def test_cells_by_hand() -> None:
    outputs = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.0, 0.1, 0.9]], dtype=np.float32)
    assert confusion(outputs, np.array([0, 1, 1, 2]), 3) == ((1, 0, 0), (1, 1, 0), (0, 0, 1))


def test_no_cells_without_classes_or_with_too_many() -> None:
    outputs = np.zeros((2, 3), dtype=np.float32)
    targets = np.array([0, 1])
    assert confusion(outputs, targets, None) is None
    assert confusion(outputs, targets, MOST_CLASSES + 1) is None
