"""What a schedule may ask of training: each does what it says, and the whole stays deterministic and resumable."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from soniq_dse.errors import UserError
from soniq_dse.qat.apply import quantize_model
from soniq_dse.qat.augment import augment, flip, shift
from soniq_dse.qat.average import Average
from soniq_dse.qat.baseline import train_baseline
from soniq_dse.qat.design import train_design
from soniq_dse.qat.fake_quant import ActivationQuantizer
from soniq_dse.quantizers.noise import add_noise
from soniq_dse.records.design import Candidate, Schedule, TrainedDesign
from soniq_dse.records.palette import Palette
from soniq_dse.store import Store
from soniq_dse.workloads.loading import load_model, load_task, load_workload

MODEL = "tiny_cnn"
SHORT = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1, batch_size=32)


def images(n: int = 6, side: int = 16) -> torch.Tensor:
    return torch.arange(1, n * 2 * side * side + 1, dtype=torch.float32).view(n, 2, side, side)


def test_a_shifted_image_is_the_image_with_zeros_moved_in() -> None:
    torch.manual_seed(3)
    before = images()
    after = shift(before)
    seen = set()
    for old, new in zip(before, after, strict=True):
        padded = nn.functional.pad(old, (2, 2, 2, 2))
        places = [(y, x) for y in range(5) for x in range(5) if torch.equal(padded[:, y : y + 16, x : x + 16], new)]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) > 1, "every image moves by itself"


def test_about_half_of_the_images_are_mirrored() -> None:
    torch.manual_seed(0)
    before = images(200, 8)
    after = flip(before)
    mirrored = [torch.equal(new, old.flip(2)) for old, new in zip(before, after, strict=True)]
    kept = [torch.equal(new, old) for old, new in zip(before, after, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


def test_only_images_can_be_augmented() -> None:
    assert augment("none", torch.zeros(2, 5)) is None
    with pytest.raises(UserError, match=r"augment shift: expected images .* got \[2, 5\]"):
        augment("shift", torch.zeros(2, 5))


def test_an_average_by_hand() -> None:
    model = nn.BatchNorm1d(1)
    average = Average(model, 0.75)
    with torch.no_grad():
        model.weight.fill_(5.0)
    average.update()  # 0.75 * 1 + 0.25 * 5
    average.update()  # 0.75 * 2 + 0.25 * 5
    average.apply()
    assert model.weight.item() == pytest.approx(2.75)
    assert model.num_batches_tracked.item() == 0


def candidate(schedule: Schedule, palette: str = "w2a2") -> Candidate:
    data = load_task("digits", limit=100).data_sha256
    return Candidate(model=MODEL, data="digits", data_sha256=data, palette=Palette.parse(palette), schedule=schedule)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def train(store: Store, **settings: object) -> TrainedDesign:
    task, schedule = load_task("digits", limit=100), SHORT.model_copy(update=settings)
    baseline = train_baseline(MODEL, task, schedule.of_baseline, 0, store)
    return train_design(candidate(schedule), load_workload(MODEL), load_model(MODEL)[0], task, baseline, store)


SETTINGS: list[dict[str, object]] = [
    {"augment": "shift_flip"}, {"augment": "shift", "distillation": 0.0}, {"distillation": 0.0}, {"temperature": 4.0},
    {"warm_start": False}, {"noise": "measured"}, {"noise_ramp": 0.5}, {"learned_steps": False},
    {"clipped_gradient": False}, {"ema_decay": 0.5},
]  # fmt: skip


def test_every_setting_changes_the_result_and_gives_it_again(store: Store) -> None:
    plain = train(store)
    found = [train(store, **settings) for settings in SETTINGS]
    weights = {design.arrays for design in (plain, *found)}
    assert len(weights) == len(SETTINGS) + 1
    assert train(store, augment="shift_flip").arrays == found[0].arrays


def test_steps_that_are_not_learned_stay_where_calibration_put_them(store: Store) -> None:
    fixed = [train(store, learned_steps=False, distillation=weight) for weight in (0.0, 0.5)]
    quantizers = [[node.quantizer for node in d.network.nodes if node.op == "quantize"] for d in fixed]
    assert quantizers[0]
    assert quantizers[0] == quantizers[1]
    assert fixed[0].arrays != fixed[1].arrays


def test_measured_noise_has_the_size_of_the_rounding_error() -> None:
    """At 1 bit rounding a Gaussian errs by about 1.3 times what uniform noise does; at 8 bits by about as much."""
    quantized = quantize_model(load_model(MODEL)[0](), load_workload(MODEL), candidate(SHORT, "w1a1"))
    inputs = torch.tensor(load_task("digits", limit=100).train.inputs)
    quantized.calibrate(inputs, measure_noise=True)
    gains = {name: float(q._gain[0]) for name, q in quantized.activations.items()}
    eight = [gains[n] for n, q in quantized.activations.items() if q.mixture.palette.levels[0].activation_bits == 8]
    assert eight
    assert eight[-1] == pytest.approx(1, abs=0.1)
    quantizer = next(q for q in quantized.activations.values() if q.mixture.palette.levels[0].activation_bits == 1)
    values = torch.rand(64, quantizer.mixture.channels * quantizer.repeats, 4, 4)
    assert noise_rms(quantizer, values) == pytest.approx(float(quantizer._gain[0]), rel=0.05)
    quantized.scale_noise(0.5)
    assert noise_rms(quantizer, values) == pytest.approx(float(quantizer._gain[0]) / 2, rel=0.05)


def noise_rms(quantizer: ActivationQuantizer, values: torch.Tensor) -> float:
    """Of the noise at places that do not saturate, as a multiple of uniform noise of half a step."""
    made = quantizer._quantize(values * quantizer.log_step.exp())
    assert made.func is add_noise
    step = quantizer.log_step.exp().detach()
    scaled = values * step
    with torch.no_grad():
        error = (made(scaled) - scaled)[(scaled > 0) & (scaled < made.keywords["edge"])]
    return float((3 * error.square().mean()).sqrt() / (step / 2))
