"""What the catalog reads from sources, and which kernel it prefers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from soniq_dse.errors import UserError
from soniq_dse.kernels.catalog import (
    catalog,
    instruction_set,
    kernel,
    kernels_for,
    missing_features,
    packed_activation_bits,
    parse_symbol,
)
from soniq_dse.kernels.library import isa_flags
from soniq_dse.records.palette import Level

POPCOUNT = "gemm_z1_z1_s32_6x32x64__avx512vpopcntdq_popcount"


def folder_with(tmp_path: Path, *lines: str) -> Path:
    (tmp_path / "gemm_toy.cpp").write_text('#include "soniq_kernel.h"\n' + "\n".join(lines) + "\n")
    return tmp_path


def test_fields_of_an_instance(tmp_path: Path) -> None:
    (spec,) = catalog(
        folder_with(tmp_path, f'SONIQ_KERNEL({POPCOUNT},\n    "avx512f, avx512vpopcntdq", 64, 2\'000,', "  Tile<6, 4>)")
    )
    assert (spec.op, spec.act, spec.wgt, spec.acc, spec.tile) == ("gemm", "z1", "z1", "s32", (6, 32, 64))
    assert (spec.isa, spec.algorithm, spec.k_group, spec.k_max) == ("avx512vpopcntdq", "popcount", 64, 2000)
    assert spec.features == ("avx512f", "avx512vpopcntdq")
    assert spec.path == f"{tmp_path.name}/gemm_toy.cpp"


@pytest.mark.parametrize(
    "line",
    [
        f'SONIQ_KERNEL({POPCOUNT}, "", GROUP, 10, T)',
        f"SONIQ_KERNEL({POPCOUNT}, 64, 10, T)",
        'SONIQ_KERNEL(gemm_q1_z1_s32_1x1x8__scalar_toy, "", 8, 10, T)',
        'SONIQ_KERNEL(gemm_z1_z1_s32_1x1__scalar_toy, "", 8, 10, T)',
        'SONIQ_KERNEL(gemm_z1_z1_s32_1x1x8_scalar_toy, "", 8, 10, T)',
    ],
)
def test_wrong_lines_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError, match="expected"):
        catalog(folder_with(tmp_path, line))


def test_a_symbol_occurs_once(tmp_path: Path) -> None:
    line = f'SONIQ_KERNEL({POPCOUNT}, "", 64, 10, T)'
    with pytest.raises(UserError, match="twice"):
        catalog(folder_with(tmp_path, line, line))


def test_unknown_symbol_names_the_nearest() -> None:
    with pytest.raises(UserError, match="nearest valid choice: 'gemm_u1_z1_s32_1x1x8__scalar_direct'"):
        kernel("gemm_u1_z1_s32_1x1x8__scalar_direkt")
    assert parse_symbol(POPCOUNT)["algorithm"] == "popcount"


def test_scalar_kernels_serve_every_level_of_every_machine() -> None:
    for weight_bits in range(1, 9):
        for activation_bits in range(1, 9):
            level = Level(weight_bits=weight_bits, activation_bits=activation_bits)
            first = kernels_for(level, signed=False, features=())[0]
            assert first.features == ()
            wanted = min(bits for bits in (1, 2, 4, 8) if bits >= activation_bits)
            assert first.act == f"u{wanted}"  # the narrowest that holds the codes
    weight_only = kernels_for(Level(weight_bits=4, activation_bits=32), signed=True, features=())
    assert [spec.act for spec in weight_only] == ["f32", "f32"]  # z4, then s8


def test_kernels_without_kept_loops_go_by_bits_and_tiles(tmp_path: Path) -> None:
    def line(act: str, wgt: str, tile: str, features: str) -> str:
        return f'SONIQ_KERNEL(gemm_{act}_{wgt}_s32_{tile}__{features or "scalar"}_toy, "{features}", 8, 1000, T)'

    folder = folder_with(
        tmp_path,
        line("u1", "z1", "1x1x8", ""),
        line("u8", "s8", "4x16x4", "avx2"),
        line("z1", "z1", "4x16x64", "avx2"),
        line("u1", "z1", "4x16x64", "avx2"),
        line("z1", "z1", "4x48x64", "avx2"),
        line("z1", "z1", "1x16x64", "avx2"),
        line("z1", "z1", "8x16x64", "avx512f"),
    )
    level = Level(weight_bits=1, activation_bits=1)

    def tiles(**wanted: object) -> list[tuple[str, tuple[int, int, int]]]:
        found = kernels_for(level, folder=folder, **wanted)  # type: ignore[arg-type]
        return [(spec.act, spec.tile) for spec in found]

    best = tiles(signed=True, features=["avx2"], rows=64, cols=64)
    assert best == [
        ("z1", (4, 16, 64)),  # no padding of 64 columns, the asked family
        ("u1", (4, 16, 64)),
        ("z1", (4, 48, 64)),  # 32 columns of padding
        ("z1", (1, 16, 64)),  # one-row tiles are for one row
        ("u8", (4, 16, 4)),  # more bits
        ("u1", (1, 1, 8)),  # scalar last
    ]
    assert tiles(signed=False, features=["avx2"])[0] == ("u1", (4, 16, 64))
    assert tiles(signed=True, features=["avx2"], rows=1)[0] == ("z1", (1, 16, 64))
    assert tiles(signed=True, features=["avx2"], cols=48)[0] == ("z1", (4, 48, 64))
    assert tiles(signed=True, features=["avx2", "avx512f"])[0] == ("z1", (8, 16, 64))


def test_kept_loops_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def line(act: str, wgt: str, tile: str, k_group: int) -> str:
        return f'SONIQ_KERNEL(gemm_{act}_{wgt}_s32_{tile}__avx2_toy, "avx2", {k_group}, 1000, T)'

    folder = folder_with(
        tmp_path,
        line("u1", "z1", "1x16x64", 64),
        line("u1", "z1", "4x48x64", 64),
        line("u1", "z1", "4x16x64", 64),
        line("u4", "z4", "4x16x4", 8),
        line("u8", "s8", "4x16x4", 4),
        line("u8", "z1", "4x16x9", 4),
    )
    per_mac = {"1x16x64": 1 / 50, "4x16x64": 1 / 100, "4x48x64": 1 / 130, "4x16x4": 1 / 40}

    def kept(symbol: str) -> Fraction | None:
        found = per_mac.get(symbol.split("_")[4])
        return None if found is None else Fraction(found)

    monkeypatch.setattr("soniq_dse.kernels.catalog.instructions_per_mac", kept)
    level = Level(weight_bits=1, activation_bits=1)

    def order(rows: int, cols: int) -> list[tuple[str, tuple[int, int, int]]]:
        found = kernels_for(level, signed=False, features=["avx2"], rows=rows, cols=cols, folder=folder)
        return [(spec.act, spec.tile) for spec in found]

    assert order(64, 64) == [
        ("u1", (4, 16, 64)),
        ("u1", (4, 48, 64)),  # 96 columns for 64 at 1/130: more than 1/100
        ("u8", (4, 16, 4)),  # equal loops: the smaller group of k
        ("u4", (4, 16, 4)),
        ("u1", (1, 16, 64)),  # would read the weights again for every row
        ("u8", (4, 16, 9)),  # no loop is kept
    ]
    assert order(64, 48)[0] == ("u1", (4, 48, 64))
    assert order(1, 64)[:2] == [("u1", (1, 16, 64)), ("u1", (4, 16, 64))]  # 4 rows for one: 4/100
    assert order(1, 64)[-2:] == [("u4", (4, 16, 4)), ("u8", (4, 16, 4))]  # wider weights, more to read


@pytest.mark.parametrize(
    ("algorithm", "weight_bits", "activation_bits", "expected"),
    [
        ("popcount", 2, 2, 2.0),
        ("gfni", 1, 1, 32 / 5),  # a byte of 5 activations, and three of their matrices
        ("dot", 4, 4, 8.0),  # codes stay bytes
        ("fip", 4, 4, 8.0),  # as do sums of 4-bit codes; those of 8-bit ones do not
        ("fip", 8, 8, 16.0),
        ("table", 1, 1, 16 / 6),  # one 16-bit offset for 6 activations
        ("table", 1, 2, 32 / 6),  # two, of 3 activations each
        ("table", 2, 2, 16 / 3),
        ("table", 1, 4, 64 * 8 / 6),  # the table itself
        ("lookup", 1, 4, 16 * 8 / 4),  # 16 entries for 4 activations, for 2
        ("lookup", 2, 4, 16 * 8 / 2),
        ("shuffle", 1, 1, 8 / 4),
        ("shuffle", 1, 2, 16 / 4),
        ("shuffle", 1, 4, 16 * 8 / 4),
        ("weightonly", 4, 32, 32.0),
    ],
)
def test_bits_of_packed_activations(algorithm: str, weight_bits: int, activation_bits: int, expected: float) -> None:
    assert packed_activation_bits(algorithm, weight_bits, activation_bits) == expected


def test_tables_built_while_packing_need_many_columns() -> None:
    level = Level(weight_bits=1, activation_bits=4)
    features = ["avx512f", "avx512bw", "avx512vbmi", "avx512vnni"]

    def first(cols: int) -> str:
        return kernels_for(level, signed=True, features=features, rows=256, cols=cols)[0].algorithm

    assert (first(64), first(2048)) == ("dot", "lookup")


def test_bit_sliced_counters_are_not_chosen_where_k_may_be_shallow() -> None:
    features = ["avx512f", "avx512bw", "avx512vbmi", "avx512vpopcntdq", "gfni", "bmi2"]
    for rows, cols in ((1, 4096), (8, 64), (64, 10), (1024, 64), (128, 1024)):
        order = kernels_for(Level.parse("w1a1"), signed=True, features=features, rows=rows, cols=cols)
        assert order[0].algorithm == "popcount"
        assert "gfni" in [spec.algorithm for spec in order]


def test_features_are_compared_in_either_spelling() -> None:
    spec = kernel(POPCOUNT)
    assert missing_features(spec, ["avx512f", "avx512bw", "avx512_vpopcntdq"]) == ()
    assert "avx512vpopcntdq" in missing_features(spec, ["avx512f"])
    assert isa_flags(["avx512_vnni", "avx512f"]) == ("-mavx512vnni", "-mavx512f")


def test_arm_features_become_one_architecture() -> None:
    assert isa_flags(["neon"]) == ("-march=armv8-a+simd",)
    assert isa_flags(["asimd", "asimddp"]) == ("-march=armv8.2-a+simd+dotprod",)
    assert isa_flags([]) == ()
    sets = {spec.isa: instruction_set(spec) for spec in catalog()}
    assert sets["scalar"] == ""
    assert {name for name, where in sets.items() if where == "aarch64"} == {"neon", "dotprod", "i8mm"}


def test_newer_instruction_sets_come_first_among_equal_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soniq_dse.kernels.catalog.instructions_per_mac", lambda _: None)  # no loop is kept
    level = Level(weight_bits=8, activation_bits=8)
    features = ["avx2", "avxvnni", "avx512f", "avx512bw", "avx512vnni", "neon", "dotprod", "i8mm"]
    order = [spec.isa for spec in kernels_for(level, signed=False, features=features) if spec.tile[0] > 1]
    assert list(dict.fromkeys(order)) == ["avx512vnni", "i8mm", "avxvnni", "dotprod", "avx2", "neon"]
