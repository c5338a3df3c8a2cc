"""MobileNetV2 for 32x32 images: 2.2 million weights."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.models.blocks import scaled

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""(expansion, channels, blocks, stride of the first) of each stage."""


class Mobilenetv2(models.Base):
    """Inverted residual blocks with depthwise convolutions and ReLU6.

    Source: Sandler et al., MobileNetV2, CVPR 2018, table 2, with stride 1 in the stem and the second stage, as is usual
    for CIFAR.
    """

    dataset = "cifar10"
    input_shape = (3, 32, 32)
    schedule = Schedule(baseline_epochs=40, noise_epochs=15, finetune_epochs=25, batch_size=128)

    def build(self, width: float = 1.0) -> nn.Module:
        """``[n, 3, 32, 32]`` -> logits ``[n, 10]``."""
        channels, last = scaled(32, width), scaled(1280, width)
        parts: OrderedDict[str, nn.Module] = OrderedDict(stem=_convolution(3, channels, 3))
        for index, (expansion, plain_width, blocks, stride) in enumerate(STAGES, start=1):
            made = []
            for block in range(blocks):
                made.append(_Inverted(channels, scaled(plain_width, width), expansion, stride if block == 0 else 1))
                channels = scaled(plain_width, width)
            parts[f"stage{index}"] = nn.Sequential(*made)
        parts["last"] = _convolution(channels, last, 1)
        parts["pool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        parts["classifier"] = nn.Linear(last, 10)
        return nn.Sequential(parts)


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), relu6=nn.ReLU6()))


class _Inverted(nn.Module):  # type: ignore[misc]  # torch is not type-checked here: Module is Any
    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.expand = _convolution(in_channels, wide, 1) if expansion > 1 else nn.Sequential()
        self.depthwise = _convolution(wide, wide, 3, stride, groups=wide)
        self.project, self.bn = nn.Conv2d(wide, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn(self.project(self.depthwise(self.expand(x))))
        return x + out if self.adds else out
