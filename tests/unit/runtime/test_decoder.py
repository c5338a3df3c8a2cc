"""Token by token over kept keys and values: the rows of a run of the whole sequence, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_factory import NetworkFactory

import soniq_dse.runtime
from soniq_dse.errors import UserError
from soniq_dse.formats.network import evaluate
from soniq_dse.runtime.decoder import FEWEST_ROWS, Decoder, by_token, decoder_windows
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.workloads.bleu import TokenByToken, greedy
from soniq_dse.workloads.task import at_full_length

N_TOKENS, WIDTH, HEADS = 11, 24, 2


def block(net: NetworkFactory, x: str, *, context: str = "", numbers: str | None = None) -> str:
    """Causal attention, attention to ``context`` where there is some, a linear layer."""
    codes = net.quantize(net.layer_norm(x), signed=True)
    query, key, value = (net.linear(codes, WIDTH) for _ in range(3))
    mixed = net.attention(query, key, value, HEADS, causal=True)
    x = net.add(x, net.linear(net.quantize(mixed, signed=True), WIDTH))
    if context:
        query = net.linear(net.quantize(net.layer_norm(x), signed=True), WIDTH)
        key, value = net.linear(context, WIDTH), net.linear(context, WIDTH)
        mixed = net.attention(query, key, value, HEADS, numbers=numbers)
        x = net.add(x, net.linear(net.quantize(mixed, signed=True), WIDTH))
    inner = net.relu(net.linear(net.quantize(net.layer_norm(x), signed=True), WIDTH))
    return net.add(x, net.linear(net.quantize(inner, signed=False), WIDTH))


def decoder_only(length: int, *, places: bool = True) -> NetworkFactory:
    net = NetworkFactory((length,), "w2a2+w4a4", n_tokens=N_TOKENS)
    x = net.embedding("x", WIDTH)
    x = block(net, block(net, net.add_constant(x) if places else x))
    net.linear(net.quantize(net.layer_norm(x), signed=True, palette="w8a8"), N_TOKENS)
    return net


def encoder_decoder(source: int, target: int) -> NetworkFactory:
    net = NetworkFactory((source + target,), "w1a1+w4a4", n_tokens=N_TOKENS)
    first, second = net.slice("x", 0, source), net.slice("x", source, source + target)
    x = net.add_constant(net.embedding(first, WIDTH))
    codes = net.quantize(net.layer_norm(x), signed=True)
    mixed = net.attention(*(net.linear(codes, WIDTH) for _ in range(3)), HEADS, numbers=first)
    context = net.quantize(net.add(x, mixed), signed=True)
    x = net.add_constant(net.embedding(second, WIDTH))
    x = block(net, block(net, x, context=context, numbers=first), context=context, numbers=first)
    net.linear(net.quantize(net.layer_norm(x), signed=True), N_TOKENS)
    return net


def assert_rows_equal(net: NetworkFactory, batch: int, pieces: list[int], threads: int = 1) -> None:
    """Logits behind each piece of a sequence are those of the golden arithmetic's whole run."""
    network, x = net.network(), net.inputs(batch)
    whole = evaluate(network, net.arrays, x)
    decoder = Decoder(PackedNetwork(network, net.arrays), batch=batch, threads=threads)
    source, target = x[:, : decoder.source_tokens], x[:, decoder.source_tokens :]
    for _ in range(2):  # what an earlier sequence left does no harm
        decoder.begin(source if decoder.source_tokens else None)
        at = 0
        for piece in pieces:
            logits = decoder.read(target[:, at : at + piece])
            at += piece
            np.testing.assert_array_equal(logits, whole[:, at - 1])
        assert decoder.position == at


@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_pieces_of_a_sequence(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 150))
    pieces, left = [], length
    while left and len(pieces) < 12:
        pieces.append(data.draw(st.integers(1, left)))
        left -= pieces[-1]
    net = decoder_only(length, places=data.draw(st.booleans()))
    assert_rows_equal(net, data.draw(st.integers(1, 3)), pieces, data.draw(st.sampled_from([1, 2])))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(source=st.integers(1, 20), prompt=st.integers(1, 12), steps=st.integers(0, 5), batch=st.integers(1, 3))
def test_any_pieces_behind_a_source(source: int, prompt: int, steps: int, batch: int) -> None:
    assert_rows_equal(encoder_decoder(source, prompt + steps), batch, [prompt] + [1] * steps)


def test_a_prompt_runs_as_a_product_of_many_rows() -> None:
    rows = {shape.rows for shape, _ in decoder_windows(_packed(decoder_only(40)), batch=2)}
    assert rows == {80, 2}
    assert FEWEST_ROWS < 40


