"""Wrapping: what training sees is what deployment computes, level by level."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from soniq_dse.errors import UserError
from soniq_dse.formats import format_of
from soniq_dse.formats import network as golden
from soniq_dse.qat.allocators import Levels
from soniq_dse.qat.apply import QuantizedModel, quantize_model
from soniq_dse.qat.calibrate import best_steps
from soniq_dse.qat.deploy import deploy, size_bytes
from soniq_dse.qat.fake_quant import ActivationQuantizer, ClassMixture, NoiseKeys, Phase, WeightQuantizer
from soniq_dse.qat.soft_assignment import SoftAssignment
from soniq_dse.qat.training import deterministic, outputs_of
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.network import Conv2dNode, IntegerNetwork, QuantizeNode
from soniq_dse.records.palette import NumberFormat, Palette
from soniq_dse.store import array_ref
from soniq_dse.workloads.trace import trace

SCHEDULE = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)


class Branches(nn.Module):
    """Residual add, a shared consumer, signed inputs with padding, an average pool, a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.signed = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.left = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.right = nn.Conv2d(8, 8, 1, stride=2)
        self.bn_right = nn.BatchNorm2d(8)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, 2, 8, 8]`` -> ``[n, 5]``."""
        x = self.bn(self.stem(x))
        x = torch.relu(self.signed(x))
        x = self.left(x) + self.bn_right(self.right(x))
        return self.head(self.pool(torch.relu(x)).flatten(1))


def equal_top1(first: np.ndarray, second: np.ndarray) -> int:
    """Rows whose largest entry is at the same place in both."""
    return int((first.argmax(axis=1) == second.argmax(axis=1)).sum())


def candidate(palette: str, **more: object) -> Candidate:
    fields = {"model": "m", "data": "d", "data_sha256": "0", "schedule": SCHEDULE, "palette": Palette.parse(palette)}
    return Candidate(**(fields | more))  # type: ignore[arg-type]


def wrapped(
    palette: str, model: Callable[[], nn.Module] = Branches, **more: object
) -> tuple[QuantizedModel, np.ndarray]:
    torch.manual_seed(0)
    network = model()
    x = torch.randn(32, 2, 8, 8)
    network.train()
    for _ in range(3):
        network(x)
    workload = trace(network, x[:1], name="m")
    quantized = quantize_model(network, workload, candidate(palette, **more))
    quantized.calibrate(x)
    return quantized, x.numpy()


def deployed(quantized: QuantizedModel) -> tuple[IntegerNetwork, dict[str, np.ndarray]]:
    arrays: dict[str, np.ndarray] = {}

    def put(array: np.ndarray) -> ArrayRef:
        ref = array_ref(array)
        arrays[ref.sha256] = array
        return ref

    return deploy(quantized, put), arrays


def some_levels(quantized: QuantizedModel) -> Levels:
    n_levels = len(quantized.problem.palette.levels)
    return {c.name: tuple(i % n_levels for i in range(c.channels)) for c in quantized.problem.classes}


class Perceptron(nn.Module):
    """Linear layers, BatchNorm of features, signed and unsigned hidden tensors, a flattened class in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 4, stride=4)
        self.wide = nn.Linear(16, 24)
        self.bn = nn.BatchNorm1d(24)
        self.signed = nn.Linear(24, 12)
        self.head = nn.Linear(12, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, 2, 8, 8]`` -> ``[n, 5]``."""
        x = torch.relu(self.stem(x)).flatten(1)
        return self.head(self.signed(self.bn(self.wide(x))))


def test_linear_layers_and_flattened_classes_agree_too() -> None:
    """Channel c of the flattened class covers the features 4c .. 4c + 3, and all of them share its level."""
    quantized, x = wrapped("w2a2+w4a4", Perceptron)
    levels = some_levels(quantized)
    quantized.harden(levels)
    quantized.set_phase("finetune")
    network, arrays = deployed(quantized)
    kept = golden.evaluate(network, arrays, x, keep=True)
    flattened = next(n for n in network.nodes if isinstance(n, QuantizeNode) and n.inputs == ("flatten",))
    assert flattened.quantizer.level_of_channel == tuple(level for level in (0, 1, 0, 1) for _ in range(4))
    outputs = outputs_of(quantized.model, x).numpy()
    assert equal_top1(outputs, kept["head"]) >= 30
    assert np.median(np.abs(outputs - kept["head"])) <= 1e-3 * np.abs(outputs).max()


def test_grouped_convolutions_learn_per_group_inputs() -> None:
    """The level of a weight is that of the channel it reads: with groups another one for each group of outputs."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 1, groups=2)
    mixture = ClassMixture(Palette.parse("w1a1+w2a2"), 4, signed=False)
    quantizer = WeightQuantizer(mixture, conv.weight, 2, NoiseKeys(0))
    mixture.harden((0, 1, 1, 0))
    mixture.phase = "finetune"
    assert quantizer.input_level().tolist() == [[0, 1]] * 3 + [[1, 0]] * 3
    steps = quantizer.log_step.detach().exp()
    codes = quantizer(conv.weight).detach()[:, :, 0, 0]
    for out, position in np.ndindex(6, 2):
        level = int(quantizer.input_level()[out, position])
        ratio = abs(float(codes[out, position] / steps[level, out]))
        assert ratio == pytest.approx(1) or (level == 1 and ratio == pytest.approx(3))
    mixture.shares = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    noisy = quantizer(conv.weight).detach()[:, :, 0, 0]
    for out, position in np.ndindex(6, 2):
        level = int(quantizer.input_level()[out, position])
        edge = float(steps[level, out]) * (2, 4)[level]
        clamped = max(-edge, min(edge, float(conv.weight.detach()[out, position, 0, 0])))
        assert abs(float(noisy[out, position]) - clamped) <= float(steps[level, out]) * (1 + 1e-6)


