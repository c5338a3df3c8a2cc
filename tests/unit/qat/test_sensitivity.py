"""What allocators measure, against what is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from soniq_dse import registry
from soniq_dse.qat.allocators.hessian_milp import HessianMilp
from soniq_dse.qat.apply import QuantizedModel, quantize_model
from soniq_dse.qat.sensitivity import Probe
from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.palette import Palette
from soniq_dse.workloads.task import Split, Task
from soniq_dse.workloads.trace import trace

SCHEDULE = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)
N = 8


def mean_square(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.square().mean()


@pytest.fixture
def probe() -> Probe:
    """Identity, a random square matrix, identity: only the middle layer is unpinned; channel 0 is never active."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(N, N, bias=False) for _ in range(3)))
    with torch.no_grad():
        for end in (model[0], model[2]):
            end.weight.copy_(torch.eye(N))
    x = np.random.default_rng(0).normal(size=(512, N)).astype(np.float32)
    x[:, 0] = 0
    split = Split(x, np.zeros(512, dtype=np.int64))
    task = Task("t", split, split, split, loss=mean_square)
    workload = trace(model, torch.zeros(1, N), name="m")
    candidate = Candidate(
        model="m", data="t", data_sha256="", palette=Palette.parse("w1a1+w4a4"), budget_bits=2.5, schedule=SCHEDULE
    )
    quantized: QuantizedModel = quantize_model(model, workload, candidate)
    quantized.calibrate(torch.from_numpy(x))
    return Probe(quantized, task)


def test_the_trace_is_that_of_the_quadratic(probe: Probe) -> None:
    """L = mean over n and o of (sum_i w_oi x_ni)^2: d2L/dw_oi^2 = 2/N E[x_i^2], so the mean curvature is 2/N * 7/8."""
    measured = HessianMilp().measure(probe)
    (read,) = probe.weights
    for level, error in enumerate(read.quantizer.errors(read.weight)):
        expected = 2 / N * 7 / 8 * error.detach().square().sum(dim=0).numpy()
        np.testing.assert_allclose(-measured["0"][:, level], expected, rtol=0.25)


def test_fisher_finds_a_channel_that_is_never_active(probe: Probe) -> None:
    added = -registry.load("allocator", "fisher")().measure(probe)["0"]
    # The weights of channel 0 meet zeros: no gradient. Its activations err, so only they count.
    assert added.shape == (N, 2)
    assert (added[1:, 0] > added[1:, 1]).all()
    assert added[0, 0] < added[1:, 0].min()


def test_greedy_measures_the_loss_itself(probe: Probe) -> None:
    added = -registry.load("allocator", "greedy_sensitivity")().measure(probe)["0"]
    assert np.ptp(added, axis=0) == pytest.approx([0, 0])
    with probe.passing(), torch.no_grad():
        batches = list(probe.batches(4))
        plain = np.mean([float(probe.loss(*batch)) for batch in batches])
        with probe.rounded("0", 0):
            rough = np.mean([float(probe.loss(*batch)) for batch in batches])
    assert added[:, 0].sum() == pytest.approx(rough - plain, rel=1e-5)
    assert abs(added[0, 1]) < abs(added[0, 0])


@pytest.mark.parametrize("name", [n for n in registry.names("allocator") if registry.load("allocator", n).measured])
def test_measuring_leaves_the_model_as_it_was(name: str, probe: Probe) -> None:
    model = probe._quantized.model
    before = {key: value.clone() for key, value in model.state_dict().items() if "level" not in key}
    registry.load("allocator", name)().measure(probe)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items() if key in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {mixture.phase for mixture in probe._quantized.mixtures.values()} == {"noise"}