def test_parts_are_timed_step_by_step() -> None:
    packed, tokens = _packed(encoder_decoder(5, 9)), np.arange(14)[None] % N_TOKENS
    decoder = Decoder(packed)
    decoder.begin(tokens[:, :5])
    expected = decoder.read(tokens[:, 5:])
    parts = decoder.time_parts()
    assert parts.keys() == {"step", "prompt", "encode"}
    assert sorted(parts["step"].kept.values()) == [5, 5, 8, 8]  # the source; the tokens before the last there can be
    assert sorted(parts["prompt"].kept.values()) == [0, 5]  # the last block keeps nothing behind its own keys
    assert not parts["encode"].kept
    for part in parts.values():
        assert [step.node for step in part.steps] == [step.node for step in part.plan.steps]
    with pytest.raises(UserError, match="begin"):
        decoder.read(tokens[:, 5:])
    decoder.begin(tokens[:, :5])
    np.testing.assert_array_equal(decoder.read(tokens[:, 5:]), expected)


def test_greedy_tokens_are_those_of_whole_runs(tmp_path: Path) -> None:
    packed = _packed(decoder_only(20))
    packed.save(tmp_path / "net.soniq")
    prompt = np.array([[3, 1, 4, 1, 5]])
    found = soniq_dse.runtime.load(tmp_path / "net.soniq").decoder().generate(prompt, 16)
    tokens = np.zeros((1, 20), np.int64)
    tokens[:, :5] = prompt
    for at in range(16):
        best = packed.run(tokens)[0, 4 + at].argmax()
        assert found[0, at] == best
        if at < 15:
            tokens[0, 5 + at] = best


def test_greedy_translation_is_that_of_whole_runs() -> None:
    net = encoder_decoder(7, 6)
    packed, inputs = _packed(net), net.inputs(35)
    inputs[:, :7] *= np.arange(7) < np.arange(35)[:, None] % 8  # padded behind
    whole = at_full_length(packed.run, 13)
    run = by_token(packed, whole)
    assert isinstance(run, TokenByToken)
    found = greedy(run, inputs, 6)
    np.testing.assert_array_equal(found, greedy(whole, inputs, 6))
    assert (found == 2).any()
    np.testing.assert_array_equal(run(inputs), packed.run(inputs))


def _packed(net: NetworkFactory) -> PackedNetwork:
    return PackedNetwork(net.network(), net.arrays)


def test_what_no_sequence_holds_is_refused() -> None:
    decoder = Decoder(_packed(decoder_only(9)))
    with pytest.raises(UserError, match=r"expected 9 of a sequence at most, got 0 \+ 10"):
        decoder.read(np.zeros((1, 10), int))
    with pytest.raises(UserError, match="expected 9 of a sequence at most, and one behind, got 4 and 7 more"):
        decoder.generate(np.zeros((1, 4), int), 7)
    with pytest.raises(UserError, match=r"expected \[1, n\] with n >= 1, got \[1, 0\]"):
        decoder.read(np.zeros((1, 0), int))
    with pytest.raises(UserError, match=r"expected token numbers 0\.\.10"):
        decoder.read(np.full((1, 2), N_TOKENS))
    translator = Decoder(_packed(encoder_decoder(5, 4)))
    with pytest.raises(UserError, match=r"expected begin\(source\)"):
        translator.read(np.zeros((1, 1), int))
    with pytest.raises(UserError, match=r"source: expected token numbers \[1, 5\], got \[1, 4\]"):
        translator.begin(np.zeros((1, 4), int))


def _bidirectional() -> NetworkFactory:
    net = NetworkFactory((6,), "w4a4", n_tokens=N_TOKENS)
    codes = net.quantize(net.embedding("x", WIDTH), signed=True)
    mixed = net.attention(*(net.linear(codes, WIDTH) for _ in range(3)), HEADS)
    net.linear(net.quantize(mixed, signed=True), N_TOKENS)
    return net


def _of_images() -> NetworkFactory:
    net = NetworkFactory((3, 4, 4), "w4a4")
    net.tokens(net.conv(net.quantize("x", signed=True), 8))
    return net


def _attends_to_later_tokens() -> NetworkFactory:
    net = NetworkFactory((6,), "w4a4", n_tokens=N_TOKENS)
    mixed = net.attention(*(net.embedding(net.slice("x", at, at + 3), WIDTH) for at in (3, 2, 2)), HEADS)
    net.linear(net.quantize(mixed, signed=True), N_TOKENS)
    return net


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (_bidirectional(), r"expected attention to earlier tokens alone \(causal\), got"),
        (_of_images(), "expected one that reads token numbers"),
        (_attends_to_later_tokens(), "follows from the first 3 tokens, got to later ones"),
    ],
)
def test_networks_that_look_ahead_are_refused(net: NetworkFactory, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Decoder(_packed(net))
    assert not isinstance(by_token(_packed(net), _packed(net).run), TokenByToken)
