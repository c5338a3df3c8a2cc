"""A colour and a marker shape per palette, the same in the page and in the static figure.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), safe for the colour-blind, less black and yellow,
which vanish on a dark or a white page. Six colours and seven shapes have no common factor, so 42 palettes differ, and
every one differs from its neighbour in both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from soniq_dse.records.front import DesignPoint


class Shape(NamedTuple):
    """A marker by its plotly symbol, and as an SVG path around the origin within a radius of about 6."""

    symbol: str
    path: str


class Mark(NamedTuple):
    """How the points of a palette are drawn."""

    colour: str
    symbol: str
    path: str


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = (
    Shape("circle", "M6,0A6,6 0 1,1 -6,0A6,6 0 1,1 6,0Z"),
    Shape("square", "M-5.3,-5.3H5.3V5.3H-5.3Z"),
    Shape("diamond", "M0,-7L7,0L0,7L-7,0Z"),
    Shape("triangle-up", "M0,-6.6L6.6,5.2H-6.6Z"),
    Shape("triangle-down", "M0,6.6L6.6,-5.2H-6.6Z"),
    Shape("cross", "M-2.2,-6.4H2.2V-2.2H6.4V2.2H2.2V6.4H-2.2V2.2H-6.4V-2.2H-2.2Z"),
    Shape("pentagon", "M0,-6.6L6.3,-2L3.9,5.3H-3.9L-6.3,-2Z"),
)


def marks_of(points: Iterable[DesignPoint]) -> dict[str, Mark]:
    """Palette name -> mark, uniform palettes first; it depends on the set of palettes alone."""
    palettes = sorted(
        {point.palette for point in points if point.role == "design"}, key=lambda name: (name.count("+"), name)
    )
    return {name: Mark(COLOURS[i % len(COLOURS)], *SHAPES[i % len(SHAPES)]) for i, name in enumerate(palettes)}
