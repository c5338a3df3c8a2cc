"""Decoder-only Transformer over characters: 0.8 million weights."""

from __future__ import annotations

from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.datasets.tiny_shakespeare import LENGTH, TinyShakespeare
from soniq_dse.workloads.models.blocks import scaled
from soniq_dse.workloads.models.transformer import Decoder

HEADS, DEPTH = 4, 4


class GptChar(models.Base):
    """Width 128, four blocks of four heads, context 128."""

    dataset = "tiny_shakespeare"
    input_shape = (LENGTH,)
    schedule = Schedule(baseline_epochs=10, noise_epochs=4, finetune_epochs=6, batch_size=64, learning_rate=1e-3)

    def build(self, width: float = 1.0) -> nn.Module:
        """Token numbers ``[n, 128]`` -> logits ``[n, 128, tokens]``."""
        return Decoder(TinyShakespeare.n_tokens, LENGTH, scaled(128, width), HEADS, DEPTH)
