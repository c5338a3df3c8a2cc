"""What the FP32 network takes in PyTorch itself: the reference that its users know."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from soniq_dse.native.timing import thread_seconds, time_call
from soniq_dse.qat.training import deterministic
from soniq_dse.records.cost import Host, Measurement


def measure_fp32(
    build_model: Callable[[], nn.Module],
    inputs: npt.NDArray[Any],
    host: Host,
    *,
    threads: int = 1,
    max_s: float = 1.0,
) -> Measurement:
    """Latency of one forward pass by eager PyTorch in inference mode: CPU time of one thread, wall time of several.

    Weights do not change it, so the model is timed as built, on ``inputs [batch, ...]``.
    """
    model = build_model().eval()
    example = torch.tensor(inputs)
    clock = thread_seconds if threads == 1 else time.monotonic
    with deterministic(threads), torch.inference_mode():
        timing = time_call(lambda: model(example), max_s=max_s, clock=clock)
    return Measurement(
        batch=len(inputs),
        threads=threads,
        median_us=1e6 * timing.median_s,
        mad_us=1e6 * timing.mad_s,
        samples=timing.samples,
        settled=timing.settled,
        host=host,
        compiler=f"torch {torch.__version__}, eager, inference_mode",
    )
