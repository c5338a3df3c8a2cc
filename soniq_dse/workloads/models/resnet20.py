"""ResNet-20 for CIFAR-10: 0.27 million weights."""

from __future__ import annotations

from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.models.blocks import cifar_resnet, scaled


class Resnet20(models.Base):
    """Three stages of three basic blocks, widths 16, 32, 64 at 32x32, 16x16, 8x8: 41 million multiply-accumulates.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2; shortcuts are of option B.
    """

    dataset = "cifar10"
    input_shape = (3, 32, 32)
    schedule = Schedule(baseline_epochs=30, noise_epochs=10, finetune_epochs=20, batch_size=128)

    def build(self, width: float = 1.0) -> nn.Module:
        """``[n, 3, 32, 32]`` -> logits ``[n, 10]``."""
        return cifar_resnet(tuple(scaled(c, width) for c in (16, 32, 64)), blocks_per_stage=3, n_classes=10)
