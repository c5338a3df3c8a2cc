"""Cost of a training step in both phases, in time and memory, over the eager FP32 step; brevitas beside it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._frame import Goal, Result, main
from benchmarks._interleave import sampler
from soniq_dse.qat.apply import quantize_model
from soniq_dse.qat.soft_assignment import SoftAssignment
from soniq_dse.qat.training import optimizer_for
from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.palette import Palette
from soniq_dse.workloads.models.blocks import plain_cnn
from soniq_dse.workloads.models.resnet20 import Resnet20
from soniq_dse.workloads.trace import trace

MOST = 1.3
PALETTE, BUDGET_BITS, PEER_BITS = Palette.parse("w2a2+w4a4"), 2.5, 4
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "cnn 32-64-64-128": (lambda: plain_cnn(3, ((32,), (64, 64), (128,)), image_size=32, n_classes=10), 32),
    "resnet20": (lambda: Resnet20().build(), 64),
}
"""Name -> (build, batch); inputs are 3x32x32."""
SMALL = "cnn 8-8"
WAYS = ("fp32", "noise", "finetune", "brevitas")

Step = Callable[[], None]


def step_of(network: str, way: str) -> Step:
    """One training step of ``network``: forward, backward and optimizer, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = (lambda: plain_cnn(3, ((8,), (8,)), image_size=32, n_classes=10), 2)
    build, batch = NETWORKS.get(network, small)
    model, inputs, targets = build(), torch.rand(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    if way == "brevitas":
        model = brevitas_twin(model)
    if way in ("fp32", "brevitas"):
        return _step(model, optimizer_for(list(model.parameters()), 1e-3, []), inputs, targets, None)
    workload = trace(model, inputs[:1], name=network, input_nonnegative=True)
    schedule = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)
    candidate = Candidate(
        model=network, data="random", data_sha256="", palette=PALETTE, budget_bits=BUDGET_BITS, schedule=schedule
    )
    quantized = quantize_model(model, workload, candidate)
    quantized.calibrate(inputs)
    soft = SoftAssignment(quantized) if way == "noise" else None
    if soft is None:
        quantized.harden({c.name: tuple(i % 2 for i in range(c.channels)) for c in quantized.problem.classes})
        quantized.set_phase("finetune")
    optimizer = optimizer_for(quantized.model_parameters(), 1e-3, quantized.log_steps())
    return _step(model, optimizer, inputs, targets, soft)


def _step(
    model: nn.Module, optimizer: Any, inputs: torch.Tensor, targets: torch.Tensor, soft: SoftAssignment | None
) -> Step:
    model.train()

    def step() -> None:
        if soft is not None:
            soft.before_step(0.5)
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if soft is not None:
            soft.after_backward()
        optimizer.step()

    return step


def brevitas_twin(model: nn.Module) -> nn.Module:
    """``model`` in Brevitas's layers: 4-bit weights and activations, 8 bits for the classifier's weights."""
    import brevitas.nn as qnn

    for name, child in model.named_children():
        if isinstance(child, nn.Conv2d):
            made = qnn.QuantConv2d(
                child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding,
                bias=False, weight_bit_width=PEER_BITS,
            )  # fmt: skip
        elif isinstance(child, nn.ReLU):
            made = qnn.QuantReLU(bit_width=PEER_BITS)
        elif isinstance(child, nn.Linear):
            made = qnn.QuantLinear(child.in_features, child.out_features, bias=True, weight_bit_width=8)
        else:
            made = brevitas_twin(child)
        setattr(model, name, made)
    return model


def peak_bytes(network: str, way: str) -> int:
    """Most memory that steps take beyond what the process had before the model was built, in a process of its own.

    Linux's high-water mark of resident memory, with every large tensor in pages of its own.
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "benchmarks.training_step", "--peak", network, way]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout)


def _measure_peak(network: str, way: str) -> int:
    """In the process of its own, after a small network has loaded what libraries load once."""
    step_of(SMALL, way)()
    before = _resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    step = step_of(network, way)
    for _ in range(2):
        step()
    return _resident_bytes("VmHWM") - before


def _resident_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"/proc/self/status: expected a line {field}, got none")


def measure(quick: bool) -> Result:
    """Every way in turn, several rounds; a quick run leaves memory out."""
    rows, goals = [], []
    for index, network in enumerate(NETWORKS):
        steps = {way: sampler(step_of(network, way), 1e-3) for way in WAYS}
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(3 if quick else 5):
            for way, sample in steps.items():
                seconds[way].append(sample())
        peaks = {} if quick else {way: peak_bytes(network, way) for way in WAYS}
        for way in WAYS:
            ratios = [s / f for s, f in zip(seconds[way], seconds["fp32"], strict=True)]
            ratio = statistics.median(ratios)
            rows.append(
                {
                    "network": network,
                    "way": way,
                    "step_ms": 1e3 * statistics.median(seconds[way]),
                    "time_ratio": ratio,
                    "time_ratio_mad": statistics.median(abs(r - ratio) for r in ratios),
                    "memory_mib": peaks[way] / 2**20 if peaks else None,
                    "memory_ratio": peaks[way] / peaks["fp32"] if peaks else None,
                }
            )
            if way in ("noise", "finetune"):
                for kind in ("time", "memory"):
                    name = f"{kind} of a {way} step over FP32, {network}"
                    number = f"Q5.{kind[0]}{index + 1}{way[0]}"
                    goals.append(Goal(number, name, "x", rows[-1][f"{kind}_ratio"], at_most=MOST))
    return Result(goals, rows, (NOTE,))


NOTE = (
    f"Palette {PALETTE.name} at {BUDGET_BITS:g} bits, one thread; brevitas with {PEER_BITS}-bit weights and "
    "activations. `time_ratio`: median over rounds of (step / FP32 step of the same round), thread CPU time. "
    "`memory_mib`: most resident memory of two steps beyond the process without the network."
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        sys.stdout.write(f"{_measure_peak(*sys.argv[2:])}\n")
    else:
        main("training_step", "Cost of a training step", measure)
