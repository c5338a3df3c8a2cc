"""Reports as a run would give them, made up: what the tests of ``report`` build their pages from."""

from __future__ import annotations

import math
import random

from soniq_dse import pareto
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.cost import (
    Agreement,
    CostTerm,
    Estimate,
    Host,
    LayerEstimate,
    Measurement,
    Timeline,
    TimelineRow,
)
from soniq_dse.records.design import Assignment, EpochRecord
from soniq_dse.records.front import (
    DesignDetail,
    DesignPoint,
    Objective,
    ParetoFront,
    Report,
    SearchStep,
    SkippedDesign,
    TaskInfo,
    TextSample,
    WhatIf,
)
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Node, TensorClass, Unsupported, Workload

PALETTES = ("w1a1", "w2a2", "w4a4", "w1a1+w2a2", "w1a1+w4a4", "w2a4+w4a4", "w1a1+w2a2+w4a4")
CHANNELS = {"input": 1, "body1": 32, "body2": 64, "features": 64}
LAYERS = {
    "conv1": ("input", 9 * 32),
    "conv2": ("body1", 9 * 32 * 64),
    "conv3": ("body2", 9 * 64 * 64),
    "fc": ("features", 640),
}
NETWORK_US = 24.0
"""Latency of the made-up INT8 network."""


def toy_workload() -> Workload:
    """Three convolutions and a classifier on 8 x 8 pixels."""
    shapes = {"conv1": (1, 32, 8), "conv2": (32, 64, 8), "conv3": (64, 64, 4)}
    nodes = [Node(name="input", op="input", inputs=(), shape=(1, 1, 8, 8))]
    for name, (n_in, n_out, size) in shapes.items():
        layer = Conv2dLayer(
            name=name, in_channels=n_in, out_channels=n_out, height=size, width=size, kernel=(3, 3), padding=(1, 1)
        )
        nodes.append(Node(name=name, op="conv2d", inputs=(nodes[-1].name,), shape=(1, n_out, size, size), layer=layer))
    fc = GemmLayer(name="fc", m=1, n=10, k=64)
    nodes.append(Node(name="fc", op="linear", inputs=("conv3",), shape=(1, 10), layer=fc))
    classes = tuple(
        TensorClass(
            name=name,
            tensors=(name,),
            channels=channels,
            nonnegative=name != "input",
            consumers=tuple(layer for layer, (read, _) in LAYERS.items() if read == name),
            pinned_bits=8 if name in ("input", "features") else None,
        )
        for name, channels in CHANNELS.items()
    )
    unsupported = (Unsupported(node="softmax", op="softmax", reason="it follows the last layer"),)
    return Workload(
        name="digits_cnn", input_shape=(1, 1, 8, 8), nodes=tuple(nodes), tensor_classes=classes, unsupported=unsupported
    )


def toy_host() -> Host:
    """A host that nobody has."""
    return Host(
        processor="Toy processor 9000",
        vendor="GenuineToy",
        family=6,
        model=173,
        stepping=1,
        features=("avx2", "avx512f", "avx512_vpopcntdq"),
        cores=2,
        memory_bytes=8 * 2**30,
        system="Linux 6.1",
        python="3.11.2",
        versions={"torch": "2.13.0", "numpy": "2.3.1"},
    )


def toy_report(
    n_designs: int = 14,
    *,
    n_seeds: int = 3,
    measured: bool = True,
    references: bool = True,
    title: str = "digits_cnn on a toy machine",
    names: dict[int, str] | None = None,
) -> Report:
    """``n_designs`` designs over seven palettes, ``names`` overriding some; equal arguments give equal reports."""
    rng = random.Random(7)
    rows = [_design(index, rng, n_seeds, measured, (names or {}).get(index)) for index in range(n_designs)]
    if references:
        rows += [_reference("fp32", 98.1, 70.0, measured), _reference("int8", 97.9, NETWORK_US, measured)]
    points = _with_dominance([point for point, _ in rows], measured)
    latency = "latency_measured_us" if measured else "latency_predicted_us"
    return Report(
        title=title,
        created="2025-01-31T12:00:00+00:00",
        command="soniq-dse explore --hw toy --model digits_cnn",
        hardware="toy",
        hardware_title="Toy machine with 512-bit vectors",
        hardware_matches_host=measured,
        front=ParetoFront(
            host=toy_host(),
            task=TaskInfo(
                model="digits_cnn",
                data="digits",
                metric="accuracy",
                metric_unit="%",
                direction="max",
                n_train=1200,
                n_val=237,
                n_test=360,
            ),
            objectives=(
                Objective(field="metric_val", label="accuracy", unit="%", direction="max"),
                Objective(field=latency, label="latency", unit="µs", direction="min"),
            ),
            points=points,
        ),
        details=tuple(detail for _, detail in rows),
        skipped=(SkippedDesign(name="w4@1.0-soniq", reason="its lowest bound, 31 µs, is slower than INT8"),),
        workload=toy_workload(),
        notes=() if measured else ("Nothing was measured: this host is not the machine described.",),
        hypervolume=311.25 if n_designs else None,
        search=_search(points),
        machine=load_hardware("avx2"),
        timelines=(
            Timeline(
                symbol="gemm_u2_z2__toy",
                n_per_pass=1,
                rows=(
                    TimelineRow(
                        text="vpaddd ymm0, ymm1",
                        dispatched=0,
                        ready=2,
                        issued=3,
                        done=4,
                        retired=6,
                        port="fp0",
                        waited="operands 1",
                    ),
                ),
            ),
        )
        if measured
        else (),
        what_if=(
            WhatIf(
                label="one more vector pipe",
                settings=("ports.vector=5",),
                latency_ratio={p.id: 0.5 + 0.01 * i for i, p in enumerate(points)},
            ),
            WhatIf(label="memory.latency_ns=80", settings=("memory.latency_ns=80",), latency_ratio={}),
        ),
    )


