"""Small residual net for digits: its adds join tensors into classes that share one assignment."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.models.blocks import ResidualBlock


class DigitsResnet(models.Base):
    """Stem of 32, two blocks of 32 at 8x8, two of 64 at 4x4, global average pool, linear."""

    dataset = "digits"
    input_shape = (1, 8, 8)
    schedule = Schedule(baseline_epochs=12, noise_epochs=4, finetune_epochs=8)

    def build(self) -> nn.Module:
        """``[n, 1, 8, 8]`` -> logits ``[n, 10]``."""
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(1, 32, 3, padding=1, bias=False),
                bn=nn.BatchNorm2d(32),
                relu=nn.ReLU(),
                block1=ResidualBlock(32, 32),
                block2=ResidualBlock(32, 32),
                block3=ResidualBlock(32, 64, stride=2),
                block4=ResidualBlock(64, 64),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                classifier=nn.Linear(64, 10),
            )
        )
