"""``nn.MultiheadAttention`` with an ``nn.Linear`` for each product, whose weights and inputs quantizers reach."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from soniq_dse.errors import UserError

Weights = tuple[torch.Tensor, torch.Tensor | None]


def split_attention(model: nn.Module) -> nn.Module:
    """``model`` with each of its ``nn.MultiheadAttention`` modules replaced by a ``SplitAttention`` of its weights.

    Outputs stay the same to the rounding of fp32; parameters get new names (``in_proj_weight`` becomes
    ``query.weight``, ``key.weight`` and ``value.weight``, ``out_proj`` becomes ``out``), so load a checkpoint before.

    Raises:
        UserError: a module adds rows to keys and values (``add_bias_kv``, ``add_zero_attn``).
    """
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.MultiheadAttention):
            made = SplitAttention(module, path)
            if not path:
                return made
            owner, _, name = path.rpartition(".")
            setattr(model.get_submodule(owner), name, made)
    return model


class SplitAttention(nn.Module):  # type: ignore[misc]  # torch is not type-checked here: Module is Any
    """Attention of ``whole`` in four linear layers; it is called as ``nn.MultiheadAttention`` is, and gives no weights.

    Raises:
        UserError: ``whole`` adds rows to keys and values.
    """

    in_proj_weight = in_proj_bias = None
    _qkv_same_embed_dim = False
    """``nn.TransformerEncoderLayer`` asks for these before it takes its own way around the module."""

    def __init__(self, whole: nn.MultiheadAttention, path: str = "") -> None:
        super().__init__()
        if whole.bias_k is not None or whole.add_zero_attn:
            raise UserError(
                f"module {path or 'of attention'}: expected attention without add_bias_kv and add_zero_attn, got one "
                "that adds rows to its keys"
            )
        self.heads, self.batch_first, self.dropout = whole.num_heads, whole.batch_first, whole.dropout
        self.query, self.key, self.value = (_linear(*part) for part in _projections(whole))
        self.out = _linear(whole.out_proj.weight, whole.out_proj.bias)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, None]:
        """``[n, tokens, channels]``, or tokens first where the module that it replaces had them so -> (the same, None).

        A mask is added to scores, or tells by False what is hidden, as in ``scaled_dot_product_attention``.

        Raises:
            UserError: there is a ``key_padding_mask``.
        """
        if key_padding_mask is not None:
            raise UserError("attention: expected hidden tokens in attn_mask, got a key_padding_mask")
        parts = (self.query(query), self.key(key), self.value(value))
        if not self.batch_first:
            parts = tuple(part.transpose(0, 1) for part in parts)
        of_query, of_key, of_value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = scaled_dot_product_attention(
            of_query,
            of_key,
            of_value,
            attn_mask=None if is_causal or attn_mask is None else _added(attn_mask),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        mixed = mixed.transpose(1, 2).flatten(2)
        return self.out(mixed if self.batch_first else mixed.transpose(0, 1)), None


def _added(mask: torch.Tensor) -> torch.Tensor:
    """``nn.MultiheadAttention`` hides what is True."""
    return ~mask if mask.dtype == torch.bool else mask


def _projections(whole: nn.MultiheadAttention) -> list[Weights]:
    if whole.in_proj_weight is None:
        weights = [whole.q_proj_weight, whole.k_proj_weight, whole.v_proj_weight]
    else:
        weights = list(whole.in_proj_weight.chunk(3))
    biases = [None] * 3 if whole.in_proj_bias is None else list(whole.in_proj_bias.chunk(3))
    return list(zip(weights, biases, strict=True))


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made
