"""Whole networks on the GPU, codes written by the layers themselves; beside them PyTorch's 16-bit floats."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from benchmarks._gpu_device import Device
from benchmarks._gpu_records import VERSION, Row
from benchmarks._gpu_run import guarded
from soniq_dse.cost.bounds import even_assignment
from soniq_dse.cost.gpu import gpu_estimate
from soniq_dse.kernels.gpu_catalog import gpu_layer_kernel_for
from soniq_dse.kernels.gpu_loops import cuda_source_sha256
from soniq_dse.records.cost import Measurement
from soniq_dse.records.gpu import GpuModel
from soniq_dse.records.palette import Palette
from soniq_dse.runtime.gpu_latency import codes_differ, measure_on_gpu, on_gpu
from soniq_dse.runtime.gpu_network import GpuNetwork
from soniq_dse.workloads import load_model, load_workload

NETWORKS = (("resnet20", 1), ("resnet20", 64), ("resnet18", 1), ("resnet18", 32))
"""(built-in model, batch)."""
PALETTE = "w1a1+w2a2+w4a4"


def network_row(device: Device, gpu: GpuModel, model: str, batch: int) -> Row:
    """One sample held to the golden arithmetic code for code, then the time of a batch, the estimate of the same, and
    the FP16 network's time; what fails is said.

    Raises:
        DeviceLostError: the device does nothing any more; it holds the row.
    """
    from soniq_dse.qat.untrained import untrained_network

    workload, build = load_workload(model), load_model(model)[0]
    assignment = even_assignment(workload, Palette.parse(PALETTE))
    network, arrays = untrained_network(build, workload, assignment)
    one = np.random.default_rng(0).standard_normal((1, *network.nodes[0].shape)).astype(np.float32)
    row: Row = {
        "schema_version": VERSION, "network": model, "batch": batch, "palette": PALETTE, "exact": False,
        "failed": "the device was lost", "median_us": None, "fp16_us": None, "gpu": device.name,
        "predicted_us": gpu_estimate(gpu, workload, assignment, batch=batch).latency_us,
        "source_sha256": cuda_source_sha256(gpu_layer_kernel_for(gpu).path), "versions": device.versions,
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip

    def wrong() -> str | None:
        return codes_differ(on_gpu(network, arrays, gpu, device.runner, 1), arrays, one)

    def timed() -> tuple[GpuNetwork, Measurement]:
        placed = on_gpu(network, arrays, gpu, device.runner, batch)
        return placed, measure_on_gpu(placed, device.runner)

    differs, why_unknown = guarded(device, row, wrong)
    found, why_untimed = guarded(device, row, timed)
    floats, why_no_floats = guarded(device, row, lambda: device.time_torch(lambda t: _halves(t, build(), batch, one)))
    row |= {
        "exact": differs is None and why_unknown is None, "failed": why_unknown or differs or why_untimed,
        "fp16_us": floats.median_us if floats else None, "fp16_failed": why_no_floats,
    }  # fmt: skip
    if found is not None:
        placed, measurement = found
        row |= {
            "launches": len(placed.launches), "shape_sha256": placed.shape_sha256,
            "median_us": measurement.median_us, "per_layer_us": measurement.per_layer_us,
        }  # fmt: skip
    return row


def _halves(torch: Any, model: Any, batch: int, one: np.ndarray) -> Any:
    """The network in 16-bit floats, channels last, as cuDNN likes it."""
    model = model.eval().half().cuda().to(memory_format=torch.channels_last)
    x = torch.randn(batch, *one.shape[1:], device="cuda", dtype=torch.float16).to(memory_format=torch.channels_last)
    return lambda _: model(x)
