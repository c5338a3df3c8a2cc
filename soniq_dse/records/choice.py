"""Which kernel runs a part of a layer, in which layout, and why: made by the cost model or by measuring, then obeyed.

The same record goes to the estimate and to the runtime, so that what is priced is what runs.
"""

from __future__ import annotations

import functools
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from soniq_dse.records.base import Record
from soniq_dse.records.palette import Level


class PartShape(Record):
    """What decides which kernel is best for a part of a layer: one segment of one group.

    ``rows`` are output pixels of the batch, ``cols`` output channels of the group, ``taps`` kernel positions, of which
    ``run`` at a time read pixels side by side, ``channels`` input channels of the segment in the group (k is taps x
    channels), ``pixels`` input pixels to pack.
    Channels that do not lie side by side (``contiguous`` false) must be gathered.
    """

    level: Level
    signed: bool
    rows: PositiveInt
    cols: PositiveInt
    taps: PositiveInt
    run: PositiveInt = 1
    channels: PositiveInt
    pixels: PositiveInt
    contiguous: bool = True

    @property
    def name(self) -> str:
        """``w1a1 196x256x(9x128)``: level, rows, columns, taps times channels."""
        k = str(self.channels) if self.taps == 1 else f"({self.taps}x{self.channels})"
        return f"{self.level.name} {self.rows}x{self.cols}x{k}"

    @property
    def macs(self) -> int:
        """Multiply-accumulates, without padding."""
        return self.rows * self.cols * self.taps * self.channels

    @property
    def layouts(self) -> tuple[bool, ...]:
        """Whether taps may be folded into k: each layout that the driver has for this shape."""
        if not self.contiguous:
            return (True,)
        return (False,) if self.taps == 1 else (False, True)


class KernelOption(Record):
    """A kernel in a layout and its microseconds for the part: packing, loop and epilogue.

    ``folded``: taps and channels are one k, gathered per output row; else the image is packed once.
    """

    symbol: str
    folded: bool
    latency_us: Annotated[float, Field(ge=0)]


class KernelChoice(Record):
    """What runs a part: the first of ``options``, which are ordered by latency; the others are what it was chosen over.

    ``source``: whether a cost model predicted the latencies, or this machine measured them.
    """

    shape: PartShape
    source: Literal["predicted", "measured"]
    options: Annotated[tuple[KernelOption, ...], Field(min_length=1)]

    @property
    def taken(self) -> KernelOption:
        """The option that runs."""
        return self.options[0]

    @property
    def reason(self) -> str:
        """Why this kernel, and what the second best would cost."""
        best = self.taken
        said = f"{_layout(best)}: {self.source} {best.latency_us:.4g} us"
        if len(self.options) == 1:
            return f"{said}; nothing else serves {self.shape.name}"
        second = self.options[1]
        more = f"{second.latency_us / best.latency_us - 1:+.0%}" if best.latency_us else "more"
        return f"{said}; second best {_layout(second)}: {second.latency_us:.4g} us ({more})"


class Choices(Record):
    """The choices for the parts of a network; a shape that is not among them is left to whoever asks."""

    made: tuple[KernelChoice, ...] = ()

    def of(self, shape: PartShape) -> KernelChoice | None:
        """The choice made for ``shape``."""
        return self._by_shape.get(shape)

    @functools.cached_property
    def _by_shape(self) -> dict[PartShape, KernelChoice]:
        return {choice.shape: choice for choice in self.made}


def _layout(option: KernelOption) -> str:
    return f"{option.symbol}, taps folded into k" if option.folded else option.symbol


class TunedKernel(Record):
    """A choice that was measured, with all that it holds for: the processor, compiler and sources, and ``threads``.

    ``processor`` names vendor, family, model and stepping too; ``sources_sha256`` is of everything that is compiled.
    ``settled`` is false where the spread of a measurement stayed above the helper's limit.
    """

    choice: KernelChoice
    processor: str
    features: tuple[str, ...]
    compiler: str
    sources_sha256: str
    threads: PositiveInt
    settled: bool
    date: str
    versions: dict[str, str] = {}
