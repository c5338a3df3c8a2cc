"""Every model that the registry finds: traces without a remainder, takes one training step, is built afresh."""

from __future__ import annotations

import pytest
import torch

from soniq_dse import registry
from soniq_dse.errors import UserError
from soniq_dse.workloads import load_model, load_workload
from soniq_dse.workloads.task import cross_entropy, token_cross_entropy

MODELS = registry.names("model")


@pytest.mark.parametrize("name", MODELS)
def test_traces(name: str) -> None:
    build, defaults = load_model(name)
    workload = load_workload(name, batch=2)
    assert defaults.input_shape is not None
    assert workload.input_shape == (2, *defaults.input_shape)
    assert workload.unsupported == ()
    modules = dict(build().named_modules())
    for node in workload.nodes:
        assert all(node.name != tensor for tensor in node.inputs)
        assert not node.module or node.module in modules
    read = [reader for c in workload.tensor_classes for reader in c.consumers]
    assert sorted(read) == sorted(layer.name for layer in workload.layers)
    assert sum(layer.n_weights for layer in workload.layers) == sum(
        module.weight.numel() for module in modules.values() if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))
    )
    pinned = {reader for c in workload.tensor_classes if c.pinned_bits for reader in c.consumers}
    begins = [] if any(node.op == "embedding" for node in workload.nodes) else [workload.layers[0].name]
    assert {*begins, workload.layers[-1].name} <= pinned
    assert any(c.pinned_bits is None for c in workload.tensor_classes)


@pytest.mark.parametrize("name", MODELS)
def test_takes_a_training_step(name: str) -> None:
    build, defaults = load_model(name)
    dataset = registry.load("dataset", defaults.data)
    torch.manual_seed(0)
    model = build()
    shape = (2 if dataset.n_tokens else 8, *dataset.input_shape)
    if dataset.n_tokens:
        inputs = targets = torch.randint(0, dataset.n_tokens, shape)
    else:
        inputs, targets = torch.rand(shape), torch.arange(8) % dataset.n_classes
    loss_of = token_cross_entropy if dataset.n_tokens else cross_entropy
    assert dataset.input_shape == defaults.input_shape
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = loss_of(model(inputs), targets)
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", MODELS)
def test_builds_afresh_from_the_seed(name: str) -> None:
    build, _ = load_model(name)
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(torch.cat([p.detach().flatten() for p in build().parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", MODELS)
def test_narrower_is_cheaper_with_the_same_layers(name: str) -> None:
    full, half = load_workload(name), load_workload(f"{name}@0.5")
    assert [layer.name for layer in full.layers] == [layer.name for layer in half.layers]
    assert 0.2 < sum(v.macs for v in half.layers) / sum(v.macs for v in full.layers) < 0.55
    assert full.layers[-1].out_channels == half.layers[-1].out_channels


@pytest.mark.parametrize("spec", ["tiny_cnn@", "tiny_cnn@0", "tiny_cnn@wide", "tiny_cnn@9"])
def test_an_impossible_width_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match="expected a width from"):
        load_model(spec)
