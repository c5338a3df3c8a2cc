"""Small Vision Transformer for 32x32 images: 2.7 million weights."""

from __future__ import annotations

import torch
from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.models.blocks import scaled
from soniq_dse.workloads.models.transformer import Block

PATCH, HEADS, DEPTH = 4, 4, 6


class VitCifar(models.Base):
    """Patches of 4x4, width 192, six blocks of four heads, mean over the patches.

    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; width as DeiT-Tiny's (Touvron et al., 2021).
    """

    dataset = "cifar10"
    input_shape = (3, 32, 32)
    schedule = Schedule(baseline_epochs=40, noise_epochs=15, finetune_epochs=25, batch_size=128, learning_rate=5e-4)

    def build(self, width: float = 1.0) -> nn.Module:
        """``[n, 3, 32, 32]`` -> logits ``[n, 10]``."""
        return _Vit(scaled(192, width))


class _Vit(nn.Module):  # type: ignore[misc]  # torch is not type-checked here: Module is Any
    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.places = nn.Parameter(0.02 * torch.randn((32 // PATCH) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, HEADS) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.classifier(self.norm(self.blocks(x)).mean(1))
