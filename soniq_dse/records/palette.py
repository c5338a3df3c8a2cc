"""Number formats, levels and precision palettes.

A *level* is a pair (weight bits, activation bits). The family of a format follows from the bits and from the tensor
(deployment arithmetic, rule 1): weights of 1-4 bits are zero-free, of 8 bits symmetric integers; activations are
unsigned after a ReLU, zero-free (1-4 bits) or offset integers (8 bits) where they may be negative.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, computed_field, model_validator

from soniq_dse.records.base import Record
from soniq_dse.records.channel_costs import ChannelCosts

FLOAT_BITS = 32
"""Activation bits of a weight-only level: its activations stay in fp32."""
MAX_BITS = 8
"""Of an integer weight or activation."""
MAX_LEVELS = 4
"""Of a palette."""

WeightBits = Annotated[int, Field(ge=1, le=MAX_BITS)]
ActivationBits = Annotated[int, Field(ge=1, le=FLOAT_BITS)]


class NumberFormat(Record):
    """A family of number formats at one width; ``token`` is its short name in kernel symbols (``z2``, ``u4``,
    ``s8``)."""

    family: str
    bits: int = Field(ge=1, le=FLOAT_BITS)

    @property
    def token(self) -> str:
        """``z`` zero-free, ``u`` unsigned, ``s`` symmetric 8-bit integers, ``f`` float; then the bits."""
        return ("s" if self.family == "int8" else self.family[0]) + str(self.bits)


class Level(Record):
    """One entry of a palette: bits of a weight and of the activation that it meets."""

    weight_bits: WeightBits
    activation_bits: ActivationBits

    @property
    def name(self) -> str:
        """``w2a4``; a weight-only level (float activations) is ``w4``."""
        return f"w{self.weight_bits}" + ("" if self.is_weight_only else f"a{self.activation_bits}")

    @property
    def is_weight_only(self) -> bool:
        """True where the activations stay in floating point."""
        return self.activation_bits == FLOAT_BITS

    @property
    def weight_format(self) -> NumberFormat:
        """Zero-free up to 7 bits, symmetric integers at 8."""
        return NumberFormat(family="int8" if self.weight_bits == 8 else "zerofree", bits=self.weight_bits)

    def activation_format(self, *, signed: bool) -> NumberFormat:
        """Format of the activations of a tensor that may (``signed``) or may not be negative."""
        if self.is_weight_only:
            return NumberFormat(family="float", bits=FLOAT_BITS)
        if not signed:
            return NumberFormat(family="unsigned", bits=self.activation_bits)
        return NumberFormat(family="int8" if self.activation_bits == 8 else "zerofree", bits=self.activation_bits)

    @classmethod
    def parse(cls, name: str) -> Level:
        """The level called ``name`` (``w2a4``, ``w4``).

        Raises:
            ValueError: ``name`` is not of that form, or there are no numbers of so many bits.
        """
        found = re.fullmatch(r"w(\d{1,3})(?:a(\d{1,3}))?", name, re.ASCII)
        if not found:
            raise ValueError(f"level: expected a name like w2a4 or w4 (weight-only), got {name!r}")
        weight, activation = int(found[1]), int(found[2] or FLOAT_BITS)
        close = cls(
            weight_bits=min(max(weight, 1), MAX_BITS),
            activation_bits=activation if activation == FLOAT_BITS else min(max(activation, 1), MAX_BITS),
        )
        if (close.weight_bits, close.activation_bits) != (weight, activation):
            raise ValueError(f"expected 1 to {MAX_BITS} bits, got {name!r}; nearest valid choice: {close.name!r}")
        return close


class Palette(Record):
    """The levels that a network may mix, narrowest first."""

    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=MAX_LEVELS)]
    source: str = "enumerated"

    @model_validator(mode="after")
    def _sorted_and_distinct(self) -> Palette:
        keys = [(level.weight_bits, level.activation_bits) for level in self.levels]
        if sorted(set(keys)) != keys:
            raise ValueError("levels: expected distinct levels, narrowest first, got " + self.name)
        return self

    @property
    def name(self) -> str:
        """The level names joined by ``+``: ``w1a1+w4a4``."""
        return "+".join(level.name for level in self.levels)

    @classmethod
    def parse(cls, name: str, source: str = "named") -> Palette:
        """The palette called ``name`` (``w1a1+w4a4``), levels in any order.

        Raises:
            ValueError: a level is none, stands there twice, or there are too many.
        """
        levels = sorted(
            (Level.parse(part) for part in name.split("+")), key=lambda v: (v.weight_bits, v.activation_bits)
        )
        if len(set(levels)) != len(levels) or len(levels) > MAX_LEVELS:
            raise ValueError(f"expected 1 to {MAX_LEVELS} levels, each once, got {name!r}")
        return cls(levels=tuple(levels), source=source)


class LevelCost(Record):
    """What one level costs on one machine over the layers of one workload."""

    level: Level
    cycles: float = Field(ge=0)
    cycles_per_mac: float = Field(ge=0)
    kernel: str
    reason: str


class PaletteChoice(Record):
    """A palette with why it is explored, or why not."""

    palette: Palette
    explored: bool
    reason: str
    budgets_bits_per_weight: tuple[float, ...] = ()
    costs: tuple[ChannelCosts, ...] = ()
    """Budgets in another unit, in place of those in bits, each with what a channel of one workload costs."""
    kind: Literal["enumerated", "kept"] = "enumerated"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def name(self) -> str:
        """The palette's name."""
        return self.palette.name
