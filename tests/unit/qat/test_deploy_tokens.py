"""Transformers become integer networks that give what fake quantization gives, to within ties of rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import soniq_dse
from soniq_dse.formats import network as golden
from soniq_dse.formats.deployment import Array
from soniq_dse.qat.deploy import size_bytes
from soniq_dse.records.network import EmbeddingNode, InputNode, IntegerNetwork
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


def test_numbers_that_are_no_tokens_are_refused() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, TOKENS, (4, LENGTH))
    network, arrays, _ = deployed(Decoder(TOKENS, LENGTH, WIDTH, 2, 1), tokens)
    with pytest.raises(ValueError, match=r"expected token numbers 0\.\.10, got 0\.\.11"):
        golden.evaluate(network, arrays, np.arange(12).reshape(2, 6))
    with pytest.raises(ValueError, match="expected token numbers as integers"):
        golden.evaluate(network, arrays, np.zeros((1, LENGTH), np.float32))
