"""Transformers as they are traced: attention with its heads and mask, tokens, places; and what is left as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as attend

from soniq_dse.workloads.models.transformer import Decoder, EncoderDecoder
from soniq_dse.workloads.trace import trace


class Heads(nn.Module):
    """Attention of any make between an embedding and a linear layer."""

    def __init__(self, mix: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.table, self.first, self.last = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.mix = mix

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, length]`` -> ``[n, length, 8]``."""
        return self.last(self.mix(self.first(self.table(tokens)), tokens))


def viewed(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    n, length, width = x.shape
    parts = x.view(n, length, 2, 4).permute(0, 2, 1, 3)
    return attend(parts, parts, parts, scale=0.3).permute(0, 2, 1, 3).contiguous().view(n, length, width)


def masked(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    parts = x.unflatten(-1, (2, -1)).transpose(1, 2)
    mask = ((tokens == 3) * -50.0)[:, None, None, :]
    return attend(parts, parts, parts, attn_mask=mask).transpose(1, 2).flatten(2)


def one_head(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return attend(x, x, x, is_causal=True)


@pytest.mark.parametrize(
    ("mix", "attributes", "inputs"),
    [
        (viewed, {"heads": 2, "causal": False, "scale": 0.3}, ("first",) * 3),
        (
            masked,
            {"heads": 2, "causal": False, "scale": 0.5, "hidden": -50.0, "hidden_token": 3},
            ("first", "first", "first", "input"),
        ),
        (one_head, {"heads": 1, "causal": True, "scale": 8**-0.5}, ("first",) * 3),
    ],
)
def test_attention_is_one_node(
    mix: Callable[..., torch.Tensor], attributes: dict[str, object], inputs: tuple[str, ...]
) -> None:
    workload = trace(Heads(mix), torch.zeros(2, 5, dtype=torch.long), name="m")
    assert [node.op for node in workload.nodes] == ["input", "embedding", "linear", "attention", "linear"]
    node = workload.nodes[3]
    assert (node.inputs, node.attributes, node.shape) == (inputs, attributes, (2, 5, 8))
    assert workload.nodes[4].inputs == (node.name,)
    assert workload.unsupported == ()


def other_mask(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    parts = x.unflatten(-1, (2, -1)).transpose(1, 2)
    return attend(parts, parts, parts, attn_mask=torch.ones(5, 5).tril().log()).transpose(1, 2).flatten(2)


def heads_last(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    parts = x.unflatten(-1, (-1, 2)).permute(0, 3, 1, 2)
    return attend(parts, parts, parts).permute(0, 2, 3, 1).flatten(2)


def also_read(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    parts = x.unflatten(-1, (2, -1)).transpose(1, 2)
    mixed = attend(parts, parts, parts)
    return mixed.transpose(1, 2).flatten(2) + mixed.sum(dim=(1, 3))[:, :, None]


@pytest.mark.parametrize("mix", [other_mask, heads_last, also_read])
def test_other_attention_stays_in_floating_point(mix: Callable[..., torch.Tensor]) -> None:
    workload = trace(Heads(mix), torch.zeros(2, 5, dtype=torch.long), name="m")
    assert "scaled_dot_product_attention" in {part.op for part in workload.unsupported}
    assert "attention" not in {node.op for node in workload.nodes}


def test_models_trace_whole() -> None:
    decoder = trace(Decoder(9, 8, 8, 2, 1), torch.zeros(1, 6, dtype=torch.long), name="m")
    assert decoder.unsupported == ()
    places = next(node for node in decoder.nodes if node.name == "add")
    assert (places.inputs, places.attributes) == (("tokens",), {"parameters": ["places"]})
    translator = trace(EncoderDecoder(9, 6, 8, 2, 1), torch.zeros(1, 12, dtype=torch.long), name="m")
    assert translator.unsupported == ()
    slices = [(n.attributes["start"], n.attributes["stop"]) for n in translator.nodes if n.op == "slice"]
    assert slices == [(0, 6), (6, 12)]
    mixed = [node for node in translator.nodes if node.op == "attention"]
    assert [(node.attributes["causal"], node.inputs[3:]) for node in mixed] == [
        (False, ("slice",)), (True, ()), (False, ("slice",)),
    ]  # fmt: skip


class Vision(nn.Module):
    """Pixels as tokens, their places, LayerNorm, their mean."""

    def __init__(self, affine: bool) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 2, stride=2), nn.LayerNorm(8, elementwise_affine=affine)
        self.register_buffer("places", torch.randn(1, 9, 8))
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, 3, 6, 6]`` -> ``[n, 4]``."""
        return self.last(self.norm(self.patches(x).flatten(2).transpose(1, 2) + self.places).mean(1))


def test_pixels_become_tokens() -> None:
    workload = trace(Vision(affine=True), torch.zeros(1, 3, 6, 6), name="m")
    assert [n.op for n in workload.nodes] == [
        "input", "conv2d", "tokens", "add", "layer_norm", "mean_tokens", "linear",
    ]  # fmt: skip
    assert workload.unsupported == ()
    plain = trace(Vision(affine=False), torch.zeros(1, 3, 6, 6), name="m")
    assert [part.op for part in plain.unsupported] == ["layer_norm"]


class Tied(nn.Module):
    """The last layer has the weights of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
        self.last.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, length]`` -> ``[n, length, 9]``."""
        return self.last(self.table(tokens))


def test_a_shared_table_stays_in_floating_point() -> None:
    workload = trace(Tied(), torch.zeros(1, 5, dtype=torch.long), name="m")
    found = {part.op: part.reason for part in workload.unsupported}
    assert "read 2 times" in found["embedding"]
