"""What-if settings: a field by its path, the knobs, and what the estimate makes of them."""

from __future__ import annotations

import pytest

from soniq_dse.cost.bounds import uniform_assignment
from soniq_dse.cost.network import estimate
from soniq_dse.errors import UserError
from soniq_dse.hardware.levels import native_levels
from soniq_dse.hardware.load import load_hardware
from soniq_dse.hardware.whatif import KNOBS, what_if
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Level
from soniq_dse.workloads import load_workload


@pytest.fixture(scope="module")
def avx512() -> HardwareModel:
    return load_hardware("avx512")


def latency_us(hw: HardwareModel, weight_bits: int = 4, activation_bits: int = 4) -> float:
    workload = load_workload("digits_cnn")
    level = Level(weight_bits=weight_bits, activation_bits=activation_bits)
    return estimate(hw, workload, uniform_assignment(workload, level)).latency_us


def test_without_settings_the_machine_is_itself(avx512: HardwareModel) -> None:
    assert what_if(avx512, ()) is avx512


def test_a_figure_that_is_set_is_assumed_and_says_what_it_was(avx512: HardwareModel) -> None:
    made = what_if(avx512, ["memory.read_gb_per_s_one_core=12", "cores=8"])
    figure, before = made.memory.read_gb_per_s_one_core, avx512.memory.read_gb_per_s_one_core
    assert (figure.value, figure.kind, made.cores) == (12, "assumed", 8)
    assert f"{before.value:g}" in (figure.note or "")
    assert made.matches == ()
    assert "what if memory.read_gb_per_s_one_core=12" in made.title


@pytest.mark.parametrize(
    "setting",
    [
        "clock_ghz=5", "issue_width=8", "cores=5", "caches.L2.latency_cycles=15", "energy.int8_add.energy_pj=5",
        "simd.512.registers=64", "instructions.vpshufb.widths.512.latency_cycles=5", "overhead.call_ns=5",
        "recipes.popcount_w1a1.instructions.vpopcntq=2", "recipes.popcount_w1a1.k_group=128",
    ],
)  # fmt: skip
def test_every_number_has_a_path(avx512: HardwareModel, setting: str) -> None:
    assert what_if(avx512, [setting]) != avx512


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("clok_ghz=5", "nearest valid choice: 'clock_ghz'"),
        ("caches.L2=4", "nearest valid choice: 'caches.L2.size_bytes'"),
        ("caches.L9.size_bytes=4", "expected a field of the descriptor"),
        ("clock_ghz=5GHz", "the number is in GHz"),
        ("clock_ghz=5000", "is it in MHz"),
        ("clock_ghz=nan", "expected"),
        ("clock_ghz", "got no ="),
        ("=5", "expected FIELD=NUMBER"),
        ("cores=2.5", "expected a whole number"),
        ("simd_width_bits=1000", "expected one of 64, 128, 256, 512, 1024, 2048 bits"),
        ("ports.load=0", "expected a whole number of ports"),
        ("name.x=1", "expected a field"),
    ],
)
def test_errors_name_the_setting_and_the_nearest_choice(avx512: HardwareModel, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=r"^what if ") as caught:
        what_if(avx512, [setting])
    assert message in str(caught.value)


def test_a_wider_vector_does_more_in_as_many_cycles(avx512: HardwareModel) -> None:
    wide = what_if(avx512, ["simd_width_bits=1024"])
    at = {(n.recipe, n.width_bits): n for n in native_levels(wide)}
    for (recipe, width), native in at.items():
        if width == 1024:
            narrow = at[recipe, 512]
            assert native.macs_per_cycle == pytest.approx(2 * narrow.macs_per_cycle)
            assert native.n_group == 2 * narrow.n_group
    assert wide.caches[0].read_bytes_per_cycle.value == pytest.approx(2 * avx512.caches[0].read_bytes_per_cycle.value)
    assert wide.caches[1] == avx512.caches[1]


def test_the_estimate_follows_a_width_that_no_kernel_has(avx512: HardwareModel) -> None:
    """Not cycles x 512 / W: what is not vectorised stays, and layers too narrow for the vector keep their kernels."""
    now, wide = latency_us(avx512), latency_us(what_if(avx512, ["simd_width_bits=1024"]))
    assert now / 2 < wide < now
    workload = load_workload("digits_cnn")
    level = Level(weight_bits=4, activation_bits=4)
    found = estimate(what_if(avx512, ["simd_width_bits=1024"]), workload, uniform_assignment(workload, level))
    kernels = {kernel for layer in found.per_layer for kernel in layer.kernels}
    assert any(kernel.endswith("at 1024 bits") for kernel in kernels)
    assert any("avx512" in kernel for kernel in kernels)


