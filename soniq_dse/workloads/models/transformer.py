"""What the Transformers here are made of: every product with weights is an ``nn.Linear`` of its own."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


class Attention(nn.Module):  # type: ignore[misc]  # torch is not type-checked here: Module is Any
    """Multi-head attention of ``x`` to ``context`` (itself where none is given). Source: Vaswani et al., 2017."""

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, x: torch.Tensor, context: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[n, length, width]`` -> the same; ``mask`` is added to the scores of ``context``'s places."""
        source = x if context is None else context
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(source), self.value(source))
        )
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):  # type: ignore[misc]
    """Attention, then two linear layers, each behind its LayerNorm and added to what it reads (pre-norm).

    ReLU, not GELU: its output has unsigned codes with an exact zero, which narrow formats serve best.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.expand, self.relu, self.contract = nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """``[n, length, width]`` -> the same."""
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.contract(self.relu(self.expand(self.norm2(x))))


class CrossBlock(nn.Module):  # type: ignore[misc]
    """Causal attention, attention to the encoder's output, then two linear layers: pre-norm, as ``Block``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.cross = Attention(width, heads, causal=True), Attention(width, heads)
        self.expand, self.relu, self.contract = nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, context: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``[n, length, width]`` and ``[n, source length, width]`` -> ``[n, length, width]``."""
        x = x + self.attention(self.norm1(x))
        x = x + self.cross(self.norm2(x), context, mask)
        return x + self.contract(self.relu(self.expand(self.norm3(x))))


class Decoder(nn.Module):  # type: ignore[misc]
    """Decoder-only language model: token and place embeddings, causal blocks, LayerNorm, a dense layer over tokens."""

    def __init__(self, n_tokens: int, length: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(n_tokens, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_tokens, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token numbers ``[n, length]`` -> logits ``[n, length, n_tokens]``."""
        x = self.tokens(tokens) + self.places[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


class EncoderDecoder(nn.Module):  # type: ignore[misc]
    """Translation: an encoder over the source, a decoder that attends to it. Source: Vaswani et al., 2017; pre-norm.

    Both languages are numbered by one vocabulary, each with a table of its own; token 0 is padding.
    """

    HIDDEN = -1e4
    """Added to the score of a padded place: its weight is 0, and an input that is all padding gives no NaN."""

    def __init__(self, n_tokens: int, length: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.length = length
        self.source_tokens, self.target_tokens = nn.Embedding(n_tokens, width), nn.Embedding(n_tokens, width)
        self.source_places = nn.Parameter(0.02 * torch.randn(length, width))
        self.target_places = nn.Parameter(0.02 * torch.randn(length, width))
        self.encoder = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.decoder = nn.ModuleList(CrossBlock(width, heads) for _ in range(depth))
        self.source_norm, self.target_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, n_tokens, bias=False)
        for table in (self.source_tokens, self.target_tokens):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, length + m]``: source, then ``m <= length`` target tokens -> logits ``[n, m, n_tokens]``."""
        source, target = tokens[:, : self.length], tokens[:, self.length :]
        mask = ((source == 0) * self.HIDDEN)[:, None, None, :]
        context = self.source_tokens(source) + self.source_places
        for block in self.encoder:
            context = block(context, mask)
        context = self.source_norm(context)
        x = self.target_tokens(target) + self.target_places[: target.shape[1]]
        for block in self.decoder:
            x = block(x, context, mask)
        return self.head(self.target_norm(x))
