"""Every cost model of the core, and the layer costs that stand on it: on or above the roofline, additive, monotone."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse import registry
from soniq_dse.cost import Base
from soniq_dse.cost.choice import Chooser
from soniq_dse.cost.layers import LayerCoster, PartCost
from soniq_dse.cost.vector_loops import PIECE_CYCLES, PIXEL_CYCLES
from soniq_dse.hardware.levels import best_native_levels
from soniq_dse.hardware.load import load_hardware
from soniq_dse.kernels.code import kept_code
from soniq_dse.records.cost import HotLoop, LoopInstruction
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Level
from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Segment

MACHINES = ("avx512", "avx2", "neon", "granite_rapids")
MODELS = registry.names("cost")
LEVELS = ("w1a1", "w2a2", "w4a4", "w8a8")
TERMS = ("compute", "memory", "packing", "epilogue", "overhead")


@functools.cache
def machine(name: str) -> HardwareModel:
    return load_hardware(name)


@functools.cache
def coster(name: str, model: str) -> LayerCoster:
    """Whole calls are followed on one machine: they take a second a kernel, and elsewhere the loops stand for them."""
    code_of = kept_code if name == "avx2" else lambda symbol: None
    return LayerCoster(machine(name), Chooser(machine(name), registry.load("cost", model)(), code_of=code_of))


def segment(level: str, channels: int) -> Segment:
    parsed = Level.parse(level)
    return Segment(weight_bits=parsed.weight_bits, activation_bits=parsed.activation_bits, channels=channels)


def loop_of(*texts: str) -> HotLoop:
    instructions = []
    for text in texts:
        mnemonic, _, rest = text.partition(" ")
        operands = tuple(part for part in rest.split(",") if part)
        width = max((b for n, b in (("zmm", 512), ("ymm", 256), ("xmm", 128)) if n in rest), default=0)
        loads = "[" in rest and mnemonic != "lea"
        instructions.append(
            LoopInstruction(mnemonic=mnemonic, operands=operands, width_bits=width, loads=loads, text=text)
        )
    return HotLoop(
        symbol="test", compiler="", flags=(), source_sha256="", macs_per_iteration=1, instructions=tuple(instructions)
    )


BODY = ("vpxorq zmm2,zmm0,ZMMWORD PTR [rax]", "vpopcntq zmm2,zmm2", "vpaddq zmm1,zmm1,zmm2")
TAIL = ("add rax,0x40", "cmp rax,rdx", "jne 10")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["avx512", "granite_rapids"])
def test_a_longer_loop_is_never_cheaper(model: str, name: str) -> None:
    unit: Base = registry.load("cost", model)()
    costs = [unit.loop_cost(loop_of(*BODY * times, *TAIL), machine(name)) for times in (1, 2, 3, 8)]
    for one, more in itertools.pairwise(costs):
        assert 0 < one.cycles <= more.cycles
        assert one.contended_cycles <= more.contended_cycles
    for cost in costs:
        assert cost.cycles <= cost.expected_cycles <= cost.contended_cycles
        assert cost.latency_cycles <= cost.cycles


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["avx512", "granite_rapids"])
def test_on_or_above_the_busiest_instruction(model: str, name: str) -> None:
    hw = machine(name)
    cost = registry.load("cost", model)().loop_cost(loop_of(*BODY * 5, *TAIL), hw)
    timing = hw.timing("vpopcntq", 512)
    assert timing is not None
    (micro_op,) = timing.micro_ops
    assert cost.cycles >= 5 * micro_op.cycles / len(micro_op.ports) * (1 - 1e-9)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("level", LEVELS)
@given(m=st.integers(1, 200), n=st.integers(1, 300), k=st.integers(1, 2000))
@settings(max_examples=15, deadline=None)
def test_gemm_is_non_negative_and_on_or_above_the_roofline(
    model: str, name: str, level: str, m: int, n: int, k: int
) -> None:
    parts = coster(name, model).parts(GemmLayer(name="g", m=m, n=n, k=k), (segment(level, k),), signed=True)
    peak = max(
        native.macs_per_cycle
        for found, native in best_native_levels(machine(name)).items()
        if found.weight_bits >= Level.parse(level).weight_bits
    )
    assert all(getattr(part, term) >= 0 for part in parts for term in TERMS)
    # The peak of any recipe as wide: a kernel of the catalog may be wider than the level asked for.
    products = m * n * k / (2 if parts[0].kernel.algorithm == "fip" else 1)  # Winograd's inner product: half of them
    assert sum(part.cycles for part in parts) >= products / peak * (1 - 1e-9)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", MACHINES)
@given(k=st.integers(1, 1500), more=st.integers(0, 300), level=st.sampled_from(LEVELS))
@settings(max_examples=25, deadline=None)
def test_gemm_is_monotone_in_k(model: str, name: str, k: int, more: int, level: str) -> None:
    """But for packing, which dot products are spared where their groups of k are full."""

    def parts(depth: int) -> tuple[PartCost, ...]:
        layer = GemmLayer(name="g", m=32, n=128, k=depth)
        return coster(name, model).parts(layer, (segment(level, depth),), signed=False, home=1)

    packing = sum(part.packing for part in parts(k))
    assert total(parts(k)) - packing <= total(parts(k + more)) * (1 + 1e-9)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", MACHINES)
@given(
    first=st.integers(1, 200),
    second=st.integers(1, 200),
    levels=st.permutations(LEVELS),
    kernel=st.sampled_from((1, 3)),
)
@settings(max_examples=25, deadline=None)
def test_a_mixed_layer_is_the_sum_of_its_segments(
    model: str, name: str, first: int, second: int, levels: list[str], kernel: int
) -> None:
    def parts(*segments: Segment) -> tuple[PartCost, ...]:
        layer = Conv2dLayer(
            name="c",
            in_channels=sum(s.channels for s in segments),
            out_channels=96,
            height=8,
            width=8,
            kernel=(kernel, kernel),
            padding=(kernel // 2, kernel // 2),
        )
        return coster(name, model).parts(layer, segments, signed=True)

    one, other = segment(levels[0], first), segment(levels[1], second)
    alone, together = total(parts(one)) + total(parts(other)), total(parts(one, other))
    if kernel == 1:
        assert together == pytest.approx(alone, rel=1e-12)
    else:  # a segment's pixels are pieces of the wider layer's, packed one by one
        assert alone * (1 - 1e-12) <= together <= (alone + 2 * 64 * max(PIECE_CYCLES, PIXEL_CYCLES)) * (1 + 1e-12)


@pytest.mark.parametrize("name", MACHINES)
def test_bytes_from_far_cost_at_least_bytes_over_bandwidth(name: str) -> None:
    """One row: every weight is used once, so the layer takes at least as long as its weights take to arrive."""
    hw = machine(name)
    layer = GemmLayer(name="g", m=1, n=4096, k=4096)
    memory = len(hw.caches)
    parts = coster(name, "incore").parts(layer, (segment("w8a8", 4096),), signed=True, home=memory)
    seconds = 4096 * 4096 / (hw.memory.read_gb_per_s_one_core.value * 1e9)
    assert total(parts) >= seconds * hw.clock_ghz.value * 1e9 * (1 - 1e-9)
    assert parts[0].bound == "dram"


def total(parts: tuple[PartCost, ...]) -> float:
    return sum(part.cycles for part in parts)
