"""What activations and offsets make of a tensor: its sign, a clip, or a reason with the nearest choice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from traced_nets import Function, conv, read_by, traced


def test_sign_follows_what_the_quantizer_sees() -> None:
    def forward(self: Function, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x = self.b(x)
        x = self.c(functional.relu6(x))
        x = self.d(torch.sub(functional.relu(x), 1) + functional.relu(x))
        return self.e(functional.avg_pool2d(functional.relu(x) + functional.relu(-x), 2))

    workload = traced(Function(forward, **{name: conv(4, 4) for name in "abcde"}), 1, 4, 8, 8, nonnegative=False)
    signs = {c.consumers: c.nonnegative for c in workload.tensor_classes}
    assert signs == {("a",): False, ("b",): False, ("c",): True, ("d",): False, ("e",): True}
    assert traced(nn.Sequential(conv(1, 1)), 1, 1, 4, 4).tensor_classes[0].nonnegative
    assert not traced(nn.Sequential(conv(1, 1)), 1, 1, 4, 4, nonnegative=False).tensor_classes[0].nonnegative


@pytest.mark.parametrize(
    "clip", [nn.ReLU6(), nn.Hardtanh(0, 6), functional.relu6, lambda x: x.clamp(0, 6), lambda x: x.clamp(min=0, max=6)]
)
def test_what_is_kept_between_0_and_a_bound_is_a_clip(clip: Callable[[torch.Tensor], torch.Tensor]) -> None:
    workload = traced(Function(lambda self, x: self.b(clip(self.a(x))), a=conv(4, 4), b=conv(4, 4)), 1, 4, 8, 8)
    assert workload.unsupported == ()
    assert (workload.nodes[2].op, workload.nodes[2].attributes) == ("clip", {"most": 6.0})
    assert read_by(workload, "b").nonnegative


@pytest.mark.parametrize(
    ("act", "nearest"),
    [
        (nn.Hardtanh(), "nn.ReLU and nn.ReLU6"),
        (nn.Hardtanh(1, 6), "nn.ReLU and nn.ReLU6"),
        (nn.LeakyReLU(), "nn.ReLU and nn.ReLU6"),
        (nn.SiLU(), "nn.GELU and nn.ReLU6"),
        (nn.Hardswish(), "nn.GELU and nn.ReLU6"),
    ],
)
def test_other_activations_are_named_with_the_nearest(act: nn.Module, nearest: str) -> None:
    (part,) = traced(nn.Sequential(conv(4, 4), act, conv(4, 4)), 1, 4, 8, 8).unsupported
    assert part.node == "1"
    assert f"the nearest that it has are {nearest}" in part.reason


@pytest.mark.parametrize(("offset", "nonnegative"), [(nn.Parameter(torch.zeros(1, 2, 1, 1)), False), (1, False)])
def test_an_offset_takes_the_sign_away(offset: object, nonnegative: bool) -> None:
    net = Function(
        lambda self, x: self.b(functional.relu(self.a(x)) + self.offset), a=conv(1, 2), b=conv(2, 2), offset=offset
    )
    assert read_by(traced(net, 1, 1, 4, 4), "b").nonnegative is nonnegative
