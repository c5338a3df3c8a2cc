"""Plain CNN for Fashion-MNIST."""

from __future__ import annotations

from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.models.blocks import plain_cnn, scaled


class FashionCnn(models.Base):
    """Widths 32 at 28x28, 64 at 14x14, 128 and 128 at 7x7: 14.7 million multiply-accumulates an image."""

    dataset = "fashion_mnist"
    input_shape = (1, 28, 28)
    schedule = Schedule(baseline_epochs=12, noise_epochs=4, finetune_epochs=8, batch_size=128)

    def build(self, width: float = 1.0) -> nn.Module:
        """``[n, 1, 28, 28]`` -> logits ``[n, 10]``."""
        stages = tuple(tuple(scaled(c, width) for c in stage) for stage in ((32,), (64,), (128, 128)))
        return plain_cnn(1, stages, image_size=28, n_classes=10)
