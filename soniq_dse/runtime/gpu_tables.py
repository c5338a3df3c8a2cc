"""Arguments of the passes between layers as ``cuda/network.cu`` reads them; addresses are whole numbers."""

from __future__ import annotations

import numpy as np

from soniq_dse.kernels.gpu_layer import CODES, MOST_SEGMENTS

PASS_THREADS = 256
PASSES = {"pack": "pack_f32__sm61_layer", "pool": "pool_f32__sm61_window", "sum": "sum_f32__sm61_plain"}

# fmt: off
PACK = np.dtype(
    [("x", "u8")]
    + [(name, "i4") for name in ("pixels", "per_image", "pixel_stride", "image_stride", "groups", "n_segments")]
    + [("segments", CODES, MOST_SEGMENTS)]
)
POOL = np.dtype(
    [(name, "u8") for name in ("x", "out")]
    + [(name, "i4") for name in (
        "outputs", "height", "width", "channels", "out_height", "out_width", "kernel_height", "kernel_width",
        "stride_height", "stride_width", "pad_height", "pad_width",
    )]
    + [("scale", "f4"), ("unused", "i4")]
)
SUM = np.dtype([(name, "u8") for name in ("x", "y", "out")] + [(name, "i4") for name in ("n", "relu")])
# fmt: on
"""``Pack``, ``Pool`` and ``Sum``."""
