"""Transformers become integer networks that give what fake quantization gives, to within ties of rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import soniq_dse
from soniq_dse.export import Design
from soniq_dse.export.onnx import Onnx
from soniq_dse.formats import network as golden
from soniq_dse.formats.deployment import Array
from soniq_dse.qat.deploy import size_bytes
from soniq_dse.records.network import EmbeddingNode, InputNode, IntegerNetwork
from soniq_dse.runtime.check import check
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.workloads.models.transformer import Decoder, EncoderDecoder

TOKENS, LENGTH, WIDTH = 11, 6, 16


def deployed(model: nn.Module, tokens: torch.Tensor) -> tuple[IntegerNetwork, dict[str, Array], np.ndarray]:
    session = soniq_dse.quantize(model.train(), "w2a2+w4a4", tokens, budget_bits=3.0)
    session.finetune()
    network, arrays = session.deploy()
    with torch.no_grad():
        return network, arrays, model.eval()(tokens).numpy()


@pytest.mark.parametrize("kind", [Decoder, EncoderDecoder])
def test_the_integer_network_gives_what_training_saw(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    length = LENGTH if kind is Decoder else 2 * LENGTH
    tokens = torch.randint(0, TOKENS, (24, length))
    tokens[:, LENGTH - 2 : LENGTH] = 0
    network, arrays, expected = deployed(kind(TOKENS, LENGTH, WIDTH, 2, 1), tokens)
    outputs = golden.evaluate(network, arrays, tokens.numpy())
    assert np.median(np.abs(outputs - expected)) <= 1e-4 * np.abs(expected).max()
    assert (outputs.argmax(axis=-1) == expected.argmax(axis=-1)).mean() > 0.97


class Vit(nn.Module):
    """As timm has it: a class token, query, key and value of one layer, GELU; ReLU6 behind the patches, for good
    measure."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.relu6 = nn.Conv2d(1, WIDTH, 2, stride=2), nn.ReLU6()
        self.cls, self.places = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 17, WIDTH))
        self.norm1, self.norm2, self.norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.act, self.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``[n, 1, 8, 8]`` -> ``[n, 3]``."""
        n = len(images)
        x = self.relu6(self.patches(images)).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(n, -1, -1), x], dim=1) + self.places
        qkv = self.qkv(self.norm1(x)).reshape(n, -1, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*qkv.unbind(0))
        x = x + self.proj(mixed.transpose(1, 2).reshape(n, -1, WIDTH))
        x = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        return self.head(self.norm(x)[:, 0])


@pytest.fixture(scope="module")
def vit() -> tuple[IntegerNetwork, dict[str, Array], np.ndarray, np.ndarray]:
    """A network trained for a moment, its arrays, inputs, and what fake quantization gives."""
    torch.manual_seed(0)
    model, labels = Vit().train(), torch.arange(48) % 3
    images = 0.3 * torch.randn(48, 1, 8, 8)
    images[torch.arange(48), 0, labels] += 1
    session = soniq_dse.quantize(model, "w2a2+w4a4", images, budget_bits=3.0)
    optimizer = torch.optim.AdamW(session.parameter_groups(1e-2))
    session.attach(optimizer, noise_steps=5)
    for step in range(30):
        if step == 5:
            session.finetune()
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert session.unsupported == ()
    network, arrays = session.deploy()
    with torch.no_grad():
        return network, arrays, images.numpy(), model.eval()(images).numpy()


def test_a_vision_transformer_with_a_class_token_and_gelu(
    vit: tuple[IntegerNetwork, dict[str, Array], np.ndarray, np.ndarray],
) -> None:
    network, arrays, images, expected = vit
    assert {"clip", "prepend", "gelu", "token"} <= {node.op for node in network.nodes}
    layers = [node for node in network.nodes if node.op == "linear"]
    assert [node.shape[-1] for node in layers] == [WIDTH] * 4 + [2 * WIDTH, WIDTH, 3]
    assert len({node.inputs for node in layers[:3]}) == 1
    outputs = golden.evaluate(network, arrays, images)
    assert np.median(np.abs(outputs - expected)) <= 1e-4 * np.abs(expected).max()
    assert (outputs.argmax(axis=-1) == expected.argmax(axis=-1)).mean() > 0.97
    assert (outputs.argmax(axis=-1) == np.arange(48) % 3).mean() > 0.9


def test_it_runs_from_its_file_and_exported(
    vit: tuple[IntegerNetwork, dict[str, Array], np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    network, arrays, images, _ = vit
    PackedNetwork(network, arrays).save(tmp_path / "vit.soniq")
    packed = PackedNetwork.load(tmp_path / "vit.soniq")
    assert check(packed, images, batch=5, threads=2).exact
    expected = golden.evaluate(network, arrays, images)
    Onnx().write(Design(network, arrays), tmp_path / "vit.onnx")
    outputs = Onnx().outputs(tmp_path / "vit.onnx", images)
    # All codes are equal but those next to a tie, which the rounding of other orders decides.
    assert np.median(np.abs(outputs - expected)) <= 1e-4 * np.abs(expected).max()
    assert (outputs.argmax(axis=-1) == expected.argmax(axis=-1)).mean() > 0.97


def test_tables_are_8_bit_and_counted() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, TOKENS, (4, LENGTH))
    network, arrays, _ = deployed(Decoder(TOKENS, LENGTH, WIDTH, 2, 1), tokens)
    first, table = network.nodes[:2]
    assert isinstance(first, InputNode)
    assert first.n_tokens == TOKENS
    assert isinstance(table, EmbeddingNode)
    assert arrays[table.table.sha256].dtype == np.int8
    assert np.abs(arrays[table.table.sha256]).max() > 100
    packed = PackedNetwork(network, arrays, ())
    # Steps and channel orders are in one, scales of levels that a tensor lacks in the other.
    assert abs(size_bytes(network) - packed.size_bytes) <= 0.1 * packed.size_bytes


class OwnNorm(nn.Module):
    """LayerNorm by a class of one's own, as nanoGPT has it."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(WIDTH)), nn.Parameter(torch.rand(WIDTH)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, length, WIDTH]`` -> the same."""
        return nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-3)


