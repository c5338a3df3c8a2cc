"""Plain CNN for digits, wide enough that its convolutions, not call overhead, decide its latency."""

from __future__ import annotations

from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.models.blocks import plain_cnn, scaled


class DigitsCnn(models.Base):
    """Widths 64, 128 at 8x8, then 128, 256 at 4x4: 11.8 million multiply-accumulates an image."""

    dataset = "digits"
    input_shape = (1, 8, 8)
    schedule = Schedule(baseline_epochs=16, noise_epochs=5, finetune_epochs=11)
    widths = (1.0, 0.5, 0.25, 0.125)

    def build(self, width: float = 1.0) -> nn.Module:
        """``[n, 1, 8, 8]`` -> logits ``[n, 10]``."""
        first, second = scaled(64, width), scaled(128, width)
        return plain_cnn(1, ((first, second), (second, scaled(256, width))), image_size=8, n_classes=10)
