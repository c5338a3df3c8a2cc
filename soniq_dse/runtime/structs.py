"""The steps of ``executor.cpp`` as ctypes structures; a structure keeps alive the arrays that it points to."""

from __future__ import annotations

import ctypes
from enum import IntEnum

from soniq_dse.kernels.layer_structs import Struct


class Kind(IntEnum):
    """``Kind`` of ``executor.cpp``."""

    PACK = 0
    LAYER = 1
    QUANTIZE = 2
    COPY = 3
    MAX_POOL_CODES = 4
    MAX_POOL = 5
    AVERAGE_POOL = 6
    RELU = 7
    ADD = 8


_I64, _PTR = ctypes.c_int64, ctypes.c_void_p


class QuantizeStruct(Struct):
    """``SoniqQuantize``."""

    _fields_ = (
        ("in_", _PTR),
        *((name, _I64) for name in ("batch", "pixels", "channels", "batch_stride", "pixel_stride")),
        *((name, _PTR) for name in ("source", "out", "inverse", "shift", "lo", "hi")),
    )


class CopyStruct(Struct):
    """``SoniqCopy``."""

    _fields_ = (
        ("in_", _PTR),
        *((name, _I64) for name in ("batch", "pixels", "channels", "batch_stride", "pixel_stride")),
        ("source", _PTR),
        ("out", _PTR),
        ("out_pixel_stride", _I64),
        ("out_channel_stride", _I64),
    )


class PoolStruct(Struct):
    """``SoniqPool``."""

    _fields_ = (
        ("in_", _PTR),
        ("out", _PTR),
        *((name, _I64) for name in ("batch", "height", "width", "channels", "out_height", "out_width")),
        *((name, _I64) for name in ("kernel_height", "kernel_width", "stride_height", "stride_width")),
        ("scale", ctypes.c_float),
    )


class ElementwiseStruct(Struct):
    """``SoniqElementwise``."""

    _fields_ = (("first", _PTR), ("second", _PTR), ("out", _PTR), ("size", _I64))


class StepStruct(ctypes.Structure):
    """``SoniqStep``."""

    _fields_ = (("kind", _I64), ("arguments", _PTR))
