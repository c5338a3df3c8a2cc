"""Every CUDA kernel against the reference, its source run on the CPU: exact, whatever the order of its threads."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_harness import packed_on_device, product

from soniq_dse.errors import UserError
from soniq_dse.hardware.gpus import gpu_levels
from soniq_dse.hardware.load import load_machine
from soniq_dse.kernels.gpu_catalog import gpu_catalog, gpu_kernels_for
from soniq_dse.kernels.gpu_pack import pack_activations, pack_weights, packed_words, padded_steps
from soniq_dse.kernels.reference import raw_gemm
from soniq_dse.records.gpu import GpuKernel, GpuModel

KERNELS = gpu_catalog()
QUANTISED = [kernel for kernel in KERNELS if kernel.act != "f16"]


def operands(
    kernel: GpuKernel, rows: int, cols: int, k: int, *, extreme: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Random codes and weights; ``extreme``: the largest codes and weights of both signs only."""
    rng = np.random.default_rng(rows * 1_000_003 + cols * 1009 + k)
    if kernel.act == "f16":  # of one bit, so that 16-bit floats hold every sum
        assert k <= 4096
        codes, weights = rng.integers(0, 2, (rows, k)), 2 * rng.integers(0, 2, (cols, k)) - 1
        return (codes * 0 + 1 if extreme else codes).astype(np.uint8), weights.astype(np.int8)
    largest = 127 if kernel.wgt == "s8" else 2**kernel.weight_bits - 1
    codes = rng.integers(0, 2**kernel.activation_bits, (rows, k)).astype(np.uint8)
    weights = (
        rng.integers(-largest, largest + 1, (cols, k))
        if kernel.wgt == "s8"
        else 2 * rng.integers(0, largest + 1, (cols, k)) - largest
    )
    if extreme:
        codes[:], weights = 2**kernel.activation_bits - 1, np.where(np.arange(cols)[:, None] % 2, largest, -largest)
        weights = np.broadcast_to(weights, (cols, k))
    return codes, weights.astype(np.int8)


def shapes(kernel: GpuKernel) -> list[tuple[int, int, int]]:
    """(rows, cols, k): one of all; one short of, at and past the edges of a tile and of a group along k."""
    mr, nr, group = kernel.tile[0], kernel.tile[1], kernel.k_group
    edge = 16 if kernel.op == "gemm" else nr
    return [(1, 1, 1), (max(1, mr - 1), edge + 1, group), (min(mr + 1, 20), edge - 1, group + 3)]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.symbol)
def test_a_kernel_equals_the_reference_at_every_edge(kernel: GpuKernel) -> None:
    for rows, cols, k in shapes(kernel):
        codes, weights = operands(kernel, rows, cols, k)
        np.testing.assert_array_equal(product(kernel, codes, weights), raw_gemm("u8", codes, weights))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.symbol)
def test_the_result_does_not_depend_on_the_order_of_threads(kernel: GpuKernel) -> None:
    """Long enough that every stage of a pipeline is used again."""
    rows, cols, k = min(kernel.tile[0], 9), 17, 5 * kernel.k_group + 1
    codes, weights = operands(kernel, rows, cols, k, extreme=True)
    expected = raw_gemm("u8", codes, weights)
    for seed in (1, 2):
        np.testing.assert_array_equal(product(kernel, codes, weights, seed), expected)


@pytest.mark.parametrize("kernel", QUANTISED, ids=lambda kernel: kernel.symbol)
def test_activations_are_quantised_and_packed_on_the_device_as_in_numpy(kernel: GpuKernel) -> None:
    """Ties to even, both ends of the range, padding along k; eight rows fill every tile."""
    largest, k = 2**kernel.activation_bits - 1, kernel.k_group + 33
    x = np.random.default_rng(1).uniform(-0.3 * largest, 0.8 * largest, (8, k)).astype(np.float32)
    x[:, :4] = (0.25, 0.75, -1e30, 1e30)
    codes = np.clip(np.rint(x * np.float32(2) + np.float32(1)), 0, largest).astype(np.uint8)
    expected, expected_sums = pack_activations(kernel, codes)
    packed, sums = packed_on_device(kernel, x, 2.0, 1.0, seed=3)
    np.testing.assert_array_equal(sums, expected_sums)
    np.testing.assert_array_equal(packed, expected)


