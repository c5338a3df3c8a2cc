"""What the models here are made of."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

CHANNEL_MULTIPLE = 8
"""Scaled widths are multiples of this."""


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width``, rounded to a multiple of 8, at least 8 (at width 1: unchanged)."""
    if width == 1:
        return channels
    return max(CHANNEL_MULTIPLE, round(channels * width / CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE)


def plain_cnn(in_channels: int, stages: tuple[tuple[int, ...], ...], image_size: int, n_classes: int) -> nn.Sequential:
    """3x3 convolutions, each with BatchNorm and ReLU; each stage ends in a 2x2 max pool; then a linear layer.

    Modules are named ``conv1, bn1, relu1, ... pool1, ... flatten, classifier``; input ``[n, in_channels, image_size,
    image_size]``, logits ``[n, n_classes]``.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels, index = in_channels, 0
    for stage, widths in enumerate(stages, start=1):
        for width in widths:
            index += 1
            parts[f"conv{index}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            parts[f"bn{index}"] = nn.BatchNorm2d(width)
            parts[f"relu{index}"] = nn.ReLU()
            channels = width
        parts[f"pool{stage}"] = nn.MaxPool2d(2)
        image_size //= 2
    parts["flatten"] = nn.Flatten()
    parts["classifier"] = nn.Linear(channels * image_size**2, n_classes)
    return nn.Sequential(parts)


class ResidualBlock(nn.Module):  # type: ignore[misc]  # torch is not type-checked here: Module is Any
    """Basic block of He et al. (CVPR 2016, fig. 2): two 3x3 convolutions; 1x1 shortcut where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, in_channels, h, w]`` -> ``[n, out_channels, h / stride, w / stride]``."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + self.shortcut(x))


def cifar_resnet(widths: tuple[int, ...], blocks_per_stage: int, n_classes: int) -> nn.Sequential:
    """3x3 stem, one stage of basic blocks per width (from the second on halving the image), average pool, linear.

    Shortcuts that change shape are 1x1 convolutions (option B of He et al., CVPR 2016). Modules are named ``conv, bn,
    relu, stage1.0 ... , pool, flatten, classifier``; input ``[n, 3, h, w]``, logits ``[n, n_classes]``.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
    parts["bn"] = nn.BatchNorm2d(widths[0])
    parts["relu"] = nn.ReLU()
    channels = widths[0]
    for stage, width in enumerate(widths, start=1):
        blocks = []
        for index in range(blocks_per_stage):
            blocks.append(ResidualBlock(channels, width, stride=2 if stage > 1 and index == 0 else 1))
            channels = width
        parts[f"stage{stage}"] = nn.Sequential(*blocks)
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["classifier"] = nn.Linear(channels, n_classes)
    return nn.Sequential(parts)