class CountedPlaces(nn.Module):
    """Places looked up in a table, which has more of them than there are tokens."""

    def __init__(self, bias: bool, batched: bool) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(TOKENS, WIDTH), nn.Embedding(2 * LENGTH, WIDTH)
        self.norm, self.head, self.batched = OwnNorm(bias=bias), nn.Linear(WIDTH, TOKENS), batched

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, length]`` -> ``[n, length, TOKENS]``."""
        places = torch.arange(0, tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.table(tokens) + self.places(places[None] if self.batched else places)))


@pytest.mark.parametrize(("bias", "batched"), [(True, False), (False, True)])
def test_places_of_a_table_and_a_norm_of_ones_own(bias: bool, batched: bool) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, TOKENS, (24, LENGTH))
    network, arrays, expected = deployed(CountedPlaces(bias, batched), tokens)
    assert [node.op for node in network.nodes] == [
        "input", "embedding", "add_constant", "layer_norm", "quantize", "linear",
    ]  # fmt: skip
    outputs = golden.evaluate(network, arrays, tokens.numpy())
    assert np.median(np.abs(outputs - expected)) <= 1e-5 * np.abs(expected).max()


def test_numbers_that_are_no_tokens_are_refused() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, TOKENS, (4, LENGTH))
    network, arrays, _ = deployed(Decoder(TOKENS, LENGTH, WIDTH, 2, 1), tokens)
    with pytest.raises(ValueError, match=r"expected token numbers 0\.\.10, got 0\.\.11"):
        golden.evaluate(network, arrays, np.arange(12).reshape(2, 6))
    with pytest.raises(ValueError, match="expected token numbers as integers"):
        golden.evaluate(network, arrays, np.zeros((1, LENGTH), np.float32))
