"""Small residual net for digits: its adds join tensors into classes that share one assignment."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.models.blocks import ResidualBlock, scaled


class DigitsResnet(models.Base):
    """Stem of 32, two blocks of 32 at 8x8, two of 64 at 4x4, global average pool, linear."""

    dataset = "digits"
    input_shape = (1, 8, 8)
    schedule = Schedule(baseline_epochs=12, noise_epochs=4, finetune_epochs=8)

    def build(self, width: float = 1.0) -> nn.Module:
        """``[n, 1, 8, 8]`` -> logits ``[n, 10]``."""
        first, second = scaled(32, width), scaled(64, width)
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(1, first, 3, padding=1, bias=False),
                bn=nn.BatchNorm2d(first),
                relu=nn.ReLU(),
                block1=ResidualBlock(first, first),
                block2=ResidualBlock(first, first),
                block3=ResidualBlock(first, second, stride=2),
                block4=ResidualBlock(second, second),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                classifier=nn.Linear(second, 10),
            )
        )
