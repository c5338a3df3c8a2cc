"""The kept loops of the CUDA kernels: complete, of the sources as they are, and left out or refused where not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.hardware.load import load_machine
from soniq_dse.kernels.gpu_catalog import gpu_catalog, gpu_layer_kernel_for, part_for
from soniq_dse.kernels.gpu_loops import kept_gpu_loops, loop_name, read_gpu_loops, sass_folder, work_of_block
from soniq_dse.native.nvrtc import cuda_folder
from soniq_dse.records.gpu import GpuModel
from soniq_dse.records.palette import Level

GPUS = ("a100", "l40s", "h200", "b200", "rtx_5090")


def described(name: str) -> GpuModel:
    found = load_machine(name)
    assert isinstance(found, GpuModel)
    return found


@pytest.mark.parametrize("name", GPUS)
def test_every_native_kernel_has_a_loop_of_its_source_as_it_is(name: str) -> None:
    gpu = described(name)
    parts = gpu_layer_kernel_for(gpu).parts
    native = {loop_name(kernel) for kernel in (*gpu_catalog(), *parts) if gpu.operations[kernel.operation].native}
    kept = kept_gpu_loops(gpu.architecture)
    assert set(kept) == native, "keep them again: python -m soniq_dse.kernels.gpu_loops"
    assert all(loop.work <= loop.instructions for loop in kept.values())


def test_a_loop_whose_source_has_changed_is_left_out_and_no_other_text_is_taken(tmp_path: Path) -> None:
    document = json.loads((sass_folder() / "sm_90.json").read_text())
    document["loops"][0]["source_sha256"] = "0" * 64
    (tmp_path / "sm_90.json").write_text(json.dumps(document))
    assert set(kept_gpu_loops("sm_90")) - set(kept_gpu_loops("sm_90", tmp_path)) == {document["loops"][0]["symbol"]}
    assert kept_gpu_loops("sm_75", tmp_path) == {}
    (tmp_path / "sm_80.json").write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match=r"sm_80.json: architecture: expected a GpuLoops record"):
        kept_gpu_loops("sm_80", tmp_path)


def test_work_by_hand() -> None:
    kernels = {kernel.symbol: kernel for kernel in gpu_catalog()}
    assert work_of_block(kernels["gemm_u2_z2_s32_64x128x256__sm80_bmma"], 512) == 4 * (128 // 16) * (64 // 8) * 2
    assert work_of_block(kernels["gemv_u8_z4_s32_1x16x256__sm80_bmma"], 512) == 4 * 2
    assert work_of_block(kernels["gemm_u8_z4_s32_64x128x64__sm80_imma"], 64) == (128 // 16) * (64 // 8) * 2
    assert work_of_block(kernels["gemv_u8_z4_s32_1x16x1024__sm61_dp4a"], 1024) == 16 * 1024 / 4 / 32
    part = part_for(gpu_layer_kernel_for(described("h200")), Level(weight_bits=2, activation_bits=2))
    assert loop_name(part) == "layer_f32__sm80_bmma:u2_z2"
    assert work_of_block(part, 512) == 4 * (64 // 16) * (64 // 8) * 2
    assert kept_gpu_loops("sm_90")[loop_name(part)].work == 16  # of a warp, a step: 2 x 2 tiles of 2 x 2 planes


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["h200", "rtx_5090"])
def test_the_compiler_makes_the_kept_loops(name: str) -> None:
    try:
        cuda_folder()
    except MissingCapabilityError as error:
        pytest.skip(str(error))
    made = read_gpu_loops(described(name))
    assert {loop.symbol: loop for loop in made.loops} == kept_gpu_loops(made.architecture)
