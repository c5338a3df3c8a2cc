"""The layers that ``crosscheck`` takes where it is given none: shapes of common networks at the usual levels.

Their measurements, kept, are what intervals of estimates rest on; so the set covers one row and many, narrow and wide,
groups, strides, kernels of 1 x 1 to 5 x 5, mixes of levels, and weights that stay in each cache.
"""

from __future__ import annotations

from collections.abc import Iterator

from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Segment

_LEVELS = ((1, 1), (2, 2), (1, 4), (2, 4), (4, 4), (4, 8), (8, 8))
_MIXES = (((1, 1), (4, 4)), ((2, 2), (8, 8)))
_GEMMS = ((1, 256, 256), (1, 1000, 512), (1, 1024, 1024), (1, 4096, 4096), (8, 512, 512), (16, 1024, 1024),
          (49, 512, 512), (64, 384, 1536), (128, 256, 1152))  # fmt: skip
_CONVS = ((16, 16, 32, 3, 1, 1), (32, 32, 16, 3, 1, 1), (64, 64, 8, 3, 1, 1), (64, 64, 28, 3, 1, 1),
          (128, 128, 14, 3, 1, 1), (256, 256, 7, 3, 1, 1), (64, 128, 28, 3, 2, 1), (64, 256, 14, 1, 1, 1),
          (256, 64, 14, 1, 1, 1), (32, 64, 14, 5, 1, 1), (64, 64, 14, 3, 1, 4), (32, 32, 14, 3, 1, 32))  # fmt: skip
"""(input channels, output channels, height and width, kernel, stride, groups); padding keeps the size."""


def built_in_layers() -> tuple[GemmLayer | Conv2dLayer, ...]:
    """All shapes at all levels, and at mixes where their channels divide."""
    return tuple(_gemms()) + tuple(_convs())


def _gemms() -> Iterator[GemmLayer]:
    for m, n, k in _GEMMS:
        for text, segments in _palettes(k):
            yield GemmLayer(name=f"gemm {m}x{n}x{k} {text}", m=m, n=n, k=k, segments=segments)


def _convs() -> Iterator[Conv2dLayer]:
    for channels, out_channels, size, kernel, stride, groups in _CONVS:
        extra = (f" stride {stride}" if stride > 1 else "") + (f" groups {groups}" if groups > 1 else "")
        shape = f"conv {kernel}x{kernel} {size}x{size} {channels}>{out_channels}{extra}"
        for text, segments in _palettes(channels):
            yield Conv2dLayer(
                name=f"{shape} {text}", in_channels=channels, out_channels=out_channels, height=size, width=size,
                kernel=(kernel, kernel), stride=(stride, stride), padding=(kernel // 2, kernel // 2), groups=groups,
                segments=segments,
            )  # fmt: skip


def _palettes(channels: int) -> Iterator[tuple[str, tuple[Segment, ...]]]:
    mixes = _MIXES if channels % 32 == 0 else ()
    for levels in (*((level,) for level in _LEVELS), *mixes):
        segments = tuple(
            Segment(weight_bits=weight, activation_bits=activation, channels=channels // len(levels))
            for weight, activation in levels
        )
        yield "+".join(segment.level.name for segment in segments), segments
