"""``soniq_dse.quantize``: a loop of one's own, stopped and resumed; networks that can be trained but not deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import soniq_dse
from soniq_dse.errors import UserError
from soniq_dse.formats import network as golden
from soniq_dse.qat.session import Session
from soniq_dse.qat.training import deterministic
from soniq_dse.records.channel_costs import ChannelCosts
from soniq_dse.records.design import Assignment
from soniq_dse.runtime.check import check
from soniq_dse.runtime.pack import PackedNetwork

BATCHES = [
    (torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(i)), torch.arange(16) % 4) for i in range(8)
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4),
    )  # fmt: skip


class Loop:
    """Four steps of noise, four of fine-tuning."""

    def __init__(self, allocator: str = "soniq") -> None:
        self.model = network().train()
        self.session: Session = soniq_dse.quantize(
            self.model, "w1a1+w4a4", BATCHES[0][0], budget_bits=2.0, allocator=allocator
        )
        self.optimizer = torch.optim.AdamW(self.session.parameter_groups(1e-2))
        self.session.attach(self.optimizer, noise_steps=4)

    def run(self, first: int, last: int, losses: list[float] | None = None) -> None:
        for index in range(first, last):
            if index == 4:
                self.session.finetune()
            inputs, targets = BATCHES[index]
            loss = nn.functional.cross_entropy(self.model(inputs), targets)
            if losses is not None:
                losses.append(float(loss.detach()))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def state(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "session": self.session}
        return {name: part.state_dict() for name, part in parts.items()}


@pytest.mark.parametrize("stop", [2, 6])
def test_a_loop_that_resumes_ends_in_the_same_bits(stop: int, tmp_path: Path) -> None:
    with deterministic(1):
        whole, before, after = Loop(), Loop(), Loop()
        whole.run(0, 8)
        before.run(0, stop)
        torch.save(before.state(), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        after.model.load_state_dict(state["model"])
        after.session.load_state_dict(state["session"])
        after.optimizer.load_state_dict(state["optimizer"])
        after.run(stop, 8)
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in after.model.state_dict().items())
    assert after.session.assignment() == whole.session.assignment()


@pytest.mark.parametrize("palette", ["w2a2+w4a4", "w4a4"])
def test_a_model_of_pinned_layers_alone(palette: str) -> None:
    model, inputs = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), BATCHES[0][0]
    session = soniq_dse.quantize(model.train(), palette, inputs, budget_bits=4.0)
    session.finetune()
    network, arrays = session.deploy()
    with torch.no_grad():
        expected = model.eval()(inputs).numpy()
    np.testing.assert_allclose(golden.evaluate(network, arrays, inputs.numpy()), expected, atol=1e-5)


@pytest.mark.parametrize("allocator", ["soniq", "uniform"])
def test_the_loop_ends_in_an_integer_network(allocator: str) -> None:
    loop = Loop(allocator)
    if allocator == "soniq":
        with pytest.raises(UserError, match="call finetune"):
            loop.session.deploy()
    loop.run(0, 8)
    loop.model.eval()
    network, arrays = loop.session.deploy()
    assert loop.session.assignment().bits_per_weight <= 2.0
    inputs = torch.cat([inputs for inputs, _ in BATCHES])
    with torch.no_grad():
        outputs = loop.model(inputs).numpy()
    integers = golden.evaluate(network, arrays, inputs.numpy())
    assert (outputs.argmax(axis=1) == integers.argmax(axis=1)).mean() > 0.95
    assert np.median(np.abs(outputs - integers)) <= 1e-4 * np.abs(outputs).max()


class Attention(nn.Module):
    """Token and place embeddings, one block of self-attention and one of cross-attention, a final dense layer."""

    def __init__(self, width: int = 16, vocabulary: int = 11) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.expand, self.contract = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, length]`` -> ``[n, length, vocabulary]``."""
        x = self.embedding(tokens)
        y = self.norm(x)
        mixed = nn.functional.scaled_dot_product_attention(self.query(y), self.key(y), self.value(y), is_causal=True)
        x = x + self.out(mixed)
        return self.head(x + self.contract(torch.relu(self.expand(self.norm(x)))))


