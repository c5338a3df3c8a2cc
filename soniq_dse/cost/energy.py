"""Energy as a second predicted cost: of what instructions do, of issuing them, and of every byte by its level.

An instruction costs what a processor spends on any (fetch, decode, registers: by far the most, Horowitz, ISSCC 2014)
and its arithmetic per 32 bits of vector. Multipliers of fewer bits take energy in proportion to the square of them,
as arrays of full adders do. It is dynamic energy of core and memory: leakage, and what a chip spends while it idles, is
not in it. All figures are the descriptor's; where one is missing there is no energy, not a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from soniq_dse.records.cost import HotLoop
from soniq_dse.records.hardware import HardwareModel

OPERATIONS = (
    "instruction", "int8_multiply", "int32_add", "int32_multiply", "fp32_add", "fp32_multiply", "byte_from_L1",
    "byte_from_dram",
)  # fmt: skip
"""What a descriptor must list; besides, ``byte_from_`` each of its caches."""

_LOADS, _STORES = ("load", "load_broadcast"), ("store",)
_BROADCAST_BYTES = 4.0
# Products per 32 bits of vector and their bits; the first that matches holds.
_MULTIPLIES: tuple[tuple[re.Pattern[str], int, int], ...] = (
    (re.compile(r"^mac1$"), 32, 1),
    (re.compile(r"^mac2$"), 16, 2),
    (re.compile(r"^mac4$"), 8, 4),
    (re.compile(r"^(vpdpb|vpmaddubsw|[su]+dot|[us]+mmla|vmadot)"), 4, 8),
    (re.compile(r"^(vpmaddwd|vpdpw|[su]ml?al|[su]mull|vwmul)"), 2, 16),
    (re.compile(r"^(vpmull|mul|vmul\.|imul|madd)"), 1, 32),
)
_FMA = re.compile(r"^(vfn?m(add|sub)|fmla|vfmacc)")
_FP_MULTIPLY = re.compile(r"^(vmulp|fmul|vfmul)")
_FP = re.compile(r"^(v(add|sub|max|min|cvt)\w*ps|vcvt|f(add|max|min|cvt)|scvtf|vf)")


@dataclass(frozen=True)
class Energy:
    """Energies of one machine in picojoules."""

    pj: Mapping[str, float]
    levels: tuple[str, ...]

    @classmethod
    def of(cls, hw: HardwareModel) -> Energy | None:
        """The energies that ``hw`` lists; None where one is missing."""
        pj = {entry.operation: entry.energy_pj.value for entry in hw.energy}
        levels = (*(f"byte_from_{cache.name}" for cache in hw.caches), "byte_from_dram")
        return cls(pj, levels) if pj.keys() >= {*OPERATIONS, *levels} else None

    def instruction(self, mnemonic: str, width_bits: int) -> float:
        """An instruction on registers, at a vector width (0: scalar)."""
        if mnemonic in _LOADS or mnemonic in _STORES:
            size = _BROADCAST_BYTES if mnemonic == "load_broadcast" else (width_bits or 64) / 8
            return self.pj["instruction"] + size * self.pj["byte_from_L1"]
        return self.pj["instruction"] + (width_bits or 64) / 32 * self._lane(mnemonic)

    def recipe(self, counts: Iterable[tuple[str, float]], width_bits: int) -> float:
        """One step of a recipe: instructions and how often each runs."""
        return sum(count * self.instruction(name, width_bits) for name, count in counts)

    def loop(self, loop: HotLoop) -> float:
        """One pass of a compiled loop; a memory operand is read from or written to the nearest cache."""
        total = 0.0
        for ins in loop.instructions:
            is_move = "mov" in ins.mnemonic or "broadcast" in ins.mnemonic
            total += self.pj["instruction"] if is_move else self.instruction(ins.mnemonic, ins.width_bits)
            if ins.loads or ins.stores:
                broadcast = "BCST" in ins.text or "{1to" in ins.text or "broadcast" in ins.mnemonic
                size = _BROADCAST_BYTES if broadcast else (ins.width_bits or 64) / 8
                total += size * self.pj["byte_from_L1"]
        return total

    def traffic(self, bytes_by_level: Iterable[float]) -> float:
        """Bytes that come from each level beyond the nearest one; those of the nearest are in the loops."""
        return sum(size * self.pj[name] for size, name in list(zip(bytes_by_level, self.levels, strict=True))[1:])

    def _lane(self, mnemonic: str) -> float:
        """The arithmetic on 32 bits of vector."""
        pj = self.pj
        if _FMA.match(mnemonic):
            return pj["fp32_multiply"] + pj["fp32_add"]
        if _FP_MULTIPLY.match(mnemonic):
            return pj["fp32_multiply"]
        if _FP.match(mnemonic):
            return pj["fp32_add"]
        for pattern, products, bits in _MULTIPLIES:
            if pattern.match(mnemonic):
                if bits == 32:
                    return pj["int32_multiply"]
                return products * pj["int8_multiply"] * (bits / 8) ** 2 + pj["int32_add"]
        return pj["int32_add"]
