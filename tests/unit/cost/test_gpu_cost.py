"""The cost model of GPUs: what its terms are by hand, and what must hold whatever the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from soniq_dse.cost.bounds import even_assignment, uniform_assignment
from soniq_dse.cost.gpu import gpu_estimate, gpu_layer_estimate, gpu_level_costs
from soniq_dse.cost.gpu_kernels import GpuCost, float_cost, kernel_cost
from soniq_dse.cost.network import estimate
from soniq_dse.errors import UserError
from soniq_dse.hardware.gpus import gpu_levels
from soniq_dse.hardware.load import load_machine
from soniq_dse.hardware.whatif import what_if
from soniq_dse.kernels.gpu_catalog import gpu_catalog, gpu_kernels_for, gpu_layer_kernel_for
from soniq_dse.kernels.gpu_device import gpu_host
from soniq_dse.kernels.gpu_loops import cuda_source_sha256, kept_gpu_loops
from soniq_dse.records.choice import Choices
from soniq_dse.records.cost import Measurement
from soniq_dse.records.crosscheck import MeasuredLayer, MeasuredLayers
from soniq_dse.records.gpu import GpuKernel, GpuModel
from soniq_dse.records.palette import Level, Palette
from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Segment
from soniq_dse.workloads import load_workload

GPUS = ("a100", "l40s", "h100", "h200", "b200", "rtx_5090")


def gpu(name: str, *settings: str) -> GpuModel:
    found = load_machine(name)
    assert isinstance(found, GpuModel)
    return what_if(found, settings)


def kernel(symbol: str) -> GpuKernel:
    return next(kernel for kernel in gpu_catalog() if kernel.symbol == symbol)


def us(cost: GpuCost, model: GpuModel) -> float:
    return cost.cycles / model.clock_ghz.value / 1000


def test_one_row_waits_for_its_weights_to_come_from_memory() -> None:
    """8192 x 8192 bits are 8.39 MB: 1.95 us at 0.896 of 4800 GB/s. Beyond it: 2 us of launch, 0.273 us to the first
    byte."""
    h200 = gpu("h200")
    cost = kernel_cost(h200, kernel("gemv_u1_z1_s32_8x16x256__sm80_bmma"), 1, 8192, 8192)
    memory_us = 8192 * 8192 / 8 / (4800e9 * 0.896) * 1e6
    assert cost.busy["dram"] / h200.clock_ghz.value / 1000 == pytest.approx(memory_us, rel=1e-6)
    assert us(cost, h200) == pytest.approx(2 + 0.273 + memory_us, rel=1e-6)


def test_a_large_product_waits_for_tensor_units() -> None:
    """8192 x 8192 by tiles of 128 x 256: 2048 blocks on 132 multiprocessors, at most 16 on one, each of 128 x 256 x
    16384 products at 21446 a cycle."""
    h200 = gpu("h200")
    cost = kernel_cost(h200, kernel("gemm_u1_z1_s32_128x256x256__sm80_bmma"), 8192, 8192, 16384)
    assert cost.bound == "tensor"
    assert cost.busy["tensor"] == pytest.approx(16 * 128 * 256 * 16384 / 21446)
    assert cost.macs == 8192 * 8192 * 16384


@pytest.mark.parametrize("name", GPUS)
def test_no_kernel_beats_the_native_operation_or_the_memory(name: str) -> None:
    model = gpu(name)
    best = {(native.level, native.recipe): native.macs_per_cycle for native in gpu_levels(model)}
    memory = model.memory.read_gb_per_s.value / model.clock_ghz.value
    for level in {native.level for native in gpu_levels(model)}:
        for one in gpu_kernels_for(level, model):
            # A kernel of wider operands computes the level at the rate of its own.
            own = Level(weight_bits=one.weight_bits, activation_bits=one.activation_bits)
            peak = best.get((own, one.operation)) or best[level, one.operation]
            for rows, cols, k in ((1, 4096, 4096), (64, 1024, 4096), (1024, 1024, 1024)):
                cost = kernel_cost(model, one, rows, cols, k)
                assert max(cost.busy.values()) >= rows * cols * k / peak * (1 - 1e-9), (one.symbol, rows)
                assert cost.cycles >= cols * k * level.weight_bits / 8 / memory


@pytest.mark.parametrize("name", GPUS)
def test_more_work_never_takes_less(name: str) -> None:
    model = gpu(name)
    for one in gpu_catalog():
        if one.operation in model.operations:
            costs = [kernel_cost(model, one, rows, cols, k).cycles for rows, cols, k in
                     ((1, 256, 512), (8, 256, 512), (8, 1024, 512), (8, 1024, 4096), (512, 1024, 4096))]  # fmt: skip
            assert costs == sorted(costs), one.symbol
    floats = [float_cost(model, rows, 1024, 1024).cycles for rows in (1, 16, 128, 1024, 8192)]
    assert floats == sorted(floats)


def test_an_estimate_names_kernels_and_bounds_and_says_that_nothing_was_measured() -> None:
    workload = load_workload("digits_cnn")
    found = estimate(gpu("h200"), workload, even_assignment(workload, Palette.parse("w1a1+w4a4")))
    assert found.model == "gpu"
    assert not found.calibrated
    assert "not measured" in found.interval
    assert found.low_us < found.latency_us < found.high_us
    assert found.cycles == pytest.approx(sum(layer.cycles for layer in found.per_layer))
    for layer in found.per_layer:
        assert sum(term.cycles for term in layer.terms) == pytest.approx(layer.cycles)
        assert layer.kernels
        assert 0 <= layer.padding_waste < 1
    assert found.bound == max(found.per_layer, key=lambda layer: layer.cycles).bound


def test_a_machine_that_does_not_exist_is_priced_too() -> None:
    workload = load_workload("digits_cnn")
    levels = uniform_assignment(workload, Level(weight_bits=2, activation_bits=2))
    before = gpu_estimate(gpu("h200"), workload, levels).latency_us
    after = gpu_estimate(gpu("h200", "overhead.launch_us=0.5"), workload, levels).latency_us
    launches = sum(term.cycles for layer in gpu_estimate(gpu("h200"), workload, levels).per_layer
                   for term in layer.terms if term.name == "overhead") / 1830 / 2  # fmt: skip
    assert before - after == pytest.approx(1.5 * launches)


@pytest.mark.parametrize("name", GPUS)
def test_every_native_level_has_a_price(name: str) -> None:
    model = gpu(name)
    costs = gpu_level_costs(model, load_workload("digits_cnn"))
    assert [cost.level for cost in costs] == list(dict.fromkeys(native.level for native in gpu_levels(model)))
    assert all(cost.cycles > 0 for cost in costs)


def test_what_a_gpu_does_not_do_is_refused() -> None:
    workload = load_workload("digits_cnn")
    with pytest.raises(UserError, match="threads: expected 1 or more, and 1 on a GPU, got 1 and 2"):
        estimate(gpu("h200"), workload, threads=2)
    with pytest.raises(
        UserError, match=r"expected a field of the descriptor, got 'simd_width_bits'(?!.*simd_width_bits)"
    ):
        gpu("h200", "simd_width_bits=512")
    weight_only = uniform_assignment(workload, Level(weight_bits=4, activation_bits=32))
    with pytest.raises(UserError, match=r"level w4: expected one that h200 computes natively \(w1a1, "):
        estimate(gpu("h200"), workload, weight_only)


def kept_layers(processor: str, times: float, sources: str | None = None) -> MeasuredLayers:
    """Layers whose every measurement is ``times`` the prediction, some a little more and some a little less."""
    h200 = gpu("h200")
    layers = []
    for i in range(60):
        segments = (Segment(weight_bits=1 + i % 2, activation_bits=2, channels=64 * (1 + i)),)
        layer = Conv2dLayer(
            name=f"layer{i}", in_channels=64 * (1 + i), out_channels=64, height=14, width=14, kernel=(3, 3),
            padding=(1, 1), segments=segments,
        )  # fmt: skip
        measured = gpu_layer_estimate(h200, layer).latency_us * times * (1 + 0.001 * (i - 30))
        layers.append(
            MeasuredLayer(
                layer=layer,
                choices=Choices(),
                kernels={"layer_f32__sm80_bmma": sources or cuda_source_sha256("cuda/layer_bmma.cu")},
                measurement=Measurement(median_us=measured, samples=15, settled=True),
            )
        )
    host = gpu_host(processor, "sm_90", 132, 141 * 10**9, {})
    return MeasuredLayers(
        hardware="h200", hardware_sha256="", date="2026-01-01", host=host, compiler="NVRTC 13.0", layers=tuple(layers)
    )


@pytest.mark.parametrize(
    ("processor", "sources", "calibrated"),
    [("NVIDIA H200", None, True), ("NVIDIA H200", "0" * 64, False), ("NVIDIA L40S", None, False)],
    ids=["of-this-gpu", "of-changed-kernels", "of-another-gpu"],
)
def test_intervals_rest_on_kept_layers(
    processor: str, sources: str | None, calibrated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hwmodels" / "measured" / "h200"
    folder.mkdir(parents=True)
    (folder / "layers.json").write_text(kept_layers(processor, 1.25, sources).model_dump_json())
    monkeypatch.chdir(tmp_path)
    segments = (Segment(weight_bits=1, activation_bits=1, channels=4096),)
    layer = GemmLayer(name="a", m=4096, k=4096, n=4096, segments=segments)
    found = gpu_layer_estimate(gpu("h200"), layer)
    assert found.calibrated is calibrated
    assert ("measured on NVIDIA H200 on 2026-01-01" in found.interval) is calibrated
    high, low = found.high_us / found.latency_us, found.low_us / found.latency_us
    assert (low, high) == (1.0, pytest.approx(1.28, abs=0.02)) if calibrated else (0.5, 2.0)
    assert not gpu_layer_estimate(gpu("h200", "overhead.launch_us=1"), layer).calibrated  # a what-if


def test_segments_of_a_layer_share_one_launch_and_a_convolution_has_a_kernel() -> None:
    workload, h200 = load_workload("digits_cnn"), gpu("h200")
    found = gpu_estimate(h200, workload, even_assignment(workload, Palette.parse("w1a1+w2a2+w4a4")))
    launch = h200.overhead.launch_us.value * 1000 * h200.clock_ghz.value
    convolutions = [layer for layer in found.per_layer if layer.op == "conv2d"]
    assert convolutions
    for layer in convolutions:
        launches = 1 + ("pack" in layer.kernels)
        assert next(term.cycles for term in layer.terms if term.name == "overhead") == pytest.approx(launches * launch)
        assert layer.kernels[0] == "layer_f32__sm80_bmma"


def test_every_tap_is_padded_and_reads_its_pixels_again() -> None:
    """9 taps of 100 channels in groups of 256: 2304 products an output; 64 rows of them from the cache a block."""
    h200 = gpu("h200")
    part = gpu_layer_kernel_for(h200).parts[0]
    cost = kernel_cost(h200, part, 64, 64, 900, taps=9, cached=True)
    assert cost.macs == 64 * 64 * 9 * 256
    read = 2 * 64 * 9 * 256 / 8 + 4 * 64 * 64
    assert cost.busy["l2"] == pytest.approx(read / h200.l2.read_bytes_per_cycle.value)


def test_instructions_of_the_kept_loop_count() -> None:
    """A block of 64 x 128 over 8192: 64 * 128 * 8192 / 2048 POPC a warp at a time, with all that stands beside them."""
    h200 = gpu("h200")
    one = kernel("gemm_u1_z1_s32_64x128x256__sm80_csa")
    loop = kept_gpu_loops("sm_90")[one.symbol]
    cost = kernel_cost(h200, one, 64, 128, 8192)
    iterations = 64 * 128 * 8192 / 2048 / loop.work
    assert cost.busy["issue"] == pytest.approx(iterations * loop.instructions / 4)
    assert cost.busy["alu"] == pytest.approx(iterations * loop.alu / 2)
    assert cost.bound == "alu"
