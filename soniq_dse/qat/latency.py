"""What the FP32 network takes in PyTorch itself: the reference that its users know."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from soniq_dse.native.timing import time_call
from soniq_dse.qat.training import deterministic
from soniq_dse.records.cost import Host, Measurement


def measure_fp32(
    build_model: Callable[[], nn.Module], input_shape: tuple[int, ...], host: Host, max_s: float = 1.0
) -> Measurement:
    """Latency of one forward pass by eager PyTorch on one thread, in inference mode.

    Weights do not change it, so the model is timed as built. ``input_shape`` has the batch first.
    """
    model = build_model().eval()
    example = torch.rand(input_shape)
    with deterministic(1), torch.inference_mode():
        timing = time_call(lambda: model(example), max_s=max_s)
    return Measurement(
        batch=input_shape[0],
        threads=1,
        median_us=1e6 * timing.median_s,
        mad_us=1e6 * timing.mad_s,
        samples=timing.samples,
        settled=timing.settled,
        host=host,
        compiler=f"torch {torch.__version__}, eager, inference_mode",
    )
