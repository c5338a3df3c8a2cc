"""ResNet-18 in its form for 32x32 images: 11.2 million weights."""

from __future__ import annotations

from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.models.blocks import cifar_resnet, scaled


class Resnet18(models.Base):
    """Four stages of two basic blocks, widths 64 to 512, a 3x3 stem without a pool: 556 million multiply-accumulates.

    Source: He et al., CVPR 2016, table 1, with the stem that is usual for CIFAR.
    """

    dataset = "cifar10"
    input_shape = (3, 32, 32)
    schedule = Schedule(baseline_epochs=30, noise_epochs=10, finetune_epochs=20, batch_size=128)

    def build(self, width: float = 1.0) -> nn.Module:
        """``[n, 3, 32, 32]`` -> logits ``[n, 10]``."""
        return cifar_resnet(tuple(scaled(c, width) for c in (64, 128, 256, 512)), blocks_per_stage=2, n_classes=10)
