"""Strips: the packed input of layers. A strip is a row of the image, its pixels packed for a kernel, with its border.

Taps are pointers into strips (``cpu/layer.h``). Where packed pixels lie side by side without gaps, those under one row
of the convolution's kernel are one long k: fewer taps, and no padding of k per pixel.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from soniq_dse.kernels.catalog import token_bits
from soniq_dse.kernels.layer_structs import PackStruct
from soniq_dse.kernels.library import ALIGNMENT_BYTES, Kernel, round_up

Ints = NDArray[np.int64]
_GRANULES = (1, 2, 4, 8, 16, 32, 64)
_PROBED_K = 3840


@dataclass(frozen=True)
class Geometry:
    """Where the rows of the implicit GEMM find their input pixels; a linear layer is an image of 1 x 1."""

    batch: int
    height: int = 1
    width: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def out_size(self) -> tuple[int, int]:
        """(height, width) of the output."""
        size = [
            (extent + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i, extent in enumerate((self.height, self.width))
        ]
        return size[0], size[1]

    @property
    def rows(self) -> int:
        """Output pixels of the batch."""
        return self.batch * self.out_size[0] * self.out_size[1]

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return self.kernel[0] * self.kernel[1]

    @property
    def pixels(self) -> int:
        """Input pixels of the batch."""
        return self.batch * self.height * self.width

    @property
    def is_flat(self) -> bool:
        """Whether output row r reads input pixel r and nothing else."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)

    @property
    def has_runs(self) -> bool:
        """Whether the pixels under one row of the kernel are several and side by side."""
        return self.kernel[1] > 1 and self.dilation[1] == 1

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels that windows reach beyond the image: (to the left, to the right)."""
        last = (self.out_size[1] - 1) * self.stride[1] + self.dilation[1] * (self.kernel[1] - 1) - self.padding[1]
        return self.padding[1], max(0, last - (self.width - 1))


@dataclass(frozen=True)
class Strips:
    """Strips of the ``k`` channels from ``first`` on (or of those in ``channels``), packed for ``kernel``.

    Equal strips of one tensor are shared. Without a kernel they hold plain codes; ``bare`` ones are the tensor of codes
    itself. ``flat``: every pixel is a strip of its own, aligned (layers without windows). ``left`` and ``right``:
    pixels of border.
    """

    kernel: Kernel | None
    first: int
    k: int
    channels: tuple[int, ...] | None = None
    flat: bool = False
    dense: bool = False
    bare: bool = False
    left: int = 0
    right: int = 0

    @property
    def name(self) -> str:
        """What tells them from the other strips of their tensor."""
        kernel = "codes" if self.kernel is None else self.kernel.spec.symbol
        which = f"{self.first}+{self.k}" if self.channels is None else ",".join(map(str, self.channels))
        return f"{kernel}:{which}:{'flat' if self.flat else 'dense' if self.dense else 'rows'}"

    @property
    def pixel_bytes(self) -> int:
        """From one packed pixel to the next."""
        if self.kernel is None:
            return self.k
        if self.dense:
            return packed_bytes(self.kernel, round_up(self.k, granule(self.kernel)))
        return self.kernel.a_row_stride(self.k)

    def ld(self, geometry: Geometry) -> int:
        """Bytes from one strip to the next; packing one, which may write past its end, never reaches the next."""
        if self.flat:
            return self.pixel_bytes
        pixels = (self.left + geometry.width + self.right) * self.pixel_bytes
        if self.kernel is None:
            return pixels if self.bare else round_up(pixels, ALIGNMENT_BYTES)
        whole = self.kernel.a_row_bytes(geometry.width * self.k)
        last = (geometry.width - 1) * self.pixel_bytes + self.kernel.a_row_bytes(self.k)
        return round_up(max(pixels, self.left * self.pixel_bytes + max(whole, last)), ALIGNMENT_BYTES)

    def size_bytes(self, geometry: Geometry) -> int:
        """Bytes of all strips and the one of pad pixels."""
        return (self.count(geometry) + 1) * self.ld(geometry)

    def count(self, geometry: Geometry) -> int:
        """Strips of the batch."""
        return geometry.pixels if self.flat else geometry.batch * geometry.height

    def struct(
        self, geometry: Geometry, *, codes: int, ld_codes: int, pad_codes: NDArray[np.uint8], out: int
    ) -> PackStruct:
        """The arguments of the step that makes them, ``out`` being their address and ``codes`` that of their tensor."""
        width = 1 if self.flat else geometry.width
        joins = self.kernel is None or (self.dense and self.k % granule(self.kernel) == 0)
        contiguous = self.channels is None and joins and ld_codes == self.k
        positions = np.arange(self.first, self.first + self.k) if self.channels is None else np.asarray(self.channels)
        pad = np.ascontiguousarray(pad_codes[positions])
        pixel = pad if self.kernel is None else self.kernel.pack_a(pad[None])[0]
        padded = np.zeros(self.pixel_bytes, np.uint8)
        padded[: len(pixel)] = pixel[: self.pixel_bytes]
        return PackStruct(
            kernel=None if self.kernel is None else self.kernel.address,
            codes=codes + self.first,
            channels=None if self.channels is None else positions.astype(np.int32),
            ld_codes=ld_codes,
            n_strips=self.count(geometry),
            width=width,
            k=self.k,
            by_strip=int(contiguous or (self.kernel is not None and width == 1)),
            out=out,
            ld_out=self.ld(geometry),
            pixel_bytes=self.pixel_bytes,
            left=self.left,
            right=self.right,
            pad_pixel=padded,
        )


def bordered(strips: Strips, readers: Iterable[Geometry]) -> Strips:
    """The strips with the border that all layers which read their tensor need, so that these may share them."""
    if strips.flat or strips.bare:
        return strips
    reaches = [geometry.reach for geometry in readers]
    return replace(strips, left=max(left for left, _ in reaches), right=max(right for _, right in reaches))


@functools.lru_cache(maxsize=256)
def granule(kernel: Kernel) -> int:
    """The least number of elements that a kernel packs on their own, so that packed rows of whole granules may be
    joined into one; 0: there is none up to 64, or rows hold more than their elements. Found by packing."""
    bits = token_bits(kernel.spec.act)
    if kernel.spec.act == "f32" or kernel.a_row_bytes(_PROBED_K) != packed_bytes(kernel, _PROBED_K):
        return 0
    for size in _GRANULES:
        codes = np.random.default_rng(size).integers(0, 2**bits, (4, size)).astype(np.uint8)
        each = packed_bytes(kernel, size)
        joined = kernel.pack_a(codes.reshape(1, -1))[0, : 4 * each]
        if each and np.array_equal(joined, kernel.pack_a(codes)[:, :each].reshape(-1)):
            return size
    return 0


def packed_bytes(kernel: Kernel, k: int) -> int:
    """Bytes that k elements of a long packed row take; 0: no whole number."""
    grown = (kernel.a_row_bytes(2 * _PROBED_K) - kernel.a_row_bytes(_PROBED_K)) * k
    return 0 if grown % _PROBED_K else grown // _PROBED_K
