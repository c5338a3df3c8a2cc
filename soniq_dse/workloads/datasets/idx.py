"""Reader of IDX files, plain or gzip: a big-endian header, then the bytes of an array.

Format: two zero bytes, element type (8: unsigned byte), number of axes, then each axis as uint32. Source: Y. LeCun,
C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "FILE FORMATS FOR THE MNIST DATABASE".
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from soniq_dse.errors import UserError, nearest

UNSIGNED_BYTE = 8


def find(folder: Path, name: str) -> Path:
    """``folder/name.gz`` or ``folder/name``, whichever is there (the compressed one first).

    Raises:
        UserError: neither is.
    """
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    present = [p.name for p in folder.iterdir() if p.is_file()]
    got = nearest(f"{name}.gz", present) if present else "; the folder holds no file"
    raise UserError(f"{folder}: expected a file {name}.gz or {name}, got neither{got}")


def read(path: Path, item_shape: Sequence[int]) -> npt.NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes: ``[n, *item_shape]``, n as the header says.

    At most one byte more than the header promises is read, whatever a compressed file would expand to.

    Raises:
        UserError: no gzip or IDX file, other axes, cut short, or longer than its header says.
    """
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if compressed else path.open("rb") as stream:
            shape = _header(path, cast(BinaryIO, stream), item_shape)
            expected = math.prod(shape)
            content = stream.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: expected a whole IDX file, got one that cannot be read: {error}") from error
    if len(content) != expected:
        got = "more" if len(content) > expected else f"{len(content)} (cut short?)"
        raise UserError(f"{path}: expected {expected} bytes for {_times(shape)}, got {got}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _header(path: Path, stream: BinaryIO, item_shape: Sequence[int]) -> tuple[int, ...]:
    n_axes = 1 + len(item_shape)
    magic = stream.read(4)
    expected = bytes([0, 0, UNSIGNED_BYTE, n_axes])
    if magic != expected:
        raise UserError(
            f"{path}: expected an IDX file of unsigned bytes with {n_axes} axes (first bytes {expected.hex()}), "
            f"got {magic.hex() or 'an empty file'}"
        )
    sizes = stream.read(4 * n_axes)
    if len(sizes) != 4 * n_axes:
        raise UserError(f"{path}: expected {n_axes} sizes in the header, got {len(sizes)} bytes (cut short?)")
    shape = struct.unpack(f">{n_axes}I", sizes)
    if shape[1:] != tuple(item_shape) or not shape[0]:
        raise UserError(f"{path}: expected sizes {_times(['n', *item_shape])} with n > 0, got {_times(shape)}")
    return shape


def _times(shape: Sequence[object]) -> str:
    return " x ".join(map(str, shape))
