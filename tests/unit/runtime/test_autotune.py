"""Autotuning: measures each shape once, remembers, goes on where it stopped, trusts nothing that it cannot read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from network_factory import NetworkFactory

from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.catalog import kernel, serves
from soniq_dse.kernels.library import Kernel, load_kernel
from soniq_dse.kernels.strips import Geometry
from soniq_dse.records.choice import Choices, KernelChoice, KernelOption, PartShape, TunedKernel
from soniq_dse.records.palette import Level
from soniq_dse.runtime import autotune as module
from soniq_dse.runtime.autotune import autotune, tuned_choices
from soniq_dse.runtime.check import check
from soniq_dse.runtime.layer_steps import first_fitting
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.runtime.solo import MOST_COPIES, SoloLayer, random_layer


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found does not matter here, only that something is."""
    monkeypatch.setattr(module, "FIRST_S", 1e-4)
    monkeypatch.setattr(module, "SETTLE_S", 1e-3)
    module._warn.cache_clear()


@pytest.fixture
def packed() -> PackedNetwork:
    """Two convolutions of the same shape, a linear layer of two levels."""
    net = NetworkFactory((8, 6, 6), "w2a2")
    inner = net.relu(net.conv(net.quantize("x", signed=True), 8, 3, padding=(1, 1)))
    inner = net.relu(net.conv(net.quantize(inner, signed=True), 8, 3, padding=(1, 1)))
    net.linear(net.quantize(net.flatten(inner), signed=True, palette="w1a1+w8a8", levels=[0] * 144 + [1] * 144), 10)
    return PackedNetwork(net.network(), net.arrays)


def told_by(packed: PackedNetwork, file: Path) -> tuple[Choices, list[str]]:
    told: list[str] = []
    choices = autotune(packed, file=file, notify=lambda done, total, choice: told.append(f"{done}/{total}"))
    return choices, told


def test_each_shape_is_measured_once_and_used_afterwards(packed: PackedNetwork, tmp_path: Path) -> None:
    file = tmp_path / "folder" / "tuned.jsonl"
    choices, told = told_by(packed, file)
    assert told == ["1/3", "2/3", "3/3"]  # the second convolution has the shape of the first
    assert {choice.shape for choice in choices.made} == set(packed.shapes(1))
    for choice in choices.made:
        assert choice.source == "measured"
        assert all(serves(kernel(option.symbol), choice.shape.level) for option in choice.options)
        times = [option.latency_us for option in choice.options]
        assert times == sorted(times)
    assert told_by(packed, file) == (choices, [])
    assert tuned_choices(file=file) == choices
    assert tuned_choices(file=file, threads=2) == Choices()


def test_results_do_not_change(packed: PackedNetwork, tmp_path: Path) -> None:
    tuned = packed.with_choices(told_by(packed, tmp_path / "tuned.jsonl")[0])
    x = np.random.default_rng(0).standard_normal((2, *packed.in_shape)).astype(np.float32)
    np.testing.assert_array_equal(tuned.run(x, batch=1), packed.run(x, batch=1))
    assert check(tuned, x, batch=1).exact
    planned = {symbol for layer in tuned.executor(1).plan.layers for symbol in layer.kernels}
    assert planned == {choice.taken.symbol for choice in tuned.choices.made}


def test_an_interrupted_tuning_goes_on(packed: PackedNetwork, tmp_path: Path) -> None:
    file = tmp_path / "tuned.jsonl"

    def interrupt(done: int, total: int, choice: KernelChoice) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        autotune(packed, file=file, notify=interrupt)
    assert len(file.read_bytes().splitlines()) == 1
    assert told_by(packed, file)[1] == ["1/2", "2/2"]


def test_foreign_and_damaged_entries_are_ignored_with_one_line(
    packed: PackedNetwork, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tuned.jsonl"
    choices, _ = told_by(packed, file)
    entries = [TunedKernel.from_json(line) for line in file.read_bytes().splitlines()]
    foreign = [entries[0].model_copy(update=update) for update in (
        {"processor": "another"}, {"compiler": "another"}, {"sources_sha256": "another"}, {"features": ("avx9",)},
    )]  # fmt: skip
    lines = [entry.model_dump_json().encode() for entry in (*foreign, *entries[1:])]
    file.write_bytes(b"\n".join([b"\xff\x00", b"{}", *lines, lines[0][:40]]))  # the last was being written
    capfd.readouterr()
    assert tuned_choices(file=file).made == choices.made[1:]
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "ignored 7 of 9 tuned kernels: 3 unreadable, 4 of another processor, compiler or version" in said
    _, told = told_by(packed, file)
    assert told == ["1/1"]
    assert set(tuned_choices(file=file).made) == {*choices.made[1:], *told_by(packed, file)[0].made}


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert tuned_choices(file=tmp_path / "absent.jsonl") == Choices()


@pytest.mark.parametrize("level", ["w1a1", "w2a2", "w4a4", "w8a8"])
@pytest.mark.parametrize("channels", [1, 3, 8, 13])
def test_every_option_gives_the_same_result(level: str, channels: int) -> None:
    """Whatever kernel and layout is chosen for a convolution, on strips that may be dense or not."""
    net = NetworkFactory((channels, 5, 6), level)
    inner = net.relu(net.conv(net.quantize("x", signed=True), 17, 3, padding=(1, 1)))
    net.linear(net.quantize(net.flatten(inner), signed=False), 5)
    packed = PackedNetwork(net.network(), net.arrays)
    x = np.random.default_rng(0).standard_normal((2, *packed.in_shape)).astype(np.float32)
    for shape in packed.shapes(2):
        for spec, folded in module._options(shape, packed.features):
            option = KernelOption(symbol=spec.symbol, folded=folded, latency_us=1.0)
            choice = KernelChoice(shape=shape, source="measured", options=(option,))
            chosen = packed.with_choices(Choices(made=(choice,)))
            assert check(chosen, x, batch=2).exact, f"{shape.name}: {spec.symbol}, folded: {folded}"


def test_cold_layers_take_other_weights_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_layer([(Level.parse("w8a8"), 8)], 16, (3, 3))

    def first(shape: PartShape) -> tuple[Kernel, None]:
        return load_kernel(first_fitting(shape, detect_host().features)), None

    def addresses(*, cold: bool) -> list[int]:
        layer = SoloLayer(weights, Geometry(1, 4, 4, (3, 3)), first, features=detect_host().features, cold=cold)
        called: list[int] = []
        with monkeypatch.context() as patched:
            patched.setattr(layer._library, "soniq_run", lambda team, steps, count: called.append(steps))
            for _ in range(2 * MOST_COPIES):
                layer.pack_and_run()
        return called

    cold = addresses(cold=True)
    assert len(set(cold[:MOST_COPIES])) == MOST_COPIES
    assert cold[:MOST_COPIES] == cold[MOST_COPIES:]
    assert len(set(addresses(cold=False))) == 1
