"""Zero-free signed grids: the odd multiples of the step up to ``2**bits - 1``. At 1 bit: -1 and +1."""

from __future__ import annotations

from soniq_dse.formats import Base, Grid


class ZeroFree(Base):
    """Integers ``z = 2u - c`` with ``c = 2**bits - 1``: weights, and activations that may be negative.

    ``step`` is half the distance of two levels (SONIQ's ``alpha * 2**(1 - bits)`` on its [-2, 2] grid). At 8 bits the
    odd numbers to +-255 fit no 8-bit operand: ``int8`` serves there.
    """

    family = "zerofree"
    widths = (1, 2, 3, 4, 5, 6, 7)

    @classmethod
    def grid(cls, bits: int) -> Grid:
        """``u`` in ``0..c`` stands for ``2u - c``."""
        top = 2**bits - 1
        return Grid(multiplier=2, offset=top, lo=0, hi=top)
