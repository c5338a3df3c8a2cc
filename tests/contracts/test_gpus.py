"""What every shipped descriptor of a GPU keeps to; a new file in ``hwmodels/`` is tested unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from soniq_dse.errors import UserError
from soniq_dse.hardware.find import shipped_descriptors
from soniq_dse.hardware.gpus import detected_gpus, gpu_figures, gpu_levels, gpu_sheets, match_gpu
from soniq_dse.hardware.load import load_hardware, load_machine
from soniq_dse.hardware.overview import GpuHead, read_head
from soniq_dse.hardware.render import source_keys
from soniq_dse.records.gpu import GpuModel

GPUS = tuple(path for path in shipped_descriptors() if isinstance(read_head(path), GpuHead))


@pytest.fixture(params=GPUS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def gpu(path: Path) -> GpuModel:
    found = load_machine(path)
    assert isinstance(found, GpuModel)
    return found


def test_five_architectures_are_shipped() -> None:
    found = {load_machine(path).architecture for path in GPUS}  # type: ignore[union-attr]
    assert {"sm_80", "sm_89", "sm_90", "sm_100", "sm_120"} <= found


def test_the_file_name_is_the_name_and_the_head_says_what_the_whole_says(path: Path, gpu: GpuModel) -> None:
    assert gpu.name == path.stem
    head = read_head(path)
    assert {name: getattr(head, name) for name in GpuHead.model_fields} == {
        name: getattr(gpu, name) for name in GpuHead.model_fields
    }


def test_every_source_resolves_and_is_used(gpu: GpuModel) -> None:
    assert set(source_keys(gpu.to_json_value())) == set(gpu.sources)


def test_a_measured_figure_names_a_dated_source(gpu: GpuModel) -> None:
    for name, figure in gpu_figures(gpu):
        assert figure.kind != "measured" or gpu.sources[figure.source].year, name


def test_levels_come_from_native_operations_alone(gpu: GpuModel) -> None:
    levels = gpu_levels(gpu)
    assert {"w1a1", "w2a2", "w4a4", "w8a8"} <= {level.level.name for level in levels}
    for level in levels:
        operation = gpu.operations[level.recipe]
        assert operation.native
        assert 0 < level.macs_per_cycle <= operation.macs_per_cycle.value * gpu.multiprocessors.value


def test_16_bit_floats_are_there_to_be_compared_with(gpu: GpuModel) -> None:
    assert {(o.unit, o.native) for o in gpu.operations.values() if o.operand_bits == 16} == {
        ("tensor", True),
        ("vector", True),
    }


def test_it_can_be_shown(gpu: GpuModel) -> None:
    for sheet in gpu_sheets(gpu, gpu_levels(gpu)):
        assert sheet.rows
        assert {len(row) for row in sheet.rows} == {len(sheet.columns)}


def test_one_bit_is_native_up_to_hopper_and_not_after() -> None:
    """mma b1 .and.popc is one instruction on sm_80 to sm_90 and emulated from sm_100 on."""
    native = {}
    for path in GPUS:
        gpu = load_machine(path)
        assert isinstance(gpu, GpuModel)
        native[gpu.architecture] = any(level.recipe == "bmma_and" for level in gpu_levels(gpu))
    assert native == {"sm_80": True, "sm_89": True, "sm_90": True, "sm_100": False, "sm_120": False}


def test_what_only_processors_do_refuses_a_gpu_by_name() -> None:
    with pytest.raises(UserError, match="h200: expected a descriptor of kind cpu, got kind gpu"):
        load_hardware("h200")


def test_a_gpu_of_this_machine_is_found_by_what_its_driver_reports(tmp_path: Path) -> None:
    for slot, model in (("0000:01:00.0", "NVIDIA H200"), ("0000:02:00.0", "NVIDIA L40S")):
        (tmp_path / slot).mkdir()
        (tmp_path / slot / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 1\n", encoding="utf-8")
    found = detected_gpus(tmp_path)
    assert found == ("NVIDIA H200", "NVIDIA L40S")
    assert match_gpu("l40s", ["NVIDIA L40S"], found)[0]
    assert not match_gpu("a100", ["NVIDIA A100-SXM4-80GB"], found)[0]
    assert not match_gpu("what_if", [], found)[0]
    assert detected_gpus(tmp_path / "nowhere") == ()