def _search(points: tuple[DesignPoint, ...]) -> tuple[SearchStep, ...]:
    """Steps to 311.25, of which every third moves the front."""
    ids = [point.id for point in points if point.role == "design"]
    last = (len(ids) - 1) // 3 or 1
    return tuple(
        SearchStep(
            id=identity, epochs=12 * (i + 1), hypervolume=311.25 * (1 - 0.5 ** (i // 3 + 1)) / (1 - 0.5 ** (last + 1))
        )
        for i, identity in enumerate(ids)
    )


def _with_dominance(points: list[DesignPoint], measured: bool) -> tuple[DesignPoint, ...]:
    designs = [point for point in points if point.role == "design"]
    values = [(p.metric_val, p.latency_measured_us if measured else p.latency_predicted_us) for p in designs]
    flags = pareto.dominated(values, ("max", "min")) if designs else []
    marked = [point.model_copy(update={"dominated": flag}) for point, flag in zip(designs, flags, strict=True)]
    return (*marked, *(point for point in points if point.role != "design"))


def _design(
    index: int, rng: random.Random, n_seeds: int, measured: bool, name: str | None
) -> tuple[DesignPoint, DesignDetail]:
    palette = Palette.parse(PALETTES[index % len(PALETTES)])
    assignments = tuple(_assignment(palette, rng) for _ in range(n_seeds))
    bits = assignments[0].bits_per_weight
    full_name = name or f"{palette.name}@{bits:.1f}-soniq-{index}"
    accuracy = 98.2 - 9.0 * math.exp(-1.1 * bits) - 0.4 * rng.random()
    estimate = _estimate(NETWORK_US * (0.1 + bits / 8) * rng.uniform(0.9, 1.1), assignments[0])
    measurement = (
        _measurement(estimate, rng) if measured else Measurement(skipped="this host is not the machine described")
    )
    point = _point(f"d{index:04d}", full_name, palette.name, accuracy, estimate, measurement).model_copy(
        update={
            "bits_per_weight": bits,
            "metric_se": 0.1 + 0.4 * rng.random() if n_seeds > 1 else None,
            "n_seeds": n_seeds,
            "size_bytes": int(60_000 * bits / 8),
        }
    )
    detail = DesignDetail(
        id=point.id,
        command=f"soniq-dse run '{full_name}' --hw toy",
        assignments=assignments,
        estimate=estimate,
        measurement=measurement,
        agreement=_agreement(point),
        metric_fake_quant_val=accuracy,
        epochs=tuple(epoch for _ in range(n_seeds) for epoch in _epochs(accuracy, rng)),
        seconds=4.5,
        samples=(TextSample(source="A dog runs.", reference="Ein Hund rennt.", output=f"Ein {full_name} läuft."),),
        confusion=tuple(tuple(34 if i == j else int(rng.random() < 0.02) for j in range(10)) for i in range(10)),
    )
    return point, detail


def _reference(role: str, accuracy: float, latency_us: float, measured: bool) -> tuple[DesignPoint, DesignDetail]:
    rng = random.Random(role)
    assignment = _assignment(Palette.parse("w8a8"), rng)
    estimate = _estimate(latency_us, assignment)
    measurement = (
        _measurement(estimate, rng) if measured else Measurement(skipped="this host is not the machine described")
    )
    point = _point(role, role.upper(), "fp32" if role == "fp32" else "w8a8", accuracy, estimate, measurement)
    point = point.model_copy(update={"role": role, "size_bytes": 240_000 if role == "fp32" else 60_000})
    detail = DesignDetail(
        id=role,
        command=f"soniq-dse explore --hw toy --only {role}",
        estimate=estimate,
        measurement=measurement,
        agreement=_agreement(point),
    )
    return point, detail


def _point(
    identity: str, name: str, palette: str, accuracy: float, estimate: Estimate, measurement: Measurement
) -> DesignPoint:
    return DesignPoint(
        id=identity,
        name=name,
        palette=palette,
        bits_per_weight=8.0,
        metric_val=accuracy,
        metric_test=accuracy - 0.4,
        metric_se=None,
        n_seeds=1,
        latency_predicted_us=estimate.latency_us,
        latency_low_us=estimate.low_us,
        latency_high_us=estimate.high_us,
        latency_measured_us=measurement.median_us,
        batch=1,
        threads=1,
        size_bytes=60_000,
        dominated=False,
    )


def _agreement(point: DesignPoint) -> Agreement | None:
    measured, predicted = point.latency_measured_us, point.latency_predicted_us
    if not measured or not predicted:
        return None
    within = (point.latency_low_us or 0.0) <= measured <= (point.latency_high_us or 0.0)
    return Agreement(
        ratio=predicted / measured,
        within=within,
        reason="within the interval" if within else "packing costs more than the model says",
    )


def _assignment(palette: Palette, rng: random.Random) -> Assignment:
    pinned = {name: Palette.parse("w8a8") for name in ("input", "features")}
    levels = {name: (0,) * n for name, n in CHANNELS.items() if name in pinned}
    share = rng.uniform(0.1, 0.9)
    for name, channels in CHANNELS.items():
        if name not in pinned:
            last = len(palette.levels) - 1
            levels[name] = tuple(rng.randint(0, last) if rng.random() < share else 0 for _ in range(channels))
    weights = {name: sum(n for read, n in LAYERS.values() if read == name) / CHANNELS[name] for name in levels}
    bits = {
        name: [palette.levels[level].weight_bits for level in levels[name]] for name in levels if name not in pinned
    }
    total = sum(sum(found) * weights[name] for name, found in bits.items())
    return Assignment(
        palette=palette,
        level_of_channel=levels,
        pinned=pinned,
        bits_per_weight=total / sum(len(found) * weights[name] for name, found in bits.items()),
        bits_per_weight_all=total / sum(n for _, n in LAYERS.values()),
    )


def _estimate(latency_us: float, assignment: Assignment) -> Estimate:
    total = sum(macs for _, macs in LAYERS.values())
    layers = []
    for name, (read, macs) in LAYERS.items():
        part = latency_us * (0.05 + 0.8 * macs / total)
        shares = {"compute": 0.6, "memory": 0.1, "packing": 0.15, "epilogue": 0.1, "overhead": 0.05}
        layers.append(
            LayerEstimate(
                name=name,
                op="linear" if name == "fc" else "conv2d",
                cycles=part * 2600,
                latency_us=part,
                bound="overhead" if name == "fc" else "port",
                kernels=tuple(f"gemm_u{s.activation_bits}_z{s.weight_bits}__toy" for s in assignment.segments(read)),
                terms=tuple(CostTerm(name=term, cycles=part * 2600 * share) for term, share in shares.items()),
                macs=macs,
                padding_waste=0.86 if name == "conv1" else 0.04,
            )
        )
    return Estimate(
        hardware="toy",
        hardware_sha256="0" * 64,
        cycles=latency_us * 2600,
        latency_us=latency_us,
        low_us=latency_us * 0.85,
        high_us=latency_us * 1.2,
        bound="port",
        batch=1,
        threads=1,
        per_layer=tuple(layers),
        model="ports",
        interval="made up: -15 % to +20 %",
    )


def _measurement(estimate: Estimate, rng: random.Random) -> Measurement:
    factor = rng.uniform(0.8, 1.3)
    return Measurement(
        median_us=estimate.latency_us * factor,
        mad_us=estimate.latency_us * 0.02,
        samples=30,
        settled=True,
        per_layer_us={layer.name: layer.latency_us * factor * rng.uniform(0.8, 1.2) for layer in estimate.per_layer},
        host=toy_host(),
        compiler="g++ 12.2",
        flags=("-O3",),
    )


def _epochs(accuracy: float, rng: random.Random) -> list[EpochRecord]:
    phases = [("noise", epoch) for epoch in range(1, 5)] + [("finetune", epoch) for epoch in range(1, 9)]
    return [
        EpochRecord(
            phase=phase,  # type: ignore[arg-type]
            epoch=epoch,
            loss=2.0 * math.exp(-0.35 * step) + 0.05 * rng.random(),
            metric_val=accuracy - 30 * math.exp(-0.5 * step),
        )
        for step, (phase, epoch) in enumerate(phases)
    ]