def test_a_transformer_trains_with_its_head_and_embedding_weight_only() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 11, (32, 12))
    model = Attention().train()
    session = soniq_dse.quantize(model, "w2a2+w4a4", tokens, budget_bits=3.0, pins={"head": "w8", "query": "w4a4"})
    read = {node for c in session._quantized.workload.tensor_classes for node in c.consumers}
    assert read == {"query", "key", "value", "out", "expand", "contract", "head"}
    assert not hasattr(model.head, "input_quantizer")
    assert session.unsupported == ()
    optimizer = torch.optim.AdamW(session.parameter_groups(1e-2))
    session.attach(optimizer, noise_steps=15)
    losses = []
    for step in range(40):
        if step == 15:
            assignment = session.finetune()
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    assert assignment.bits_per_weight <= 3.0
    pinned = {name: palette.name for name, palette in assignment.pinned.items()}
    assert pinned["embedding.weight"] == "w8"
    assert pinned["norm"] == "w4a4", "q, k and v share what they read"
    assert "w8" in pinned.values()
    codes = (
        model.embedding.weight.detach() / session._quantized.weights["embedding"].log_step.detach().exp()[0][:, None]
    )
    assert float(codes.abs().max()) <= 127.01
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)
    network, arrays = session.deploy()
    assert network.nodes[-1].op == "weight_only"
    with torch.no_grad():
        expected = model.eval()(tokens).numpy()
    found = golden.evaluate(network, arrays, tokens.numpy())
    assert (found.argmax(axis=-1) == expected.argmax(axis=-1)).mean() > 0.97


def test_a_grouped_convolution_mixes_levels_and_runs_code_for_code() -> None:
    """Its groups have uneven shares of each level; the runtime equals the golden arithmetic on them."""
    loop = Loop()
    loop.run(0, 8)
    assignment = loop.session.assignment()
    (grouped,) = (c for c in loop.session._quantized.workload.tensor_classes if "6" in c.consumers)
    levels = assignment.level_of_channel[grouped.name]
    assert set(levels) == {0, 1}
    assert len({levels[at : at + 4].count(1) for at in range(0, 16, 4)}) > 1
    inputs = BATCHES[0][0].numpy()
    assert check(PackedNetwork(*loop.session.deploy()), inputs, batch=4).exact


def test_levels_are_fixed_by_what_they_really_cost() -> None:
    """Everything costs twice what the table says, so that the assignment takes half of what it would."""
    costs = ChannelCosts(unit="latency_us", budget=40.0, per_channel={"2": (0.5, 2.0), "5": (0.25, 1.0)})

    def cost_of(assignment: Assignment) -> float:
        table = costs.per_channel
        return 2 * sum(table[name][level] for name in table for level in assignment.level_of_channel[name])

    spent = []
    for real in (None, cost_of):
        session = soniq_dse.quantize(network(), "w1a1+w4a4", BATCHES[0][0], costs=costs, cost_of=real)
        spent.append(cost_of(session.finetune()))
    assert spent[0] > 40
    assert 36 <= spent[1] <= 40


def test_wrong_requests_are_told_in_one_line() -> None:
    example = BATCHES[0][0]
    for arguments, message in (
        ({"palette": "w9a9"}, "palette: expected 1 to 8 bits, got 'w9a9'"),
        ({"palette": "w2a2", "allocator": "fisher"}, "allocator fisher: expected one that measures nothing"),
        ({"palette": "w2a2", "pins": {"10": "w8a8"}}, "pin: layer: expected a known name, got '10'"),
        ({"palette": "w2+w4a4", "budget_bits": 3.0}, "expected weight-only levels alone, or none"),
        ({"palette": "w2a2+w4a4", "budget_bits": 1.0}, "budget_bits: expected at least 2"),
        ({"palette": "w2a2+w4a4", "budget_bits": float("nan")}, "budget_bits: expected a finite number, got nan"),
        ({"palette": "w2a2", "pins": {"9": "w9"}}, "pin 9: expected 1 to 8 bits, got 'w9'"),
        ({"palette": "w2a2", "granularity": "layr"}, "granularity: .* nearest valid choice: 'layer'"),
        ({"palette": "w2a2", "k_group": 0}, "k_group: expected a whole number of at least 1, got 0"),
        ({"palette": "w2a2", "seed": -1}, "seed: expected a whole number of at least 0, got -1"),
    ):
        with pytest.raises(UserError, match=message):
            soniq_dse.quantize(network(), example=example, **arguments)


