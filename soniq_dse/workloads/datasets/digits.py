"""scikit-learn's bundled handwritten digits: 1,797 grey images 8x8, 10 classes.

Source: the test set of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI, 1998.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soniq_dse.workloads import datasets
from soniq_dse.workloads.task import Split, Task, carve

N_HELD = 540
"""Examples of the validation and of the test split, so that an example is 0.19 points; 717 are left to train on."""


class Digits(datasets.Base):
    """Inputs ``[n, 1, 8, 8]``: the counts 0..16 divided by 16, exact in fp32."""

    input_shape = (1, 8, 8)
    n_classes = 10
    nonnegative = True

    def read(self, folder: Path) -> Task:
        """Bundled with scikit-learn: no folder is read."""
        from sklearn.datasets import load_digits

        images, targets = load_digits(return_X_y=True)
        whole = Split((images.reshape(-1, 1, 8, 8) / 16).astype(np.float32), targets.astype(np.int64))
        rest, test = carve(whole, N_HELD)
        train, val = carve(rest, N_HELD, seed=1)
        return Task("digits", train, val, test, n_classes=self.n_classes)
