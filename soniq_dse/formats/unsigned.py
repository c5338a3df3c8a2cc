"""Unsigned grids with zero: ``0 .. 2**bits - 1``, for activations after a ReLU."""

from __future__ import annotations

from soniq_dse.formats import Base, Grid


class Unsigned(Base):
    """The integer is the code; 0 is exact, so padding adds nothing to a sum.

    With ``z = 2u - c`` the zero-free twin of ``u`` and ``c = 2**bits - 1``: ``sum(w u) = (sum(w z) + c sum(w)) / 2``.
    """

    family = "unsigned"
    widths = (1, 2, 3, 4, 5, 6, 7, 8)

    @classmethod
    def grid(cls, bits: int) -> Grid:
        """``u`` in ``0..2**bits - 1`` stands for itself."""
        return Grid(multiplier=1, offset=0, lo=0, hi=2**bits - 1)
