"""Energies worked by hand from the figures of a descriptor."""

from __future__ import annotations

import pytest

from soniq_dse.cost.bounds import uniform_assignment
from soniq_dse.cost.choice import Chooser
from soniq_dse.cost.energy import Energy
from soniq_dse.cost.incore import InCore
from soniq_dse.cost.network import estimate
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.cost import HotLoop, LoopInstruction
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Level
from soniq_dse.workloads import load_workload

# avx2.yaml: instruction 27, int8 multiply 0.07, int32 add 0.03, fp32 add 0.38, fp32 multiply 1.31, L1 1.06 a byte (pJ).


@pytest.fixture(scope="module")
def avx2() -> HardwareModel:
    return load_hardware("avx2")


@pytest.fixture(scope="module")
def energy(avx2: HardwareModel) -> Energy:
    found = Energy.of(avx2)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("mnemonic", "width_bits", "picojoules"),
    [
        ("vpaddd", 256, 27 + 8 * 0.03),
        ("vpshufb", 128, 27 + 4 * 0.03),
        ("vpdpbusd", 256, 27 + 8 * (4 * 0.07 + 0.03)),
        ("vpmaddubsw", 256, 27 + 8 * (4 * 0.07 + 0.03)),
        ("vpmaddwd", 256, 27 + 8 * (2 * 4 * 0.07 + 0.03)),  # twice the bits, four times the energy
        ("vpmulld", 256, 27 + 8 * 1.48),
        ("vfmadd231ps", 256, 27 + 8 * (1.31 + 0.38)),
        ("vaddps", 256, 27 + 8 * 0.38),
        ("vmulps", 256, 27 + 8 * 1.31),
        ("mac2", 128, 27 + 4 * (16 * 0.07 / 16 + 0.03)),
        ("load", 256, 27 + 32 * 1.06),
        ("load_broadcast", 256, 27 + 4 * 1.06),
        ("add", 0, 27 + 2 * 0.03),
    ],
)
def test_an_instruction(energy: Energy, mnemonic: str, width_bits: int, picojoules: float) -> None:
    assert energy.instruction(mnemonic, width_bits) == pytest.approx(picojoules)


def test_a_loop_adds_its_memory_operands(energy: Energy) -> None:
    def instruction(mnemonic: str, text: str, *, loads: bool = False) -> LoopInstruction:
        return LoopInstruction(mnemonic=mnemonic, operands=(), width_bits=256, loads=loads, text=text)

    instructions = (
        instruction("vmovdqu", "vmovdqu ymm0,[rax]", loads=True),
        instruction("vpaddd", "vpaddd ymm1,ymm1,ymm0"),
        instruction("vpaddd", "vpaddd ymm1,ymm1,[rax]", loads=True),
        instruction("vpbroadcastd", "vpbroadcastd ymm2,[rax]", loads=True),
    )
    loop = HotLoop(
        symbol="x", compiler="c", flags=(), source_sha256="0", macs_per_iteration=1, instructions=instructions
    )
    assert energy.loop(loop) == pytest.approx(4 * 27 + 2 * 8 * 0.03 + (32 + 32 + 4) * 1.06)


def test_bytes_beyond_the_nearest_cache(energy: Energy) -> None:
    assert energy.traffic([1e9, 10, 100, 1000]) == pytest.approx(10 * 1.75 + 100 * 2.9 + 1000 * 162.5)


def test_without_all_figures_there_is_no_energy(avx2: HardwareModel) -> None:
    lacking = avx2.model_copy(update={"energy": tuple(e for e in avx2.energy if e.operation != "byte_from_L3")})
    assert Energy.of(lacking) is None
    workload = load_workload("digits_cnn")
    found = estimate(lacking, workload)
    assert found.energy_uj is None
    assert all(layer.energy is None for layer in found.per_layer)


def test_an_estimate_is_the_sum_of_its_layers_and_fewer_bits_take_less(avx2: HardwareModel) -> None:
    workload = load_workload("digits_cnn")
    narrow, wide = (
        estimate(avx2, workload, uniform_assignment(workload, Level(weight_bits=bits, activation_bits=bits)))
        for bits in (1, 8)
    )
    fp32 = estimate(avx2, workload)
    terms = [term.energy_uj for layer in wide.per_layer for term in layer.energy or ()]
    assert wide.energy_uj == pytest.approx(sum(terms))
    assert narrow.energy_uj is not None
    assert wide.energy_uj is not None
    assert fp32.energy_uj is not None
    assert narrow.energy_uj < wide.energy_uj < fp32.energy_uj


def test_threads_share_the_work_and_its_energy(avx2: HardwareModel) -> None:
    workload = load_workload("digits_cnn")
    assignment = uniform_assignment(workload, Level(weight_bits=8, activation_bits=8))
    one, two = (estimate(avx2, workload, assignment, threads=n) for n in (1, 2))
    assert one.energy_uj is not None
    assert two.energy_uj is not None
    assert two.energy_uj == pytest.approx(one.energy_uj, rel=0.25)


@pytest.mark.parametrize("machine", ["avx512", "neon", "sysmol"])
def test_every_kernel_of_a_machine_with_figures_has_an_energy(machine: str) -> None:
    chooser = Chooser(load_hardware(machine), InCore())
    for bits in (1, 2, 4, 8):
        kernels = chooser.kernels(Level(weight_bits=bits, activation_bits=bits))
        assert all(kernel.pass_pj and kernel.pass_pj > 0 for kernel in kernels)
