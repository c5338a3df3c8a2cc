"""Tables worked by hand. Nothing here is produced by the program."""

from __future__ import annotations

import numpy as np
import pytest

from soniq_dse.formats import deployment
from soniq_dse.formats.deployment import Window
from soniq_dse.formats.int8 import Int8
from soniq_dse.formats.unsigned import Unsigned
from soniq_dse.formats.zerofree import ZeroFree
from soniq_dse.records.network import TensorQuantizer
from soniq_dse.records.palette import Palette


@pytest.mark.parametrize(
    ("family", "bits", "levels"),
    [
        (ZeroFree, 1, [-1, 1]),
        (ZeroFree, 2, [-3, -1, 1, 3]),
        (ZeroFree, 3, [-7, -5, -3, -1, 1, 3, 5, 7]),
        (ZeroFree, 4, [-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15]),
        (Unsigned, 1, [0, 1]),
        (Unsigned, 2, [0, 1, 2, 3]),
        (Int8, 8, list(range(-127, 128))),
    ],
)
def test_levels(family: type, bits: int, levels: list[int]) -> None:
    assert family.levels(bits).tolist() == levels


@pytest.mark.parametrize(
    ("family", "bits", "step", "table"),
    [
        # zero-free, 2 bits, step 0.5: v = x / 1.0 + 1.5 (c = 3)
        #   x = -9: v = -7.5 -> clamp 0 | -1.0: 0.5 -> 0 (tie to even) | -0.9: 0.6 -> 1 | -0.01: 1.49 -> 1
        #   0: 1.5 -> 2 (tie to even, +step) | 0.4: 1.9 -> 2 | 1.0: 2.5 -> 2 (tie to even) | 1.1: 2.6 -> 3 | 9: clamp 3
        (ZeroFree, 2, 0.5, {-9: 0, -1.0: 0, -0.9: 1, -0.01: 1, 0.0: 2, 0.4: 2, 1.0: 2, 1.1: 3, 9: 3}),
        # zero-free, 1 bit, step 0.25: v = x / 0.5 + 0.5. 0: 0.5 -> 0 (tie to even: -step)
        #   -0.2: 0.1 -> 0 | 0.2: 0.9 -> 1 | 0.5: 1.5 -> 2 -> clamp 1
        (ZeroFree, 1, 0.25, {-0.2: 0, 0.0: 0, 0.2: 1, 0.5: 1}),
        # unsigned, 2 bits, step 0.5: v = x / 0.5. -1: clamp 0 | 0.25: 0.5 -> 0 | 0.3: 0.6 -> 1 | 0.75: 1.5 -> 2
        #   1.25: 2.5 -> 2 | 1.3: 2.6 -> 3 | 9: clamp 3
        (Unsigned, 2, 0.5, {-1: 0, 0.0: 0, 0.25: 0, 0.3: 1, 0.75: 2, 1.25: 2, 1.3: 3, 9: 3}),
        # int8, step 2: v = x / 2 + 128. -300: -22 -> clamp 1 (-127) | -1: 127.5 -> 128 (0) | 1: 128.5 -> 128 (0)
        #   3: 129.5 -> 130 (2) | 254: 255 (127) | 300: 278 -> clamp 255
        (Int8, 8, 2.0, {-300: 1, -1: 128, 0: 128, 1: 128, 3: 130, 254: 255, 300: 255}),
    ],
)
def test_rounding(family: type, bits: int, step: float, table: dict[float, int]) -> None:
    assert family.quantize(list(table), step, bits).tolist() == list(table.values())


def test_packing() -> None:
    # 2 bits, codes 1 2 3 0 | 2: byte 0 = 1 + 2*4 + 3*16 + 0*64 = 57; byte 1 = 2
    assert ZeroFree.pack(np.array([1, 2, 3, 0, 2], dtype=np.uint8), 2).tolist() == [57, 2]
    # 1 bit, codes 1 0 1 1 0 0 0 1 | 1: 1 + 4 + 8 + 128 = 141; 1
    assert ZeroFree.pack(np.array([1, 0, 1, 1, 0, 0, 0, 1, 1], dtype=np.uint8), 1).tolist() == [141, 1]
    # 3 bits, codes 5 3 6: stream 5 + 3*8 + 6*64 = 413 = 1*256 + 157
    assert Unsigned.pack(np.array([5, 3, 6], dtype=np.uint8), 3).tolist() == [157, 1]


def test_a_mixed_convolution() -> None:
    """One 1x2 image, kernel 1x1 + padding (0, 1), channels: 0 at w1a1 step 2, 1 at w2a2 step 0.5, signed.

    x0 = [3, -1]:   v = x / 4 + 0.5 = 1.25, 0.25 -> codes 1, 0 -> integers +1, -1
    x1 = [0.4, -2]: v = x / 1 + 1.5 = 1.9, -0.5  -> codes 2, 0 -> integers +1, -3 (-0.5 rounds to -0)
    padding: code 1 (+1) for 1 bit, code 2 (+1) for 2 bits.
    weight w[0] = (-1, 3), w[1] = (1, -1):
      acc level 0: o=0: -1 * (1, 1, -1, 1) = (-1, -1, 1, -1)   o=1: (1, 1, -1, 1)
      acc level 1: o=0: 3 * (1, 1, -3, 1)  = (3, 3, -9, 3)     o=1: (-1, -1, 3, -1)
    scale level 0 = (2, 1), level 1 = (0.5, 4), bias = (10, -1):
      o=0: 2*acc0 + 0.5*acc1 + 10 = (-2 + 1.5 + 10, same, 2 - 4.5 + 10, as first) = (9.5, 9.5, 7.5, 9.5)
      o=1: acc0 + 4*acc1 - 1      = (1 - 4 - 1, same, -1 + 12 - 1, as first)     = (-4, -4, 10, -4)
    """
    quantizer = TensorQuantizer(
        palette=Palette.parse("w1a1+w2a2"), level_of_channel=(0, 1), steps=(2.0, 0.5), signed=True
    )
    grids = deployment.channel_grids(quantizer)
    codes = deployment.requantize(np.array([[[[3, -1]], [[0.4, -2]]]], dtype=np.float32), grids)
    assert codes.tolist() == [[[[1, 0]], [[2, 0]]]]
    weight = np.array([[-1, 3], [1, -1]]).reshape(2, 2, 1, 1)
    accumulators = deployment.accumulate_conv2d(codes, grids, weight, Window(padding=(0, 1)))
    assert accumulators[0].tolist() == [[[[-1, -1, 1, -1]], [[1, 1, -1, 1]]]]
    assert accumulators[1].tolist() == [[[[3, 3, -9, 3]], [[-1, -1, 3, -1]]]]
    scale = np.array([[2, 1], [0.5, 4]], dtype=np.float32)
    out = deployment.epilogue(accumulators, scale, np.array([10, -1], dtype=np.float32))
    assert out.tolist() == [[[[9.5, 9.5, 7.5, 9.5]], [[-4, -4, 10, -4]]]]
