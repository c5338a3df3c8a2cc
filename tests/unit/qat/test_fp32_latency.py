"""The FP32 reference is timed on whatever its model reads."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from soniq_dse.hardware.host import detect_host
from soniq_dse.qat.latency import measure_fp32
from soniq_dse.workloads.models.transformer import Decoder


@pytest.mark.parametrize(
    ("model", "inputs"),
    [(Decoder(9, 8, 8, 2, 1), np.zeros((2, 8), np.int64)), (nn.Linear(3, 4), np.zeros((2, 3), np.float32))],
)
def test_it_is_timed_on_its_inputs(model: nn.Module, inputs: np.ndarray) -> None:
    found = measure_fp32(lambda: model, inputs, detect_host(), max_s=0.01)
    assert found.batch == 2
    assert found.median_us is not None
    assert found.median_us > 0
