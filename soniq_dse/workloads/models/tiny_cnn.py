"""The smallest CNN that still learns digits: for tests and first tries, seconds to train."""

from __future__ import annotations

from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.models.blocks import plain_cnn, scaled


class TinyCnn(models.Base):
    """Widths 16 at 8x8, then 32 and 32 at 4x4."""

    dataset = "digits"
    input_shape = (1, 8, 8)
    schedule = Schedule(baseline_epochs=6, noise_epochs=3, finetune_epochs=3, batch_size=32, learning_rate=5e-3)

    def build(self, width: float = 1.0) -> nn.Module:
        """``[n, 1, 8, 8]`` -> logits ``[n, 10]``."""
        first, second = scaled(16, width), scaled(32, width)
        return plain_cnn(1, ((first,), (second, second)), image_size=8, n_classes=10)
