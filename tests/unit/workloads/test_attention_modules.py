"""``nn.MultiheadAttention`` in linear layers of its own: the same numbers, and a trace without a remainder."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from soniq_dse.errors import UserError
from soniq_dse.workloads import split_attention
from soniq_dse.workloads.trace import trace


class Encoder(nn.Module):
    """A table, a stack of PyTorch's own blocks, a linear layer."""

    def __init__(self, *, causal: bool = False, **options: object) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **options)
        self.table, self.blocks, self.causal = nn.Embedding(9, 16), nn.TransformerEncoder(block, 2), causal
        self.head = nn.Linear(16, 9)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, length]`` -> ``[n, length, 9]``."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]) if self.causal else None
        return self.head(self.blocks(self.table(tokens), mask=mask, is_causal=self.causal))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("options", [{}, {"activation": "gelu", "norm_first": True}, {"causal": True, "bias": False}])
def test_encoder_layers_give_the_same_and_trace_whole(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model, tokens = Encoder(**options), torch.randint(0, 9, (3, 7))
    for training in (False, True):
        torch.manual_seed(1)
        expected = model.train(training)(tokens)
        if not training:
            inference = expected
    found = next(part for part in trace(model.eval(), tokens, name="m").unsupported if part.op == "linear")
    assert "soniq_dse.workloads.split_attention(model) gives it such layers" in found.reason
    split = split_attention(model).eval()
    assert not any(isinstance(module, nn.MultiheadAttention) for module in split.modules())
    torch.testing.assert_close(split(tokens), inference)
    torch.manual_seed(1)
    assert split.train()(tokens).shape == expected.shape
    workload = trace(split, tokens, name="m")
    assert workload.unsupported == ()
    mixed = [node for node in workload.nodes if node.op == "attention"]
    assert [node.attributes["causal"] for node in mixed] == [bool(options.get("causal"))] * 2
    assert [node.name for node in workload.nodes if node.layer][:4] == [
        f"blocks.layers.0.self_attn.{part}" for part in ("query", "key", "value", "out")
    ]


@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 10}, {"batch_first": True}, {"bias": False}])
@pytest.mark.parametrize("hides", ["nothing", "added", "told"])
def test_attention_to_others(options: dict[str, object], hides: str) -> None:
    torch.manual_seed(0)
    whole = nn.MultiheadAttention(8, 2, **options).eval()
    shapes = [(3, 5, 8), (4, 5, options.get("kdim", 8)), (4, 5, options.get("vdim", 8))]
    tensors = [torch.randn(shape) for shape in shapes]
    if options.get("batch_first"):
        tensors = [tensor.transpose(0, 1) for tensor in tensors]
    later = torch.ones(3, 4, dtype=torch.bool).triu(1)
    mask = {"nothing": None, "added": later * -5.0, "told": later}[hides]
    expected, _ = whole(*tensors, need_weights=False, attn_mask=mask)
    torch.testing.assert_close(split_attention(whole)(*tensors, attn_mask=mask)[0], expected)


def test_what_cannot_be_split_is_named() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.MultiheadAttention(8, 2, add_bias_kv=True)

    with pytest.raises(UserError, match="module mix: expected attention without add_bias_kv"):
        split_attention(Net())
    x = torch.zeros(2, 3, 8)
    with pytest.raises(UserError, match="got a key_padding_mask"):
        split_attention(nn.MultiheadAttention(8, 2))(x, x, x, key_padding_mask=torch.zeros(3, 2))