@pytest.mark.parametrize("kernel", QUANTISED, ids=lambda kernel: kernel.symbol)
def test_no_accumulator_overflows_up_to_the_kernels_limit(kernel: GpuKernel) -> None:
    largest_w = 127 if kernel.wgt == "s8" else 2**kernel.weight_bits - 1
    limit = (2**31 - 1) // (largest_w * (2**kernel.activation_bits - 1))
    if kernel.algorithm == "dp4a" and kernel.wgt != "s8":  # fields keep their place in the byte until the end
        bits = kernel.weight_bits
        limit = min(limit, (2**32 - 1) * 8 // (bits * largest_w * 2 ** (8 - bits) * 255))
    assert limit - kernel.k_group < kernel.k_max <= limit
    assert kernel.k_max % kernel.k_group == 0


def test_sizes_of_packed_operands_are_known_beforehand() -> None:
    for kernel in KERNELS:
        for rows, cols, k in ((1, 1, 1), (9, 17, kernel.k_group + 1)):
            codes, weights = operands(kernel, rows, cols, k)
            sizes = pack_weights(kernel, weights).size, pack_activations(kernel, codes)[0].size
            assert packed_words(kernel, rows, cols, k) == sizes, kernel.symbol


def test_the_catalog_serves_the_levels_of_the_mission() -> None:
    pairs = {(kernel.op, kernel.wgt, kernel.act) for kernel in KERNELS}
    assert {("gemv", "z1", "u1"), ("gemv", "z2", "u2"), ("gemv", "z4", "u4"), ("gemv", "s8", "u8")} <= pairs
    assert {("gemm", "z1", "u1"), ("gemm", "z2", "u2"), ("gemm", "z4", "u8"), ("gemm", "s8", "u8")} <= pairs


@pytest.mark.parametrize("name", ["h200", "rtx_5090"])
def test_no_kernel_uses_what_a_gpu_only_emulates(name: str) -> None:
    gpu = load_machine(name)
    assert isinstance(gpu, GpuModel)
    serving = [kernel for native in gpu_levels(gpu) for kernel in gpu_kernels_for(native.level, gpu)]
    assert {kernel.algorithm for kernel in serving} == {"imma", "dp4a", "popc", "csa"} | (
        {"bmma"} if name == "h200" else set()
    )


def test_the_float_baseline_rounds_as_16_bit_floats_do() -> None:
    """Even k: 2048 + 1 is 2048, a tie going to even; odd k: sixteen ones. It serves no level."""
    kernel = next(kernel for kernel in KERNELS if kernel.act == "f16")
    codes, weights = np.ones((1, 32), np.uint8), np.tile(np.array([0, 1], np.int8), (1, 16))
    codes[0, 0], weights[0, 0], weights[0, 4] = 128, 16, 1
    assert product(kernel, codes, weights)[0, 0] == 2048 + 16
    h200 = load_machine("h200")
    assert isinstance(h200, GpuModel)
    assert kernel not in [k for native in gpu_levels(h200) for k in gpu_kernels_for(native.level, h200)]


def test_what_a_format_does_not_have_is_refused() -> None:
    kernel = next(kernel for kernel in KERNELS if kernel.symbol == "gemv_u2_z2_s32_4x16x256__sm80_bmma")
    with pytest.raises(UserError, match=r"weights: expected odd integers within \+-3"):
        pack_weights(kernel, np.array([[2, 1]], np.int8))
    with pytest.raises(UserError, match="codes: expected below 4, got 4"):
        pack_activations(kernel, np.array([[4]], np.uint8))
    with pytest.raises(UserError, match="padded k: expected 1"):
        padded_steps(kernel, kernel.k_max + 1)
