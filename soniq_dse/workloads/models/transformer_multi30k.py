"""Encoder-decoder Transformer for Multi30k: 2.9 million weights, half of them in the tables of subwords."""

from __future__ import annotations

from torch import nn

from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.datasets.multi30k import LENGTH, Multi30k
from soniq_dse.workloads.models.blocks import scaled
from soniq_dse.workloads.models.transformer import EncoderDecoder

HEADS, DEPTH = 4, 3


class TransformerMulti30k(models.Base):
    """Width 128, three blocks of four heads on either side."""

    dataset = "multi30k"
    input_shape = (2 * LENGTH,)
    schedule = Schedule(baseline_epochs=20, noise_epochs=8, finetune_epochs=12, batch_size=64, learning_rate=1e-3)

    def build(self, width: float = 1.0) -> nn.Module:
        """Token numbers ``[n, 104]``, source then target -> logits ``[n, 52, tokens]`` of the target."""
        return EncoderDecoder(Multi30k.n_tokens, LENGTH, scaled(128, width), HEADS, DEPTH)
