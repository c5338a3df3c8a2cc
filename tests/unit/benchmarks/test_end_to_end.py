"""Goals and rows of the end-to-end benchmark from made-up seconds, and the graph that peers are given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from network_factory import NetworkFactory

from soniq_dse.records.palette import Palette
from soniq_dse.runtime import autotune
from soniq_dse.runtime.check import check
from soniq_dse.runtime.pack import PackedNetwork

sys.path.append(str(Path(__file__).resolve().parents[3]))  # benchmarks are not installed
frame = pytest.importorskip("benchmarks._frame")
networks = pytest.importorskip("benchmarks._networks")
network_peers = pytest.importorskip("benchmarks._network_peers")
end_to_end = pytest.importorskip("benchmarks.end_to_end")


WHEN = "2026-01-02T03:04+00:00 on this"


def measured(network: str, palette: str, ours_s: tuple[float, ...] = (1.0, 2.0, 1.0), threads: int = 1) -> object:
    int8 = {"slow": (9.0, 9.0, 9.0), "best": (4.0, 6.0, 5.0)}
    return end_to_end.Measured(network, palette, threads, ours_s, int8, {"torch": (8.0, 8.0, 8.0)}, 2048, 1.0, WHEN)


def by_part(*found: object) -> dict[tuple[str, int], list[dict[str, object]]]:
    rows: dict[tuple[str, int], list[dict[str, object]]] = {}
    for one in found:
        rows.setdefault((one.network, one.threads), []).append(one.row())
    return rows


def test_every_goal_is_listed_and_unmet_when_nothing_was_measured() -> None:
    goals = end_to_end.goals_of({})
    assert len({goal.id for goal in goals}) == len(goals)
    assert {goal.id[:2] for goal in goals} == {"E1", "E2", "E3", "E4"}
    assert not any(goal.met or goal.value is not None for goal in goals)


def test_a_gain_is_the_median_of_rounds_over_the_best_int8_library() -> None:
    one = measured(end_to_end.RESNET20, "w1a1")
    assert one.gains(one.int8_s) == [4.0, 3.0, 5.0]
    assert one.gain == 4.0
    row = one.row()
    assert (row["best INT8"], row["x best INT8"], row["lowest x"], row["highest x"]) == ("best", 4.0, 3.0, 5.0)
    assert (row["best FP32"], row["x best FP32"], row["weights KiB"]) == ("torch", 8.0, 2.0)
    found = {
        goal.id: goal.value for goal in end_to_end.goals_of(by_part(one, measured(one.network, "w2a2", threads=2)))
    }
    assert found["E2a"] == 4.0
    assert found["E2b"] is None  # measured by two threads only
    shown = end_to_end.tables([row])
    assert list(shown) == ["resnet20 32x32, 1 thread"]


def test_nowhere_slower_speaks_of_the_slowest_and_only_once_all_are_there() -> None:
    all_of_them = [measured(name, "w4a4") for name in end_to_end.OF_IMAGES]
    all_of_them[1] = measured(end_to_end.OF_IMAGES[1], "w4a4", (8.0, 8.0, 8.0))
    found = {goal.id: goal for goal in end_to_end.goals_of(by_part(*all_of_them))}
    assert found["E4a"].value == 5 / 8
    assert not found["E4a"].met
    assert {goal.id: goal.value for goal in end_to_end.goals_of(by_part(*all_of_them[1:]))}["E4a"] is None


def test_a_part_is_kept_at_once_and_others_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Prepared:
        def __init__(self, network: object, threads: int, *, tune: bool) -> None:
            if network.name == end_to_end.RESNET20:
                raise KeyboardInterrupt
            self.network, self.threads = network, threads

        def measure(self, rounds: int) -> list[object]:
            return [measured(self.network.name, "w1a1", threads=self.threads)]

    monkeypatch.setattr(frame, "KEPT", tmp_path)
    monkeypatch.setattr(frame, "PAGES", tmp_path)
    monkeypatch.setattr(end_to_end, "Prepared", Prepared)
    end_to_end.measure_parts([(end_to_end.RESNET18, 2)], 60)
    with pytest.raises(KeyboardInterrupt):
        end_to_end.measure_parts([(end_to_end.RESNET18, 2), (end_to_end.RESNET18, 1), (end_to_end.RESNET20, 1)], 60)
    assert set(end_to_end.kept_rows()) == {(end_to_end.RESNET18, 2), (end_to_end.RESNET18, 1)}
    goals = {goal.id: goal for goal in end_to_end.measure_parts([(end_to_end.RESNET20, 1)], 0).goals}
    assert (goals["E1a"].value, goals["E1a"].measured) == (4.0, WHEN)


def test_passes_are_joined_round_by_round() -> None:
    first, second = measured("one", "w1a1"), measured("one", "w1a1", ours_s=(4.0, 5.0, 6.0))
    both = end_to_end.joined([first, second])
    assert list(both.ours_s) == [1.0, 2.0, 1.0, 4.0, 5.0, 6.0]
    assert both.int8_s["best"] == [4.0, 6.0, 5.0] * 2
    assert both.gains(both.int8_s) == [4.0, 3.0, 5.0, 1.0, 6 / 5, 5 / 6]


def test_shares_are_whole_segments_in_wide_tensors() -> None:
    levels = {channels: networks.levels_of(channels, [0.8, 0.2]) for channels in (10, 64, 256, 512)}
    assert {channels: found.count(0) for channels, found in levels.items()} == {10: 8, 64: 51, 256: 192, 512: 384}
    assert all(len(found) == channels for channels, found in levels.items())


@pytest.mark.parametrize("palette", end_to_end.MIXES)
def test_a_random_network_runs_as_the_golden_arithmetic_says(palette: str) -> None:
    net = NetworkFactory((3, 8, 8), "w1a1")
    net.palette = Palette(levels=net.palette.levels, source="another source than that of FREE")
    trunk = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), 16, 3, padding=(1, 1)))
    inner = net.relu(net.conv(net.quantize(trunk, signed=False), 16, 3, padding=(1, 1), groups=16))
    trunk = net.relu(net.add(net.conv(net.quantize(inner, signed=False), 16, 1), trunk))
    flat = net.flatten(net.pool(trunk, "avg_pool2d", 8))
    net.linear(net.quantize(flat, signed=False, palette="w8a8"), 5)
    packed = networks.random_network(PackedNetwork(net.network(), net.arrays), end_to_end.MIXES[palette])
    kinds = {node.quantizer.palette.name for node in packed.network.nodes if node.op == "quantize"}
    assert kinds == {"w8a8", "+".join(level.name for level, _ in end_to_end.MIXES[palette])}
    assert check(packed, networks.sample_of((3, 8, 8))).exact


@pytest.mark.slow  # it builds and measures every kernel
def test_tuning_gives_the_kernels_measured_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(autotune, "_default_file", lambda: tmp_path / "tuned.jsonl")
    monkeypatch.setattr(autotune, "SETTLE_S", 1e-3)
    net = NetworkFactory((64,), "w1a1")
    net.linear(net.quantize(net.relu(net.linear(net.quantize("x", signed=True), 32)), signed=False), 5)
    packed = PackedNetwork(net.network(), net.arrays)
    executor = networks.ours(packed, 1, tune=True)
    executor.run_again()
    tuned = autotune.tuned_choices()
    kernels = [kernel for layer in executor.plan.layers for kernel in layer.kernels]
    assert kernels == [tuned.of(shape).taken.symbol for shape in packed.shapes(1)]


def convolutional() -> NetworkFactory:
    net = NetworkFactory((3, 8, 8), "w2a2")
    trunk = net.relu(net.conv(net.quantize("x", signed=True), 8, 3, padding=(1, 1), stride=(2, 2)))
    inner = net.clip(net.conv(net.quantize(trunk, signed=False), 8, 3, padding=(1, 1), groups=8), 6.0)
    pooled = net.pool(net.relu(net.add(inner, trunk)), "avg_pool2d", 4)
    net.linear(net.quantize(net.flatten(pooled), signed=False), 5)
    return net


def of_tokens() -> NetworkFactory:
    net = NetworkFactory((3, 8, 8), "w2a2")
    patches = net.conv(net.quantize("x", signed=True), 12, 4, stride=(4, 4))
    codes = net.quantize(net.layer_norm(net.add_constant(net.tokens(patches))), signed=True)
    mixed = net.attention(*(net.linear(codes, 12) for _ in range(3)), 2)
    net.linear(net.quantize(net.mean_tokens(mixed), signed=True), 5)
    return net


@pytest.mark.parametrize("build", [convolutional, of_tokens])
def test_peers_run_the_graph_that_we_run(build: Callable[[], NetworkFactory]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    net = build()
    model = network_peers.onnx_model(PackedNetwork(net.network(), net.arrays))
    quantized = [network_peers.quantized_onnx(model, (3, 8, 8), layers_only=only) for only in (False, True)]
    for one in (model, *quantized, network_peers.dynamic_onnx(model)):
        session = onnxruntime.InferenceSession(one, providers=["CPUExecutionProvider"])
        (outputs,) = session.run(None, {"x": networks.sample_of((3, 8, 8))})
        assert outputs.shape == (1, 5)
        assert np.ptp(outputs) > 0