@pytest.mark.parametrize("palette", ["w1a1", "w2a2", "w4a4", "w8a8", "w1a1+w4a4", "w2a2+w2a4+w8a8"])
def test_integers_compute_what_training_saw(palette: str) -> None:
    """fp32 convolutions round differently, and now and then that moves a value over a tie, by one code. Away from ties
    the two agree to fp32: the first convolution, whose input codes are equal, to 1e-5 of its largest output."""
    quantized, x = wrapped(palette)
    quantized.harden(some_levels(quantized))
    quantized.set_phase("finetune")
    network, arrays = deployed(quantized)
    kept = golden.evaluate(network, arrays, x, keep=True)
    quantized.model.eval()
    with torch.no_grad():
        stem = quantized.model.bn(quantized.model.stem(torch.tensor(x))).numpy()
    np.testing.assert_allclose(kept["stem"], stem, rtol=0, atol=1e-5 * np.abs(stem).max())
    outputs = outputs_of(quantized.model, x).numpy()
    assert equal_top1(outputs, kept["head"]) >= 30
    assert np.median(np.abs(outputs - kept["head"])) <= 1e-3 * np.abs(outputs).max()


def test_the_network_holds_the_levels_steps_and_integers_of_the_model() -> None:
    quantized, _ = wrapped("w1a1+w4a4")
    levels = some_levels(quantized)
    quantized.harden(levels)
    network, arrays = deployed(quantized)
    quantizers = {node.name: node.quantizer for node in network.nodes if isinstance(node, QuantizeNode)}
    signed = next(node for node in network.nodes if node.name == "signed")
    assert isinstance(signed, Conv2dNode)
    quantizer = quantizers[signed.inputs[0]]
    assert quantizer.signed
    assert quantizer.level_of_channel == levels["bn"]
    weight = arrays[signed.weight.sha256]
    for channel, level in enumerate(quantizer.level_of_channel):
        allowed = [-1, 1] if level == 0 else list(range(-15, 16, 2))
        assert set(np.unique(weight[:, channel])) <= set(allowed)
    left, right = (next(node for node in network.nodes if node.name == name) for name in ("left", "right"))
    assert left.inputs == right.inputs, "one activation quantizer per tensor"
    pinned = quantizers["input.codes"]
    assert pinned.palette.name == "w8a8"
    # stem 8*2*9 + head 5*32 bytes at 8 bits; signed, left 8*8*9 and right 8*8 weights at 2.5 bits on average.
    weights = 144 + 160 + (576 + 576 + 64) * 2.5 / 8
    scales = 4 * (8 * 2 + 8 * 3 + 8 * 3 + 8 * 3 + 5 * 2)
    steps_and_orders = 4 * (1 + 2 + 2 + 1) + 2 * (8 + 8)
    assert size_bytes(network) == weights + scales + steps_and_orders


