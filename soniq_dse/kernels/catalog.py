"""The kernels there are, read from the ``SONIQ_KERNEL`` lines of their sources; no compiler is needed.

Which one serves a level: see ``kernels_for``.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection
from pathlib import Path

from soniq_dse.errors import UserError, unknown_name
from soniq_dse.hardware.features import plain
from soniq_dse.kernels.loops import instructions_per_mac
from soniq_dse.records.cost import KernelSpec
from soniq_dse.records.palette import FLOAT_BITS, Level

CPU_FOLDER = Path(__file__).parent / "cpu"

ARM_FEATURES = frozenset({"neon", "dotprod", "i8mm"})
"""Features of AArch64 processors that kernels name; all others are of x86-64."""

PACKING_INSTRUCTIONS = 1.2
"""Per byte of packed activations, to write it and to read it from beyond L1: what makes built tables slow for few
output channels (a quarter of a cycle a byte on an Intel server core, for tables and for byte codes alike)."""

COUNTER_INSTRUCTIONS = 1.2
"""Per output, to clear counters in bit slices and to turn them into integers."""

COUNTED_K = 576
"""The k over which the choice spreads them, being made before k is known: 3x3 taps of 64 channels. The GFNI kernel is
behind popcount there, level at about twice this depth, and gains from four times on (Intel server core)."""

ROW_SUMS = frozenset({"fip", "magnitude", "fields"})
"""Algorithms whose packed rows end with a sum over the row, so that rows cannot be joined."""
MASKED_ENDS = frozenset({"popcount"})
"""Algorithms that take any codes for what pads the k elements of a tap."""

PLAIN_CODES = frozenset({"dot"})
"""Algorithms whose packed activations are the codes themselves, read wherever they lie."""

_BIT_PLANES = ("popcount", "cnt")
_NEWEST_FIRST = ("avx512f", "i8mm", "avxvnni", "dotprod", "avx2", "neon")
_INSTANCE = re.compile(r"^SONIQ_KERNEL\(([^;]*?)\)\s*;?\s*$", re.MULTILINE | re.DOTALL)
_FIELDS = re.compile(
    r'\s*(?P<symbol>\w+)\s*,\s*"(?P<features>[^"]*)"\s*,\s*(?P<k_group>[\d\']+)\s*,\s*(?P<k_max>[\d\']+)[lLuU]*\s*,.*',
    re.DOTALL,
)
_SYMBOL = re.compile(
    r"(?P<op>gemm)_(?P<act>[zu][1-8]|s8|f32)_(?P<wgt>z[1-7]|s8)_(?P<acc>s32|f32)"
    r"_(?P<mr>\d+)x(?P<nr>\d+)x(?P<kr>\d+)__(?P<isa>[a-z0-9]+)_(?P<algorithm>[a-z0-9]+)"
)


@functools.lru_cache(maxsize=8)
def catalog(folder: Path = CPU_FOLDER) -> tuple[KernelSpec, ...]:
    """Every kernel instance of the ``*.cpp`` files in ``folder``, by file and line.

    Raises:
        UserError: a ``SONIQ_KERNEL`` line or its symbol is not of the documented form, or a symbol occurs twice.
    """
    specs: dict[str, KernelSpec] = {}
    for path in sorted(folder.glob("*.cpp")):
        for found in _INSTANCE.finditer(path.read_text(encoding="utf-8")):
            spec = _parse_instance(path, found[1])
            if spec.symbol in specs:
                raise UserError(f"{path.name}: expected distinct symbols, got {spec.symbol} twice")
            specs[spec.symbol] = spec
    return tuple(specs.values())


def kernel(symbol: str, folder: Path = CPU_FOLDER) -> KernelSpec:
    """The instance called ``symbol``.

    Raises:
        UserError: there is none.
    """
    for spec in catalog(folder):
        if spec.symbol == symbol:
            return spec
    raise unknown_name("kernel", symbol, [spec.symbol for spec in catalog(folder)])


def parse_symbol(symbol: str) -> dict[str, str]:
    """The parts of ``<op>_<act>_<wgt>_<acc>_<MR>x<NR>x<KR>__<isa>_<algorithm>`` by name.

    Raises:
        UserError: the symbol is not of that form.
    """
    found = _SYMBOL.fullmatch(symbol)
    if not found:
        raise UserError(
            "kernel symbol: expected <op>_<act>_<wgt>_<acc>_<MR>x<NR>x<KR>__<isa>_<algorithm> "
            f"(gemm_z1_z1_s32_6x4x64__avx512vpopcntdq_popcount), got {symbol!r}"
        )
    return found.groupdict()


def instruction_set(spec: KernelSpec) -> str:
    """``x86_64`` or ``aarch64``; empty for a kernel that runs everywhere."""
    if not spec.features:
        return ""
    return "aarch64" if ARM_FEATURES.issuperset(map(plain, spec.features)) else "x86_64"


def missing_features(spec: KernelSpec, features: Collection[str]) -> tuple[str, ...]:
    """What ``spec`` needs and ``features`` lack; ``avx512_vnni`` and ``avx512vnni`` are one feature."""
    known = _plain(tuple(features))
    return tuple(feature for feature in spec.features if plain(feature) not in known)


@functools.lru_cache(maxsize=64)
def _plain(features: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(plain, features))


def kernels_for(
    level: Level,
    *,
    signed: bool,
    features: Collection[str],
    rows: int = 64,
    cols: int = 64,
    folder: Path = CPU_FOLDER,
) -> tuple[KernelSpec, ...]:
    """Kernels that compute ``level`` exactly on a machine with ``features``, the preferred one first.

    A kernel serves a level if its codes and its integers hold the level's: activations of a kernel may be wider, 8-bit
    integer weights hold every zero-free weight. ``signed`` does not narrow the choice, since raw sums of either family
    are turned into the asked one by an offset (``soniq_kernel.h``).

    The order is that of a machine which no descriptor speaks of: where one does, the cost model prices whole parts.
    Order, for a product of ``rows`` and ``cols``: vector kernels before scalar ones; for one row, which is bound by
    reading the weights, fewest weight bits; fewest instructions of the kept loop per multiply-accumulate, those spent
    on padding ``rows`` and ``cols`` to the tile and on packing the activations included; least padding of k. Kernels
    without a kept loop, and one-row tiles for several rows (their loops do not show that weights are read again for
    each), come after these: fewest bits (activation x weight), then narrowest operands; one-row tiles for
    one row and only there; the newest instruction set; least padding of ``cols``; the asked family; the largest tile.
    """
    eligible = [s for s in catalog(folder) if serves(s, level) and not missing_features(s, features)]
    asked = level.activation_format(signed=signed).family[0]
    return tuple(sorted(eligible, key=lambda spec: _rank(spec, asked, rows, cols)))


def serves(spec: KernelSpec, level: Level) -> bool:
    """Whether every code and weight of ``level`` is one of ``spec``."""
    if level.is_weight_only or spec.act == "f32":
        same_activations = level.is_weight_only and spec.act == "f32"
    else:
        same_activations = token_bits(spec.act) >= level.activation_bits
    weight = spec.wgt == "s8" or (level.weight_bits < 8 and token_bits(spec.wgt) >= level.weight_bits)
    return same_activations and weight


def packed_activation_bits(algorithm: str, weight_bits: int, activation_bits: int) -> float:
    """Bits that a packed activation takes, by the headers of the kernels.

    Popcount keeps its bits and dot products a byte. GFNI makes three bytes of the one that holds 5 elements. Tables
    keep, per step of as many elements as fill the index with weights, offsets of rows of a constant table, or where
    activations are too wide for one the table itself; ``lookup`` does so for an index of 4 bits.
    """
    if activation_bits == FLOAT_BITS or algorithm.startswith(_BIT_PLANES):
        return float(activation_bits)
    if algorithm == "gfni":
        return (1 + 3) * 8 / 5
    if algorithm == "lookup":  # 16 entries
        return 16 * 8 * weight_bits / 4
    if algorithm == "table":  # 64 entries, rows for 6 bits of activations
        elements = 6 // weight_bits
        bits = 64 * 8 if activation_bits > 2 else 16 * math.ceil(activation_bits * elements / 6)
        return bits / elements
    if algorithm in ("shuffle", "tbl"):  # 16 entries, rows for 8 bits of activations
        elements = 4 // weight_bits
        codes = activation_bits * elements
        return (16 * 8 if codes > 8 else 16 if codes > 4 else 8) / elements
    if algorithm == "fip":  # sums of codes and weights
        return 8.0 if activation_bits <= 4 else 16.0
    return 16.0 if algorithm in ("magnitude", "maddwd") else 8.0


def token_bits(token: str) -> int:
    """Bits of a format token: ``z2`` -> 2."""
    return int(token[1:])


def _rank(spec: KernelSpec, asked: str, rows: int, cols: int) -> tuple[bool | int | float | str, ...]:
    act, wgt = token_bits(spec.act), token_bits(spec.wgt)
    tile_rows, tile_cols, depth = spec.tile
    misfit = (tile_rows == 1) != (rows == 1)
    padding = -cols % tile_cols
    size = tile_rows * tile_cols * depth
    age = next((i for i, name in enumerate(_NEWEST_FIRST) if name in spec.features), len(_NEWEST_FIRST))
    kept = _rank_by_loop(spec, rows, cols)
    unkept = (act * wgt, act + wgt, misfit, age, padding, spec.act[0] != asked, -size, spec.symbol)
    return (not spec.features, wgt if rows == 1 else 0, *kept, *unkept)


def _rank_by_loop(spec: KernelSpec, rows: int, cols: int) -> tuple[float, int]:
    """(instructions per multiply-accumulate with packing, k group); last place where the kept loop tells too little."""
    instructions, (tile_rows, tile_cols, _) = instructions_per_mac(spec.symbol), spec.tile
    if instructions is None or tile_rows == 1 < rows:
        return math.inf, 0
    padding = (cols + -cols % tile_cols) / cols * max(1.0, tile_rows / rows)
    packed = packed_activation_bits(spec.algorithm, token_bits(spec.wgt), token_bits(spec.act)) / 8
    counters = COUNTER_INSTRUCTIONS / COUNTED_K if spec.algorithm == "gfni" else 0.0
    return (float(instructions) + counters) * padding + PACKING_INSTRUCTIONS * packed / cols, spec.k_group


def _parse_instance(path: Path, text: str) -> KernelSpec:
    found = _FIELDS.fullmatch(text)
    if not found:
        raise UserError(
            f'{path.name}: expected SONIQ_KERNEL(symbol, "feature,feature", k_group, k_max, Implementation) '
            f"with literals, got SONIQ_KERNEL({' '.join(text.split())[:100]})"
        )
    parts = parse_symbol(found["symbol"])
    return KernelSpec(
        symbol=found["symbol"],
        op=parts["op"],
        act=parts["act"],
        wgt=parts["wgt"],
        acc=parts["acc"],
        tile=(int(parts["mr"]), int(parts["nr"]), int(parts["kr"])),
        isa=parts["isa"],
        algorithm=parts["algorithm"],
        features=tuple(part.strip() for part in found["features"].split(",") if part.strip()),
        k_group=int(found["k_group"].replace("'", "")),
        k_max=int(found["k_max"].replace("'", "")),
        path=f"{path.parent.name}/{path.name}",
    )