def test_a_width_that_another_machine_has_is_new_to_this_one() -> None:
    avx2 = load_hardware("avx2")
    wide = what_if(avx2, ["simd_width_bits=512"])
    workload = load_workload("fashion_cnn")
    level = Level(weight_bits=4, activation_bits=4)
    assignment = uniform_assignment(workload, level)
    now, then = (estimate(hw, workload, assignment) for hw in (avx2, wide))
    assert any(name.endswith("at 512 bits") for layer in then.per_layer for name in layer.kernels)
    assert now.latency_us / 2 < then.latency_us < now.latency_us


def test_kernels_wider_than_the_machine_are_none_of_it(avx512: HardwareModel) -> None:
    workload = load_workload("digits_cnn")
    level = Level(weight_bits=4, activation_bits=4)
    narrow = what_if(avx512, ["simd_width_bits=256"])
    found = estimate(narrow, workload, uniform_assignment(workload, level))
    assert not any("avx512" in name for layer in found.per_layer for name in layer.kernels)


def test_a_narrower_vector_costs_time(avx512: HardwareModel) -> None:
    narrow = what_if(avx512, ["simd_width_bits=256"])
    assert narrow.width_bits == 256
    assert latency_us(narrow) > latency_us(avx512)


def test_ports_come_and_go(avx512: HardwareModel) -> None:
    loads = [port.name for port in avx512.ports if port.role == "load"]
    more, fewer = (what_if(avx512, [f"ports.load={n}"]) for n in (len(loads) + 1, 1))
    assert sum(port.role == "load" for port in more.ports) == len(loads) + 1
    assert [port.name for port in fewer.ports if port.role == "load"] == loads[:1]
    for hw in (more, fewer):
        timing = hw.timing("load", 512)
        assert timing is not None
        assert len(timing.micro_ops[0].ports) == sum(port.role == "load" for port in hw.ports)
    assert latency_us(more, 1, 1) <= latency_us(avx512, 1, 1) <= latency_us(fewer, 1, 1)
    assert latency_us(what_if(avx512, ["ports.vector=1"])) > latency_us(avx512)


def test_no_micro_operation_keeps_a_port_that_was_dropped(avx512: HardwareModel) -> None:
    hw = what_if(avx512, ["ports.vector=2"])
    timings = [timing for entry in hw.instructions.values() for timing in entry.widths.values()]
    used = {port for t in timings for micro in (*t.micro_ops, *(t.from_memory or ())) for port in micro.ports}
    assert used <= {port.name for port in hw.ports}


def test_a_slower_clock_scales_all_but_what_is_in_nanoseconds(avx512: HardwareModel) -> None:
    half = what_if(avx512, [f"clock_ghz={avx512.clock_ghz.value / 2}"])
    assert latency_us(half) == pytest.approx(2 * latency_us(avx512), rel=0.1)


def test_a_hypothetical_instruction_is_priced_by_its_recipe() -> None:
    """A vector popcount on a core without one: the recipe wins over the kernels that exist only where it is faster."""
    avx2 = load_hardware("avx2")
    fast = avx2.timing("vpaddd", 256)
    assert fast is not None
    shuffle = avx2.recipes["shuffle_w1a1"]
    recipe = shuffle.model_copy(update={"instructions": {"bitdot": 1.0, "load": 0.4}, "macs_per_width_bit": 1.0})
    known = avx2.instructions["vpaddd"].model_copy(update={"widths": {256: fast}})
    for hypothetical in (True, False):
        bitdot = known.model_copy(update={"hypothetical": hypothetical})
        update = {
            "instructions": avx2.instructions | {"bitdot": bitdot},
            "recipes": {**avx2.recipes, "bit_w1a1": recipe},
        }
        made = avx2.model_copy(update=update)
        assert (latency_us(made, 1, 1) < latency_us(avx2, 1, 1)) is hypothetical


def test_knobs_are_settable() -> None:
    assert set(KNOBS) == {"simd_width_bits", "ports.load", "ports.store", "ports.vector", "ports.scalar"}