def test_a_padded_zero_free_input_is_padded_with_its_own_code() -> None:
    """1-bit signed codes cannot say 0: the kernels pad with +step, and so does training."""
    quantized, x = wrapped("w1a1")
    quantized.harden(some_levels(quantized))
    quantized.set_phase("finetune")
    seen: list[torch.Tensor] = []
    signed = quantized.model.get_submodule("signed")
    assert signed.padding == (0, 0)
    signed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    outputs_of(quantized.model, x[:4])
    step = float(quantized.activations["bn"].log_step.detach().exp()[0])
    assert seen[0].shape == (4, 8, 10, 10)
    border = torch.ones(10, 10, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert torch.equal(seen[0][:, :, border], torch.full((4, 8, 36), step))
    assert set(seen[0].unique().tolist()) == {-step, step}


def test_the_budget_is_met_at_every_step_of_phase_one() -> None:
    quantized, x = wrapped("w1a1+w2a2+w4a4", budget_bits=2.3)
    soft = SoftAssignment(quantized)
    seen = []
    for done in np.linspace(0, 1, 6):
        soft.before_step(float(done))
        seen.append(soft.expected_cost())
        quantized.model(torch.tensor(x)).square().mean().backward()
        soft.after_backward()
    np.testing.assert_allclose(seen, 2.3, rtol=1e-5)  # shares are fp32
    assert max(float(np.abs(v).max()) for v in soft.logits().values()) > 0.01


def test_the_users_model_keeps_its_class_and_parameters() -> None:
    torch.manual_seed(0)
    model = Branches()
    names = {name for name, _ in model.named_parameters()}
    workload = trace(model, torch.zeros(1, 2, 8, 8), name="m")
    quantized = quantize_model(model, workload, candidate("w2a2"))
    assert isinstance(quantized.model, Branches)
    own = {id(p) for p in quantized.model_parameters()}
    found = {
        name.replace("parametrizations.weight.original", "weight")
        for name, parameter in model.named_parameters()
        if id(parameter) in own
    }
    assert found == names
    assert not own & {id(p) for p in quantized.log_steps()}


@pytest.mark.parametrize("phase", ["noise", "finetune"])
def test_quantized_inputs_that_are_made_again_give_the_same_gradients(
    phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five layers, of which one (signed) pads its zero-free input itself, so that autograd keeps the padded one."""
    found, remade = [], []
    pack = ActivationQuantizer._pack

    def counting(quantizer: ActivationQuantizer, tensor: torch.Tensor) -> object:
        kept = pack(quantizer, tensor)
        remade.append(not isinstance(kept, torch.Tensor))
        return kept

    monkeypatch.setattr(ActivationQuantizer, "_pack", counting)
    for again in (True, False):
        if not again:
            monkeypatch.setattr(ActivationQuantizer, "remade", lambda _: nullcontext())
        quantized, x = wrapped("w2a2+w4a4", budget_bits=3.0)
        quantized.harden(some_levels(quantized))
        quantized.set_phase(phase)
        quantized.model(torch.tensor(x)).square().sum().backward()
        found.append([p.grad for p in (*quantized.model_parameters(), *quantized.log_steps())])
    assert sum(remade) == 4
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


class Absorbing(nn.Module):
    """ReLUs that only layers read, straight or behind a pool; one that an add reads too, one that runs twice, and one
    whose class is signed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.second, self.third, self.last, self.end = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.pool, self.head = nn.MaxPool2d(2), nn.Linear(8 * 9, 5)
        self.alone, self.pooled, self.added, self.twice, self.signed = (nn.ReLU() for _ in range(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, 2, 8, 8]`` -> ``[n, 5]``."""
        x = self.added(self.stem(x))
        x = x + self.second(self.alone(self.first(x)))
        x = self.twice(self.twice(x))
        x = self.third(x)
        x = x + self.last(self.signed(x))
        return self.head(self.pool(self.pooled(self.end(x))).flatten(1))


@pytest.mark.parametrize("phase", ["noise", "finetune"])
def test_an_absorbed_relu_changes_no_bit(phase: Phase) -> None:
    results = []
    for absorbing in (True, False):
        quantized, x = wrapped("w2a2+w4a4", Absorbing, budget_bits=3.0)
        relus = {n: m for n, m in quantized.model.named_modules() if isinstance(m, nn.ReLU)}
        assert {name for name, module in relus.items() if "forward" in vars(module)} == {"alone", "pooled"}
        if not absorbing:
            del relus["alone"].forward, relus["pooled"].forward
        quantized.harden(some_levels(quantized))
        quantized.set_phase(phase)
        outputs = quantized.model(torch.tensor(x))
        outputs.square().sum().backward()
        gradients = [p.grad for p in (*quantized.model_parameters(), *quantized.log_steps())]
        results.append([outputs.detach(), *gradients])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


def test_best_step_beats_its_neighbours() -> None:
    """1 bit on a Gaussian: the least squared error is at step = E|x| = 0.798 std (known in closed form)."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 20000)).astype(np.float32))
    grid = format_of(NumberFormat(family="zerofree", bits=1)).grid(1)
    steps = best_steps(x * torch.tensor([[1.0], [10.0], [0.0]]), grid)
    assert steps[0] == pytest.approx(0.798, rel=0.06)  # half a candidate's distance: 10**(1.65 / 47 / 2) = 4 %
    assert steps[1] == pytest.approx(7.98, rel=0.06)
    assert steps[2] > 0


def test_noise_keys_depend_on_the_seed_and_the_step_alone() -> None:
    first, second = NoiseKeys(3), NoiseKeys(3)
    places = [first.place(), first.place()]
    assert places == [second.place(), second.place()]
    first.advance()
    first.advance()
    second.step = 2  # as a run that resumes
    assert [int(first[place]) for place in places] == [int(second[place]) for place in places]
    second.advance()
    assert int(first[0]) != int(first[1]) != int(second[1])


@pytest.mark.parametrize(
    ("palette", "model", "message"),
    [
        ("w4", Branches, "weight-only level w4; nearest valid choice: w4a8"),
        ("w2a2", lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3)), "got sigmoid at"),
        (
            "w2a2",
            lambda: nn.Sequential(nn.Linear(8, 4)),
            "shape .n, features. or .n, tokens, features., got .1, 2, 8, 8.",
        ),
    ],
)
def test_what_cannot_be_deployed_is_refused(palette: str, model: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UserError, match=message):
        wrapped(palette, model)


def test_settings_of_torch_come_back() -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with deterministic(1):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before
