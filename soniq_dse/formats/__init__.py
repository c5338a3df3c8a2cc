"""Number formats in NumPy, and the deployment arithmetic that everything else must match code for code.

A format is an integer grid: code ``u`` stands for the integer ``multiplier * u - offset``, and for the value ``step``
times that integer. One rule of rounding serves all (fp32, each operation rounded on its own, no fused multiply-add)::

    v = value * f32(1 / (multiplier * step));  v = v + offset / multiplier;  code = clamp(rint(v), lo, hi)

where ``rint`` rounds halves to even. Packed codes are a little-endian bit stream: code ``i`` of ``b`` bits takes the
bits ``i * b .. i * b + b - 1`` of its row, bit 0 being the least significant bit of byte 0; a row ends at a byte.

To add one: a new file here, named for the family, with one class deriving from ``Base``; the contract suite
``tests/contracts/test_formats.py`` finds it by itself.

Source of the formats: SONIQ, arXiv 2311.14114, and SMOL, NeurIPS 2022 (zero-free grids).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from soniq_dse.records.palette import NumberFormat

HELPERS = frozenset({"activations", "attention", "deployment", "network", "normalisation", "weight_only"})
"""Modules of this package that are no formats."""

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Grid(NamedTuple):
    """Code ``u`` in ``lo..hi`` stands for the integer ``multiplier * u - offset``."""

    multiplier: int
    offset: int
    lo: int
    hi: int

    def integer(self, code: int) -> int:
        """The integer behind ``code``."""
        return self.multiplier * code - self.offset

    @property
    def shift(self) -> float:
        """What the rule of rounding adds before it rounds: the (fractional) code of the value 0."""
        return self.offset / self.multiplier

    @property
    def zero_code(self) -> int:
        """The code nearest to zero from above: what a convolution pads with."""
        return -(-self.offset // self.multiplier)

    @property
    def magnitude(self) -> int:
        """The largest absolute integer."""
        return max(abs(self.integer(self.lo)), abs(self.integer(self.hi)))


class Base(ABC):
    """A family of number formats, one grid per width. All methods are pure; codes are uint8 of any shape."""

    family: ClassVar[str]
    widths: ClassVar[tuple[int, ...]]
    """Bits at which the family exists."""

    @classmethod
    @abstractmethod
    def grid(cls, bits: int) -> Grid:
        """The grid of width ``bits``."""

    @classmethod
    def levels(cls, bits: int) -> npt.NDArray[np.int32]:
        """The integers of the codes ``lo..hi``, ascending: int32 ``[hi - lo + 1]``.

        Raises:
            ValueError: the family has no such width.
        """
        grid = cls._checked_grid(bits)
        return np.arange(grid.lo, grid.hi + 1, dtype=np.int32) * grid.multiplier - grid.offset

    @classmethod
    def quantize(cls, values: npt.ArrayLike, step: npt.ArrayLike, bits: int) -> Codes:
        """Codes of ``values`` (fp32) for a positive ``step`` (fp32, broadcast against ``values``).

        Raises:
            ValueError: the family has no such width, a step is not positive, or a value is not a number.
        """
        grid = cls._checked_grid(bits)
        steps = np.asarray(step, dtype=np.float32)
        if not np.all(steps > 0):
            raise ValueError(f"step: expected positive numbers, got {steps.min()}")
        inverse = (np.float32(1) / (np.float32(grid.multiplier) * steps)).astype(np.float32)
        scaled = np.asarray(values, dtype=np.float32) * inverse
        if np.isnan(scaled).any():
            raise ValueError("values: expected numbers, got NaN")
        codes: Codes = np.clip(np.rint(scaled + np.float32(grid.shift)), grid.lo, grid.hi).astype(np.uint8)
        return codes

    @classmethod
    def integers(cls, codes: Codes, bits: int) -> npt.NDArray[np.int32]:
        """The integers behind ``codes``: int32 of the same shape."""
        grid = cls._checked_grid(bits)
        return np.asarray(codes).astype(np.int32) * grid.multiplier - grid.offset

    @classmethod
    def dequantize(cls, codes: Codes, step: npt.ArrayLike, bits: int) -> Floats:
        """The values behind ``codes``, fp32: ``step`` times the integer, rounded once."""
        values: Any = cls.integers(codes, bits).astype(np.float32) * np.asarray(step, dtype=np.float32)
        return np.asarray(values, dtype=np.float32)

    @classmethod
    def pack(cls, codes: Codes, bits: int) -> Codes:
        """Rows of codes ``[..., k]`` -> bytes ``[..., ceil(k * bits / 8)]``; the bits after the last code are 0."""
        cls._checked_grid(bits)
        codes = np.asarray(codes, dtype=np.uint8)
        each = np.unpackbits(codes[..., None], axis=-1, count=bits, bitorder="little")
        return np.packbits(each.reshape(*codes.shape[:-1], codes.shape[-1] * bits), axis=-1, bitorder="little")

    @classmethod
    def unpack(cls, packed: Codes, k: int, bits: int) -> Codes:
        """The inverse of ``pack``: bytes ``[..., ceil(k * bits / 8)]`` -> codes ``[..., k]``."""
        cls._checked_grid(bits)
        stream = np.unpackbits(np.asarray(packed, dtype=np.uint8), axis=-1, count=k * bits, bitorder="little")
        return np.packbits(stream.reshape(*packed.shape[:-1], k, bits), axis=-1, bitorder="little")[..., 0]

    @classmethod
    def _checked_grid(cls, bits: int) -> Grid:
        if bits not in cls.widths:
            raise ValueError(f"bits of {cls.family}: expected one of {list(cls.widths)}, got {bits}")
        return cls.grid(bits)


def format_of(number_format: NumberFormat) -> type[Base]:
    """The family's class behind a record.

    Raises:
        UserError: no such family, or it does not quantise (``float``).
    """
    from soniq_dse import registry

    unit: type[Base] = registry.load("format", number_format.family)
    return unit


@functools.cache
def grid_of(number_format: NumberFormat) -> Grid:
    """The grid behind a record (``NumberFormat(family="zerofree", bits=2)``)."""
    return format_of(number_format)._checked_grid(number_format.bits)
