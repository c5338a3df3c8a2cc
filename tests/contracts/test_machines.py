"""What every shipped descriptor of a processor keeps to; a new file in ``hwmodels/`` is tested unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from soniq_dse.cost.choice import Chooser
from soniq_dse.cost.incore import InCore
from soniq_dse.hardware.find import shipped_descriptors
from soniq_dse.hardware.levels import native_levels
from soniq_dse.hardware.load import load_hardware
from soniq_dse.hardware.overview import DescriptorHead, read_head
from soniq_dse.hardware.portmap import RENAMED
from soniq_dse.hardware.render import figures, sheets, source_keys
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Level

MACHINES = tuple(path for path in shipped_descriptors() if isinstance(read_head(path), DescriptorHead))


@pytest.fixture(params=MACHINES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def hw(path: Path) -> HardwareModel:
    return load_hardware(path)


def test_a_wide_a_plain_and_an_arm_machine_are_shipped() -> None:
    assert {"avx512", "avx2", "neon"} <= {path.stem for path in MACHINES}


def test_the_file_name_is_the_name(path: Path, hw: HardwareModel) -> None:
    assert hw.name == path.stem


def test_every_source_resolves_and_is_used(hw: HardwareModel) -> None:
    assert set(source_keys(hw.to_json_value())) == set(hw.sources)


def test_a_measured_figure_says_how_often_it_was_measured_or_names_a_dated_source(hw: HardwareModel) -> None:
    for name, figure in figures(hw):
        assert figure.kind != "measured" or figure.samples or hw.sources[figure.source].year, name


def test_it_has_native_levels_with_reasons_at_listed_widths(hw: HardwareModel) -> None:
    levels = native_levels(hw)
    assert levels
    widths = {simd.width_bits for simd in hw.simd}
    for level in levels:
        assert level.width_bits in widths
        assert level.recipe in hw.recipes
        assert level.macs_per_cycle > 0
        assert level.reason


def test_every_recipe_is_native_at_some_width(hw: HardwareModel) -> None:
    assert set(hw.recipes) == {level.recipe for level in native_levels(hw)}


def test_a_reciprocal_throughput_is_not_below_what_the_ports_allow(hw: HardwareModel) -> None:
    """An instruction whose micro-operations hold c cycles of n ports cannot start more often than every c/n cycles,
    save for moves that renaming does."""
    for mnemonic, instruction in hw.instructions.items():
        if mnemonic in RENAMED:
            continue
        for width, timing in instruction.widths.items():
            bound = max(op.cycles / len(op.ports) for op in timing.micro_ops)
            # 15 % for measured figures: their spread on shared machines.
            assert timing.reciprocal_throughput_cycles.value >= bound * 0.85, (mnemonic, width)


def test_every_native_level_and_fp32_can_be_priced(hw: HardwareModel) -> None:
    """By a kernel that exists or a recipe: a machine without kernels (RISC-V) has estimates all the same."""
    chooser = Chooser(hw, InCore())
    levels = {native.level for native in native_levels(hw)}
    assert Level(weight_bits=8, activation_bits=8) in levels
    for level in levels:
        assert all(kernel.cycles_per_mac > 0 for kernel in chooser.kernels(level))
    assert chooser.fp32().cycles_per_mac > 0


def test_a_hypothetical_instruction_prices_no_kernel_that_exists() -> None:
    """Only its recipe brings it in: kernels keep the price that they have on the machine without it."""
    level = Level(weight_bits=4, activation_bits=4)
    plain, proposed = (Chooser(load_hardware(name), InCore()) for name in ("neon", "sysmol"))
    existing = {k.name: k.cycles_per_mac for k in plain.kernels(level)}
    assert {k.name: k.cycles_per_mac for k in proposed.kernels(level) if k.exists} == existing
    assert proposed.kernels(level)[0].cycles_per_mac < min(existing.values())


def test_the_head_says_what_the_whole_says(path: Path, hw: HardwareModel) -> None:
    head = read_head(path)
    assert {name: getattr(head, name) for name in DescriptorHead.model_fields} == {
        name: getattr(hw, name) for name in DescriptorHead.model_fields
    }


def test_it_can_be_shown(hw: HardwareModel) -> None:
    for sheet in sheets(hw, native_levels(hw)):
        assert sheet.rows
        assert {len(row) for row in sheet.rows} == {len(sheet.columns)}
