"""The structures of the layer driver (``cpu/layer.h``) in ctypes; a structure keeps alive the arrays it points to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.kernels.library import ALIGNMENT_BYTES, aligned_empty


class Struct(ctypes.Structure):
    """A C structure that takes arrays for pointers and keeps them alive, aligned so that no vector spans two lines."""

    def __init__(self, **fields: Any) -> None:
        fields = {name: _aligned(value) if isinstance(value, np.ndarray) else value for name, value in fields.items()}
        self.kept = [value for value in fields.values() if isinstance(value, np.ndarray | ctypes.Array)]
        super().__init__(**{name: address_of(value) for name, value in fields.items()})


def array_of(kind: type[Struct], items: Sequence[Struct]) -> Any:
    """A C array of structures, which it keeps alive with all that they point to."""
    array: Any = (kind * max(len(items), 1))(*items)
    array.kept = list(items)
    return array


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    if array.ctypes.data % ALIGNMENT_BYTES == 0 and array.flags.c_contiguous:
        return array
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def address_of(value: Any) -> Any:
    """The address of an array; None and plain numbers as they are."""
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    return ctypes.addressof(value) if isinstance(value, ctypes.Array) else value


_I64, _I32, _PTR = ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class PackStruct(Struct):
    """``SoniqPack``."""

    _fields_ = (
        *_fields(_PTR, "kernel codes channels"),
        *_fields(_I64, "ld_codes n_strips width k by_strip"),
        ("out", _PTR),
        *_fields(_I64, "ld_out pixel_bytes left right"),
        ("pad_pixel", _PTR),
    )


class PartStruct(Struct):
    """``SoniqPart``."""

    _fields_ = (
        *_fields(_PTR, "kernel weights offset scale"),
        *_fields(_I32, "left right"),
        *_fields(_I64, "taps k first_column cols"),
        *_fields(_I32, "is_first is_last"),
        ("image", _PTR),
        *_fields(_I64, "ld_image pixel_bytes column_bytes"),
        ("pad_pixel", _PTR),
        *_fields(_I64, "first_pixel taps_per_row run_codes ld_folded"),
    )


class CodesOutStruct(Struct):
    """``SoniqCodesOut``."""

    _fields_ = (("codes", _PTR), ("ld", _I64), *_fields(_PTR, "inverse shift lo hi"), ("rectifies", _I64))


class LayerStruct(Struct):
    """``SoniqLayer``."""

    _fields_ = (
        *_fields(_I64, "rows cols block_rows block_columns columns_first"),
        *_fields(_I64, "rows_at_once row_shares column_shares column_step"),
        *_fields(_I64, "band_rows pool_height pool_width pool_row_step pool_column_step pool_bands"),
        *_fields(_I64, "out_height out_width height width n_strips kernel_height stride_height stride_width"),
        *_fields(_I64, "pad_height pad_width dilation_height dilation_width"),
        ("parts", _PTR),
        ("n_parts", _I64),
        *_fields(_PTR, "bias residual"),
        *_fields(_I32, "relu_first relu_last"),
        *_fields(_PTR, "out codes_out"),
        *_fields(_I64, "n_codes_out scratch_bytes"),
        *_fields(_PTR, "acc tile pointers folded_codes folded_rows"),
    )
