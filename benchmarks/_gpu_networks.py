"""Convolutions and linear layers of whole networks by the layer kernel, in one graph; cuDNN's FP16 beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._gpu_device import Device
from soniq_dse.cost.bounds import even_assignment
from soniq_dse.cost.gpu import gpu_estimate
from soniq_dse.cost.graph import MatmulLayer, at_batch, segments_of
from soniq_dse.kernels.gpu_catalog import gpu_layer_kernel_for, part_for
from soniq_dse.kernels.gpu_layer import Epilogue, GpuSegment
from soniq_dse.kernels.reference import conv2d
from soniq_dse.records.gpu import GpuKernel, GpuModel
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import Conv2dLayer
from soniq_dse.workloads import load_workload

NETWORKS = (("resnet20", 1), ("resnet20", 64), ("resnet18", 1), ("resnet18", 32))
"""(built-in model, batch)."""
PALETTE = "w1a1+w2a2+w4a4"


def as_convolution(layer: MatmulLayer) -> Conv2dLayer:
    """A linear layer is a convolution of images of one pixel."""
    if isinstance(layer, Conv2dLayer):
        return layer
    return Conv2dLayer(
        name=layer.name, batch=layer.m, in_channels=layer.k, out_channels=layer.n, height=1, width=1, kernel=(1, 1)
    )


def random_segment(layer: Conv2dLayer, part: GpuKernel, channels: int, seed: int = 0) -> GpuSegment:
    """Uniform codes and weights; what the sum of codes adds is the sum itself."""
    rng = np.random.default_rng(seed)
    largest = 127 if part.wgt == "s8" else 2**part.weight_bits - 1
    shape = (layer.out_channels, *layer.kernel, channels // layer.groups)
    pixels, most = layer.batch * layer.height * layer.width, 2**part.activation_bits
    return GpuSegment(
        part=part,
        codes=rng.integers(0, most, (pixels, channels), dtype=np.uint8),
        pad_codes=rng.integers(0, most, channels, dtype=np.uint8),
        weights=(2 * rng.integers(0, largest + 1, shape, dtype=np.int16) - largest).astype(np.int8),
        scale=np.ones(layer.out_channels, np.float32),
        offset=np.zeros(layer.out_channels, np.int32),
    )


def layers_are_exact(device: Device, gpu: GpuModel) -> bool:
    """Every part of the layer kernel on a strided, padded convolution whose sums are exact in fp32."""
    kernel = gpu_layer_kernel_for(gpu)
    for part in kernel.parts:
        layer = Conv2dLayer(
            name="exact", batch=2, in_channels=37, out_channels=70, height=9, width=7, kernel=(3, 3), stride=(2, 1),
            padding=(1, 1),
        )  # fmt: skip
        one = random_segment(layer, part, layer.in_channels)
        launch, out = device.layer(kernel, layer, [one], Epilogue(np.zeros(layer.out_channels, np.float32)))
        launch(0)
        images = one.codes.astype(np.int64).reshape(layer.batch, layer.height, layer.width, -1)
        expected = conv2d(images, one.weights.transpose(0, 3, 1, 2), one.pad_codes.astype(np.int64),
                          stride=layer.stride, padding=layer.padding)  # fmt: skip
        if not np.array_equal(device.cupy.asnumpy(out), expected.reshape(layer.rows, -1).astype(np.float32)):
            return False
    return True


def network_row(device: Device, gpu: GpuModel, model: str, batch: int) -> dict[str, Any]:
    """Times of all layers in turn, without packing and what else lies between them; and the estimate of the same."""
    workload, kernel = load_workload(model), gpu_layer_kernel_for(gpu)
    assignment = even_assignment(workload, Palette.parse(PALETTE))
    launches, floats = [], []
    for node in workload.nodes:
        segments = segments_of(workload, node, assignment) if node.layer is not None else None
        if node.layer is None or segments is None:
            continue
        layer = as_convolution(at_batch(node.layer, workload, batch))
        made = [random_segment(layer, part_for(kernel, s.level), s.channels, i) for i, s in enumerate(segments)]
        launches.append(device.layer(kernel, layer, made, Epilogue(np.zeros(layer.out_channels, np.float32)))[0])
        floats.append(device.float_layer(layer))
    estimate = gpu_estimate(gpu, workload, assignment, batch=batch)
    timing = device.time_run(lambda i: [launch(i) for launch in launches], launches=1)
    fp16 = device.time_run(lambda i: [run(i) for run in floats], launches=1)
    per_us = gpu.clock_ghz.value * 1000
    packing = sum(t.cycles for layer in estimate.per_layer for t in layer.terms if t.name == "packing") / per_us
    return {
        "schema_version": 2, "network": model, "batch": batch, "palette": PALETTE, "layers": len(launches),
        "median_us": timing.median_us, "p10_us": timing.p10_us, "p90_us": timing.p90_us, "fp16_us": fp16.median_us,
        "predicted_us": estimate.latency_us - packing, "gpu": device.name,
    }  # fmt: skip
