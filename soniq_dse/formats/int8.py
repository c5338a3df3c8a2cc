"""Symmetric 8-bit integers, -127..127, that travel as the unsigned code ``integer + 128``."""

from __future__ import annotations

from soniq_dse.formats import Base, Grid


class Int8(Base):
    """Weights of 8 bits, and 8-bit activations that may be negative; code 0 (-128) is never made."""

    family = "int8"
    widths = (8,)

    @classmethod
    def grid(cls, bits: int) -> Grid:
        """``u`` in ``1..255`` stands for ``u - 128``."""
        return Grid(multiplier=1, offset=128, lo=1, hi=255)