def test_wrong_models_examples_and_states_are_told_in_one_line() -> None:
    example, wrapped = BATCHES[0][0], network()
    session = soniq_dse.quantize(wrapped, "w2a2", example)
    for model, given, message in (
        (3, example, "model: expected a torch.nn.Module, got int"),
        (nn.Flatten(), example, "model: expected at least one nn.Conv2d"),
        (wrapped, example, "model: expected one that is not wrapped yet"),
        (network(), example.numpy(), "example: expected a torch.Tensor, got ndarray"),
        (network(), example[:0], r"example: expected a batch of at least one input, got shape \[0, 1, 8, 8\]"),
        (network(), example * float("nan"), "example: expected finite inputs"),
    ):
        with pytest.raises(UserError, match=message):
            soniq_dse.quantize(model, "w2a2", given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"state: expected what Session.state_dict.* got none of noise_step"):
        session.load_state_dict({"phase": "noise"})


def test_a_norm_with_statistics_of_each_batch_trains_and_is_not_deployed() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(), nn.Conv2d(8, 4, 3)
    )
    session = soniq_dse.quantize(model, "w2a2", BATCHES[0][0])
    session.finetune()
    model(BATCHES[0][0]).sum().backward()
    with pytest.raises(UserError, match="expected operators that the integer network has, got batch_norm"):
        session.deploy()


@pytest.mark.parametrize("phase", ["noise", "finetune"])
def test_channels_last_autocast_and_compile_train_alike(phase: str) -> None:
    """One step each way. Rounding moves codes over ties in bf16, so that gradients are compared by direction."""

    def gradients(way: str) -> torch.Tensor:
        loop = Loop("uniform")
        if phase == "finetune":
            loop.session.finetune()
        model, (inputs, targets) = loop.model, BATCHES[0]
        if way == "channels-last":
            model, inputs = model.to(memory_format=torch.channels_last), inputs.to(memory_format=torch.channels_last)
        call = torch.compile(model, backend="aot_eager") if way == "compile" else model
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            loss = nn.functional.cross_entropy(call(inputs), targets)
        loss.backward()
        own = loop.session._quantized.model_parameters()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in own)
        return torch.cat([p.grad.flatten() for p in own])

    plain = gradients("plain")
    torch.testing.assert_close(gradients("compile"), plain, rtol=1e-4, atol=1e-5)
    for way in ("autocast", "channels-last") if phase == "finetune" else ("autocast",):
        # codes that moved may add 0.6 of the length of the gradient; a wrong one has no direction in common
        assert float(nn.functional.cosine_similarity(gradients(way), plain, dim=0)) > 0.85


def test_learned_levels_train_in_16_bits_as_in_32() -> None:
    """Whole trainings, step by step: within one step of bf16 between 1 and 2, where the losses lie."""
    losses = []
    for enabled in (False, True):
        loop, found = Loop(), []
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loop.run(0, 8, found)
        losses.append(found)
    assert losses[1] == pytest.approx(losses[0], abs=2**-7)


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    loop = Loop()
    parallel = nn.parallel.DistributedDataParallel(loop.model)
    for index in range(rank, 8, 2):
        if index == 4 + rank:
            loop.session.finetune()
            parallel = nn.parallel.DistributedDataParallel(loop.model)
        loss = nn.functional.cross_entropy(parallel(BATCHES[index][0]), BATCHES[index][1])
        loop.optimizer.zero_grad()
        loss.backward()
        loop.optimizer.step()
    state = {name: value for name, value in loop.model.state_dict().items() if "running" not in name}
    torch.save((state, loop.session.assignment().model_dump()), f"{folder}/rank{rank}.pt")


@pytest.mark.slow
def test_ranks_of_a_distributed_loop_stay_together(tmp_path: Path) -> None:
    """Each sees its own batches; weights, steps and levels are the same to the bit."""
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    (first, levels), (second, other) = (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1))
    assert levels == other
    assert all(torch.equal(value, second[name]) for name, value in first.items())
