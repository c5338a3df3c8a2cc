"""What others compute the same products with on a GPU: PyTorch's own kernels, GemLite and Humming where installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Run = Callable[[int], object]
"""One product with copy i of the weights."""
GROUP = 128
"""Input channels that share a scale, where a peer asks for such."""
MOST_COPIES = 4
"""Layers of a peer that packs by itself: enough to fill the cache several times over at the goals' sizes."""


@dataclass(frozen=True)
class Peer:
    """``build(torch, rows, cols, k, copies)`` makes operands and gives the product."""

    name: str
    weight_bits: int
    serves: Callable[[int, int], bool]
    build: Callable[[Any, int, int, int, int], Run]


def _cublas(torch: Any, rows: int, cols: int, k: int, copies: int) -> Run:
    x = torch.randn(rows, k, device="cuda", dtype=torch.float16)
    w = torch.randn(copies, cols, k, device="cuda", dtype=torch.float16)
    return lambda i: torch.mm(x, w[i].t())


def _int8(torch: Any, rows: int, cols: int, k: int, copies: int) -> Run:
    x = torch.randint(-127, 128, (rows, k), device="cuda", dtype=torch.int8)
    w = torch.randint(-127, 128, (copies, cols, k), device="cuda", dtype=torch.int8)
    return lambda i: torch._int_mm(x, w[i].t())


def _fp8(torch: Any, rows: int, cols: int, k: int, copies: int) -> Run:
    x = torch.randn(rows, k, device="cuda").to(torch.float8_e4m3fn)
    w = torch.randn(copies, cols, k, device="cuda", dtype=torch.float16).to(torch.float8_e4m3fn)
    one = torch.ones((), device="cuda")
    return lambda i: torch._scaled_mm(x, w[i].t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def _int4(torch: Any, rows: int, cols: int, k: int, copies: int) -> Run:
    x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
    codes = (torch.randint(0, 256, (cols, k // 2), device="cuda", dtype=torch.uint8) for _ in range(copies))
    w = [torch._convert_weight_to_int4pack(code, 8) for code in codes]
    scales = torch.ones(k // GROUP, cols, 2, device="cuda", dtype=torch.bfloat16)
    return lambda i: torch._weight_int4pack_mm(x, w[i], GROUP, scales)


def _gemlite(bits: int) -> Callable[[Any, int, int, int, int], Run]:
    def build(torch: Any, rows: int, cols: int, k: int, copies: int) -> Run:
        from gemlite.core import DType, GemLiteLinearTriton

        layers = []
        for _ in range(min(copies, MOST_COPIES)):
            layer = GemLiteLinearTriton(
                bits, group_size=GROUP, in_features=k, out_features=cols, input_dtype=DType.FP16,
                output_dtype=DType.FP16,
            )  # fmt: skip
            codes = torch.randint(0, 2**bits, (cols, k), device="cuda", dtype=torch.uint8)
            scales = torch.ones(cols * k // GROUP, 1, device="cuda", dtype=torch.float16)
            layer.pack(codes, scales, scales * (2**bits - 1) / 2, None)
            layers.append(layer)
        x = torch.randn(rows, k, device="cuda", dtype=torch.float16)
        return lambda i: layers[i % len(layers)](x)

    return build


def _humming(torch: Any, rows: int, cols: int, k: int, copies: int) -> Run:
    from humming.layer import HummingLayer

    layers = []
    for _ in range(min(copies, MOST_COPIES)):
        form = {"dtype": "uint4", "group_size": GROUP, "scale_dtype": "float16", "has_zero_point": False}
        layer = HummingLayer(shape_n=cols, shape_k=k, weight_config=form, torch_dtype=torch.float16).cuda()
        layer.load_from_unquantized(torch.randn(cols, k, device="cuda", dtype=torch.float16))
        layer.transform()
        layers.append(layer)
    x = torch.randn(rows, k, device="cuda", dtype=torch.float16)
    return lambda i: layers[i % len(layers)](x)


PEERS = (
    Peer("cuBLAS FP16", 16, lambda rows, bits: True, _cublas),
    Peer("torch._int_mm", 8, lambda rows, bits: rows > 16, _int8),
    Peer("torch._scaled_mm", 8, lambda rows, bits: rows >= 16, _fp8),
    Peer("torch._weight_int4pack_mm", 4, lambda rows, bits: bits <= 4, _int4),
    Peer("GemLite W4", 4, lambda rows, bits: bits <= 4, _gemlite(4)),
    Peer("GemLite W2", 2, lambda rows, bits: bits <= 2, _gemlite(2)),
    Peer("GemLite W1", 1, lambda rows, bits: bits == 1, _gemlite(1)),
    Peer("Humming W4", 4, lambda rows, bits: bits <= 4, _humming),
)
"""``serves(rows, weight bits)``: a peer whose weights are at least as wide as those that are asked."""
