"""Decoder-only Transformer over words: 21.8 million weights, most of them in the two tables of words."""

from __future__ import annotations

from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.datasets.wikitext2 import LENGTH, Wikitext2
from soniq_dse.workloads.models.blocks import scaled
from soniq_dse.workloads.models.transformer import Decoder

HEADS, DEPTH = 4, 6


class GptWord(models.Base):
    """Width 256, six blocks of four heads, context 128."""

    dataset = "wikitext2"
    input_shape = (LENGTH,)
    schedule = Schedule(baseline_epochs=20, noise_epochs=8, finetune_epochs=12, batch_size=64, learning_rate=5e-4)

    def build(self, width: float = 1.0) -> nn.Module:
        """Token numbers ``[n, 128]`` -> logits ``[n, 128, tokens]``."""
        return Decoder(Wikitext2.n_tokens, LENGTH, scaled(256, width), HEADS, DEPTH)
