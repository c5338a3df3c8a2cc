"""What static figures share: ink, ticks, text and the frame of the file. Equal input gives equal bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import escape

INK, SOFT, GRID = "#1d2126", "#565d66", "#e8e8e4"


def drawing(title: str, width: int, height: int, parts: Iterable[str]) -> str:
    """The SVG file of ``parts`` on white, in pixels."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" role="img">'
    )
    paper = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escaped(title)}</title>", paper, *parts, "</svg>"]) + "\n"


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; the powers alone where that would be too many."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    digits = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def linear_ticks(low: float, high: float) -> list[float]:
    """About five round values."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def text(
    x: float, y: float, words: str, *, anchor: str = "start", size: int = 12, weight: int = 400, colour: str = INK
) -> str:
    """A line of text; ``anchor`` is SVG's ``text-anchor``."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}">{escaped(words)}</text>'
    )


def escaped(words: str) -> str:
    """Text for XML, which admits no control characters at all."""
    return str(escape("".join(char if char.isprintable() else " " for char in words)))
