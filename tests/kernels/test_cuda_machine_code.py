"""What the assembler makes of the CUDA kernels, for every architecture described; no GPU is needed."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.hardware.find import shipped_descriptors
from soniq_dse.hardware.load import load_machine
from soniq_dse.kernels.gpu_catalog import CUDA_FOLDER, gpu_catalog, gpu_layer_kernel_for
from soniq_dse.native.nvrtc import build_cubin, cuda_folder, mnemonics, resources
from soniq_dse.records.gpu import GpuModel

GPUS = [machine for path in shipped_descriptors() if isinstance(machine := load_machine(path), GpuModel)]
ARCHITECTURES = sorted({gpu.architecture for gpu in GPUS})
SOURCES = sorted({kernel.path for kernel in gpu_catalog()})
REGISTERS, SHARED_BYTES = 65536, 48 << 10
"""Of a multiprocessor, and of a block that asks for no more than every GPU grants."""
PIPE = {
    "bmma": "BMMA.168256.AND.POPC",
    "imma": "IMMA.16832",
    "imma4": "IMMA.16864",
    "dp4a": "IDP.4A",
    "popc": "POPC",
    "csa": "POPC",
    "hfma2": "HFMA2",
}
"""By algorithm: the instruction that does the work."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    try:
        cuda_folder()
    except MissingCapabilityError as error:
        if os.environ.get("SONIQ_DSE_TESTS_REQUIRE") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


def cubin(source: str, architecture: str) -> Path:
    return build_cubin(CUDA_FOLDER / Path(source).name, architecture)


code = functools.lru_cache(mnemonics)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: Path(path).stem)
def test_every_kernel_fits_and_nothing_spills(source: str, architecture: str) -> None:
    found = resources(cubin(source, architecture))
    kernels = [kernel for kernel in gpu_catalog() if kernel.path == source]
    assert set(found) >= {kernel.symbol for kernel in kernels}
    for kernel in kernels:
        used = found[kernel.symbol]
        emulated = not any(g.operations[kernel.operation].native for g in GPUS if g.architecture == architecture)
        assert used["local_bytes"] == 0 or emulated, kernel.symbol
        assert used["registers"] * kernel.threads <= REGISTERS, kernel.symbol
        assert used["shared_bytes"] <= SHARED_BYTES + 1024, kernel.symbol  # 1 KiB is the system's


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: Path(path).stem)
def test_work_is_done_by_the_instruction_that_a_descriptor_calls_native(source: str, gpu: GpuModel) -> None:
    """And not where it says that the operation is emulated."""
    found = code(cubin(source, gpu.architecture))
    for kernel in gpu_catalog():
        if kernel.path == source:
            native = any(name.startswith(PIPE[kernel.algorithm]) for name in found[kernel.symbol])
            assert native == gpu.operations[kernel.operation].native, kernel.symbol


def test_weights_are_read_16_bytes_at_a_time() -> None:
    for kernel in gpu_catalog():
        names = [name.split(".") for name in code(cubin(kernel.path, "sm_90"))[kernel.symbol]]
        load = "LDGSTS" if kernel.op == "gemm" else "LDG"
        assert any(name[0] == load and "128" in name for name in names), kernel.symbol


@pytest.mark.parametrize("gpu", [gpu for gpu in GPUS if gpu.name in ("h200", "rtx_5090")], ids=lambda gpu: gpu.name)
def test_the_layer_kernel_fits_and_does_its_work_by_every_native_instruction(gpu: GpuModel) -> None:
    kernel = gpu_layer_kernel_for(gpu)
    file = cubin(kernel.path, gpu.architecture)
    used = resources(file)[kernel.symbol]
    assert used["local_bytes"] == 0
    assert used["registers"] * kernel.threads <= REGISTERS
    assert used["shared_bytes"] <= SHARED_BYTES
    for algorithm in {part.algorithm for part in kernel.parts}:
        assert any(name.startswith(PIPE[algorithm]) for name in code(file)[kernel.symbol])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_vector_units_are_compared_at_their_best(architecture: str) -> None:
    """Of 32 x 4 words a step: two LOP3 each and half a POPC, in a kernel with room for two blocks; and of 128 x 8 pairs
    of floats an HFMA2 each, which on sm_80 and sm_90 take turns between two units."""
    for kernel in gpu_catalog():
        names = code(cubin(kernel.path, architecture))[kernel.symbol]
        if kernel.algorithm == "csa":
            finishing, words = 32, 32 * 8
            assert names.count("POPC") == words // 2 + finishing
            assert sum(name.startswith("LOP3") for name in names) <= 2 * words + 2 * finishing
            assert resources(cubin(kernel.path, architecture))[kernel.symbol]["registers"] <= REGISTERS // 2 // 256
        if kernel.algorithm == "hfma2":
            plain, other = names.count("HFMA2"), names.count("HFMA2.MMA")
            assert plain + other >= 1024
            assert plain + other <= 1024 * 1.2
            assert other == 0 or plain >= 512


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packing_neither_spills_nor_divides(architecture: str) -> None:
    file = cubin("quant_pack.cu", architecture)
    assert all(used["local_bytes"] == 0 for used in resources(file).values())
    for symbol, names in code(file).items():
        assert not any(name.startswith("MUFU") for name in names), symbol


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_stands_between_layers_does_not_spill(architecture: str) -> None:
    assert all(used["local_bytes"] == 0 for used in resources(cubin("network.cu", architecture)).values())


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_ceilings_are_loops_of_the_operation_that_they_are_named_for(gpu: GpuModel) -> None:
    """Four iterations of eight, none of which the assembler does away with."""
    found = code(cubin("ceilings.cu", gpu.architecture))
    names = {"bmma_and": PIPE["bmma"], "imma_s8": PIPE["imma"], "imma_s4": PIPE["imma4"], "dp4a": PIPE["dp4a"]}
    names |= {"popc": "POPC", "lop3": "LOP3", "hfma2": "HFMA2"}
    for symbol, mnemonics_of in found.items():
        name = symbol.removeprefix("ceiling_").split("__")[0]
        operation = gpu.operations.get(name)
        if name in names and (operation is None or operation.native):
            assert sum(one.startswith(names[name]) for one in mnemonics_of) >= 32, symbol


def test_a_source_that_does_not_compile_is_refused_with_what_the_compiler_said(tmp_path: Path) -> None:
    (tmp_path / "wrong.cu").write_text('extern "C" __global__ void f() { nonsense; }\n')
    with pytest.raises(UserError, match=r"wrong.cu: expected NVRTC to compile it[^\n]*\n.*nonsense"):
        build_cubin(tmp_path / "wrong.cu", "sm_90")
    (tmp_path / "wrong.cubin").write_bytes(b"no code")
    with pytest.raises(UserError, match="expected a cubin"):
        mnemonics(tmp_path / "wrong.cubin")
