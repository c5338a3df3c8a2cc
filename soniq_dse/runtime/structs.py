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
    EMBEDDING = 9
    ADD_CONSTANT = 10
    LAYER_NORM = 11
    ATTENTION = 12
    WEIGHT_ONLY = 13
    KEEP = 14
    ALONE = 15
    GELU = 16
    CLIP = 17
    PREPEND = 18


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
        *((name, _I64) for name in ("pad_height", "pad_width")),
        ("scale", ctypes.c_float),
    )


class ElementwiseStruct(Struct):
    """``SoniqElementwise``."""

    _fields_ = (("first", _PTR), ("second", _PTR), ("out", _PTR), ("size", _I64))


class GeluStruct(Struct):
    """``SoniqGelu``."""

    _fields_ = (("in_", _PTR), ("out", _PTR), ("size", _I64), ("is_tanh", ctypes.c_int32))


class ClipStruct(Struct):
    """``SoniqClip``."""

    _fields_ = (("in_", _PTR), ("out", _PTR), ("size", _I64), ("most", ctypes.c_float))


class EmbeddingStruct(Struct):
    """``SoniqEmbedding``."""

    _fields_ = (
        ("numbers", _PTR),
        *((name, _I64) for name in ("batch", "tokens", "ld_numbers", "channels")),
        *((name, _PTR) for name in ("table", "scale", "out")),
    )


class AddConstantStruct(Struct):
    """``SoniqAddConstant``."""

    _fields_ = (
        *((name, _PTR) for name in ("in_", "constant", "out")),
        *((name, _I64) for name in ("batch", "size")),
        ("position", _PTR),
        ("channels", _I64),
    )


class PrependStruct(Struct):
    """``SoniqPrepend``."""

    _fields_ = (
        *((name, _PTR) for name in ("in_", "rows", "out")),
        *((name, _I64) for name in ("batch", "size", "size_rows")),
    )


class LayerNormStruct(Struct):
    """``SoniqLayerNorm``."""

    _fields_ = (
        *((name, _PTR) for name in ("in_", "out")),
        *((name, _I64) for name in ("rows", "channels")),
        *((name, _PTR) for name in ("gain", "bias")),
        *((name, ctypes.c_float) for name in ("share", "eps")),
    )


class KeepStruct(Struct):
    """``SoniqKeep``."""

    _fields_ = (
        *((name, _PTR) for name in ("key", "value")),
        *((name, _I64) for name in ("batch", "tokens", "channels", "heads", "others")),
        *((name, _PTR) for name in ("position", "keys", "values")),
    )


class AttentionStruct(Struct):
    """``SoniqAttention``."""

    _fields_ = (
        *((name, _PTR) for name in ("query", "key", "value", "numbers")),
        *((name, _I64) for name in ("batch", "tokens", "others", "channels", "heads", "ld_numbers")),
        *((name, ctypes.c_float) for name in ("scale", "hidden")),
        *((name, ctypes.c_int32) for name in ("hidden_token", "causal")),
        *((name, _PTR) for name in ("kept_keys", "position", "out", "scratch")),
        ("scratch_floats", _I64),
    )


class WeightOnlyStruct(Struct):
    """``SoniqWeightOnly``."""

    _fields_ = (
        *((name, _PTR) for name in ("kernel", "in_")),
        *((name, _I64) for name in ("rows", "cols", "k", "ld_packed", "block_columns")),
        *((name, _PTR) for name in ("weights", "scale", "bias", "out", "scratch")),
        ("scratch_bytes", _I64),
    )


class StepStruct(ctypes.Structure):
    """``SoniqStep``."""

    _fields_ = (("kind", _I64), ("arguments", _PTR))


class AloneStruct(ctypes.Structure):
    """``SoniqAlone``."""

    _fields_ = (("steps", _PTR), ("count", _I64))
