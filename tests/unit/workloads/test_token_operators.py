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


class ClassToken(nn.Module):
    """Two tokens before those of an image, one of which is read; GELU between linear layers."""

    def __init__(self, join: Callable[..., torch.Tensor] | None = None) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 2, stride=2), nn.LayerNorm(8)
        self.first, self.second = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 11, 8))
        self.inner, self.act, self.last = nn.Linear(8, 8), nn.GELU("tanh"), nn.Linear(8, 4)
        self.join = join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, 3, 6, 6]`` -> ``[n, 4]``."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.join is not None:
            return self.last(self.join(self, x).mean(1))
        x = torch.cat([self.first.expand(len(x), -1, -1), self.second.expand(len(x), -1, -1), x], dim=1)
        return self.last(self.act(self.inner(self.norm(x + self.places)))[:, 1])


@pytest.mark.parametrize("batch", [1, 3])
def test_class_tokens(batch: int) -> None:
    workload = trace(ClassToken(), torch.zeros(batch, 3, 6, 6), name="m")
    assert workload.unsupported == ()
    assert [n.op for n in workload.nodes] == [
        "input", "conv2d", "tokens", "prepend", "add", "layer_norm", "linear", "gelu", "token", "linear",
    ]  # fmt: skip
    of = {node.op: node.attributes for node in workload.nodes}
    assert of["prepend"] == {"parameters": ["first", "second"]}
    assert of["gelu"] == {"approximate": "tanh"}
    assert of["token"] == {"index": 1}
    assert [c.nonnegative for c in workload.tensor_classes if c.consumers == ("last",)] == [False]


@pytest.mark.parametrize(
    "join",
    [
        lambda net, x: torch.cat([x, net.first.expand(len(x), -1, -1)], dim=1),  # behind
        lambda net, x: torch.cat([x, x], dim=1),
        lambda net, x: torch.cat([net.first.expand(len(x), 2, -1), x], dim=1),  # twice
    ],
)
def test_what_is_joined_otherwise_stays_in_floating_point(join: Callable[..., torch.Tensor]) -> None:
    workload = trace(ClassToken(join), torch.zeros(2, 3, 6, 6), name="m")
    (part,) = workload.unsupported
    assert part.op == "cat"
    assert "only parameters in front of tokens" in part.reason


class OneLayer(nn.Module):
    """Query, key and value of one linear layer, as timm (by head) and nanoGPT (divided) have them."""

    def __init__(self, mix: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.first, self.qkv, self.last, self.mix = nn.Linear(8, 8), nn.Linear(8, 24), nn.Linear(8, 4), mix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, tokens, 8]`` -> ``[n, tokens, 4]``."""
        return self.last(self.mix(self.qkv(self.first(x))))


def joined(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(2)


def by_head(x: torch.Tensor) -> torch.Tensor:
    return joined(attend(*x.reshape(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)))


def by_index(x: torch.Tensor) -> torch.Tensor:
    parts = x.reshape(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
    return joined(attend(parts[0], parts[1], parts[2]))


def divided(x: torch.Tensor) -> torch.Tensor:
    return joined(attend(*(part.view(len(x), -1, 2, 4).transpose(1, 2) for part in x.split(8, dim=2))))


def in_chunks(x: torch.Tensor) -> torch.Tensor:
    return attend(*x.chunk(3, dim=-1))


@pytest.mark.parametrize("mix", [by_head, by_index, divided, in_chunks])
def test_query_key_and_value_of_one_layer(mix: Callable[..., torch.Tensor]) -> None:
    workload = trace(OneLayer(mix), torch.zeros(2, 5, 8), name="m")
    assert workload.unsupported == ()
    assert [n.op for n in workload.nodes] == ["input", "linear", "linear", *["part"] * 3, "attention", "linear"]
    parts = [node for node in workload.nodes if node.op == "part"]
    assert [part.name for part in parts] == ["qkv.query", "qkv.key", "qkv.value"]
    assert [(part.attributes["start"], part.attributes["stop"]) for part in parts] == [(0, 8), (8, 16), (16, 24)]
    assert all(part.shape == (2, 5, 8) and part.inputs == ("qkv",) for part in parts)
    assert workload.nodes[-2].inputs == tuple(part.name for part in parts)
    assert workload.nodes[-2].attributes["heads"] == (1 if mix is in_chunks else 2)


def read_twice(x: torch.Tensor) -> torch.Tensor:
    return by_head(x) + x.mean(-1, keepdim=True)


def heads_before_parts(x: torch.Tensor) -> torch.Tensor:
    return joined(attend(*x.reshape(len(x), -1, 2, 3, 4).permute(3, 0, 2, 1, 4).unbind(0)))


@pytest.mark.parametrize("mix", [read_twice, heads_before_parts])
def test_other_parts_stay_in_floating_point(mix: Callable[..., torch.Tensor]) -> None:
    workload = trace(OneLayer(mix), torch.zeros(2, 5, 8), name="m")
    assert "scaled_dot_product_attention" in {part.op for part in workload.unsupported}
    assert not {"part", "attention"} & {node.op for node in workload.nodes}


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
