"""``soniq-dse run``: what it shows of a packed design, and its words for what is not one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from network_factory import NetworkFactory

from soniq_dse.cli import _breakdown, run
from soniq_dse.errors import UserError
from soniq_dse.records.choice import Choices, KernelChoice, KernelOption, PartShape
from soniq_dse.records.front import RunInfo
from soniq_dse.records.palette import Level
from soniq_dse.runtime import autotune
from soniq_dse.runtime.check import Parity
from soniq_dse.runtime.latency import StepTime
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.runtime.plan import LayerReport
from soniq_dse.workloads.datasets.text import by_number
from soniq_dse.workloads.datasets.tiny_shakespeare import CHARACTERS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two runs on the digits, each with a design called ``tiny``; the first has one more."""
    net = NetworkFactory((1, 8, 8), "w1a1+w4a4")
    inner = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), 8, 3))
    net.linear(net.quantize(net.flatten(inner), signed=False), 10)
    info = RunInfo(
        key="0", command="soniq-dse explore", started="now", model="digits_cnn", data="digits", hardware="avx512",
        palettes=("w1a1+w4a4",), n_seeds=1, total=1,
    )  # fmt: skip
    for name in ("one", "two"):
        (tmp_path / name / "designs").mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(info.model_dump_json())
        PackedNetwork(net.network(), net.arrays).save(tmp_path / name / "designs" / "tiny.safetensors")
    PackedNetwork(net.network(), net.arrays).save(tmp_path / "one" / "designs" / "other.safetensors")
    return tmp_path


def invoke(root: Path, *words: str):
    return CliRunner().invoke(run.command, [*words, "--root", str(root), "--limit", "40"], catch_exceptions=False)


def test_shows_metric_parity_and_latency(root: Path) -> None:
    result = invoke(root, "other")
    assert result.exit_code == 0
    assert "accuracy" in result.output
    assert "equal the golden arithmetic, bit for bit" in result.output
    assert "batch 1, 1 thread" in result.output
    assert re.search(r"p50 [\d.]+ us, p90 [\d.]+ us, p99 [\d.]+ us", result.output)
    assert re.search(r"memory: weights [\d.]+ KiB, buffers [\d.]+ KiB, peak of this process, .* \d+ MiB", result.output)
    assert "conv2" in result.output


def test_json(root: Path) -> None:
    result = invoke(root, "one/tiny", "--batch", "2", "--json")
    found = json.loads(result.stdout)
    assert (found["design"], found["samples"], found["exact"]) == ("tiny", 40, True)
    assert found["measurement"]["batch"] == 2
    assert 0 < found["size_bytes"] < found["buffer_bytes"] < found["peak_rss_bytes"]
    assert [layer["name"] for layer in found["layers"]] == ["conv2", "fc6"]
    assert found["layers"][0]["macs"] == 2 * 6 * 6 * 8 * 9


def test_breakdown_lists_every_step(root: Path) -> None:
    found = json.loads(invoke(root, "other", "--breakdown", "--json").stdout)
    operations = [(row["node"], row["operation"]) for row in found["steps"]]
    assert operations[0] == ("q1", "quantize")
    assert operations[-1] == ("fc6", "layer")
    assert [node for node, operation in operations if operation == "layer"] == ["conv2", "fc6"]
    assert all(row["measured_us"] >= 0 for row in found["steps"])
    shown = invoke(root, "other", "--breakdown").output
    assert re.search(r"conv2 +layer +[\d.]+ +[\d.]+%", shown)
    assert re.search(r"steps by operation: .*layer [\d.]+ us \([\d.]+%\)", shown)


def test_a_layer_stands_beside_its_prediction_with_its_packing() -> None:
    shape = PartShape(level=Level.parse("w1a1"), signed=False, rows=4, cols=8, taps=1, channels=64, pixels=4)
    other = shape.model_copy(update={"cols": 9})
    options = tuple(
        KernelOption(symbol=name, folded=False, latency_us=us) for name, us in (("fast", 2.0), ("used", 3.0))
    )
    choices = Choices(made=(KernelChoice(shape=shape, source="predicted", options=options),))
    layers = [
        LayerReport("conv", ("used",), 1, 1, False, (shape, shape)),
        LayerReport("unknown", ("used",), 1, 1, False, (shape, other)),
        LayerReport("depthwise", ("driver",), 1, 1, False, ()),
    ]
    predicted = _breakdown.predicted_us(layers, choices)
    assert predicted == {"conv": 6.0}
    steps = (StepTime("conv", "pack", 1.0), StepTime("conv", "layer", 4.0), StepTime("pool", "max_pool", 5.0))
    rows = _breakdown.rows_of(steps, predicted | {"pool": 4.0})
    assert [row["predicted_us"] for row in rows] == [None, 6.0, 4.0]
    assert rows[1]["predicted_to_measured"] == 6.0 / 5.0
    assert _breakdown.sums_of(steps) == {"max_pool": 5.0, "layer": 4.0, "pack": 1.0}


def test_autotune_measures_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "_default_file", lambda: root / "tuned.jsonl")
    monkeypatch.setattr(autotune, "SETTLE_S", 1e-3)
    first = invoke(root, "other", "--autotune")
    assert first.exit_code == 0
    assert "autotuned w8a8 36x8x9 (1 of " in first.stderr.replace("(9x1)", "9")
    assert "equal the golden arithmetic, bit for bit" in first.stdout
    again = invoke(root, "other", "--autotune")
    assert "autotuned" not in again.stderr


def test_a_file_by_its_path(root: Path) -> None:
    assert invoke(root, str(root / "two" / "designs" / "tiny.safetensors")).exit_code == 0


def test_a_difference_ends_with_exit_code_1(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soniq_dse.runtime.check.check", lambda *_, **__: Parity(40, {"q1": 3}, 2))
    result = invoke(root, "other")
    assert result.exit_code == 1
    assert "DIFFERS from the golden arithmetic in 3 codes and 2 outputs" in result.output


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ("tiny", "of which there are several: one/tiny, two/tiny"),
        ("othr", "nearest valid choice: 'other'"),
        ("three/tiny", "expected the name of a packed design"),
    ],
)
def test_designs_that_are_not_one(root: Path, design: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        invoke(root, design)


def test_the_name_in_the_table_is_enough_where_it_means_one_design(root: Path) -> None:
    folder = root / "one" / "designs"
    (folder / "other.safetensors").rename(folder / "w1a1+w4a4@2-x0.5-soniq-s0.safetensors")
    assert run.find_design("w1a1+w4a4@2-x0.5", root).stem == "w1a1+w4a4@2-x0.5-soniq-s0"
    (folder / "w1a1+w4a4@2-x0.5-soniq-s1.safetensors").touch()
    with pytest.raises(UserError, match=r"of which there are several: .*-s0, .*-s1"):
        run.find_design("w1a1+w4a4@2-x0.5", root)


def test_no_runs_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="soniq-dse explore makes some"):
        invoke(tmp_path, "tiny")


def test_data_of_another_shape(root: Path) -> None:
    net = NetworkFactory((2, 8, 8), "w1a1")
    net.conv(net.quantize("x", signed=True), 4, 3)
    PackedNetwork(net.network(), net.arrays).save(root / "one" / "designs" / "wide.safetensors")
    with pytest.raises(UserError, match=r"expected examples of shape \[2, 8, 8\]"):
        invoke(root, "wide")


def test_a_file_outside_a_run_needs_data(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "deep" / "tiny.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes((root / "one" / "designs" / "tiny.safetensors").read_bytes())
    with pytest.raises(UserError, match="expected --data"):
        invoke(root, str(path))


@pytest.fixture
def writer(tmp_path: Path) -> Path:
    """A model of the characters of Tiny Shakespeare, of which nothing is trained."""
    net = NetworkFactory((12,), "w4a4", n_tokens=len(CHARACTERS))
    x = net.add_constant(net.embedding("x", 16))
    codes = net.quantize(net.layer_norm(x), signed=True)
    mixed = net.attention(*(net.linear(codes, 16) for _ in range(3)), 2, causal=True)
    net.linear(net.quantize(net.add(x, mixed), signed=True), len(CHARACTERS))
    PackedNetwork(net.network(), net.arrays).save(tmp_path / "writer.soniq")
    return tmp_path / "writer.soniq"


def test_a_prompt_is_continued(writer: Path, root: Path) -> None:
    shown = invoke(root, str(writer), "--generate", "5", "--prompt", "3,1,4")
    assert shown.exit_code == 0
    assert re.search(r"prompt: 3 tokens in \d+ us, \d+ tokens a second", shown.output)
    assert re.search(r"decoding: \d+ us a token \(median of 4\), \d+ a second", shown.output)
    assert "all logits equal those of a run of the whole sequence, bit for bit" in shown.output
    found = json.loads(invoke(root, str(writer), "--generate", "10", "--prompt", "3,1,4", "--json").stdout)
    assert len(found["tokens"]) == 10
    assert found["exact"]
    assert found["text"] is None


def test_what_a_token_takes_stands_beside_its_prediction(writer: Path, root: Path) -> None:
    words = [str(writer), "--generate", "2", "--prompt", "3,1,4", "--breakdown", "--hw", "avx512"]
    parts = json.loads(invoke(root, *words, "--json").stdout)["parts"]
    assert parts.keys() == {"step", "prompt"}
    named = {row["operation"] for row in parts["step"]}
    assert {"embedding", "layer_norm", "layer", "keep", "attention"} <= named
    assert all(row["measured_us"] >= 0 for rows in parts.values() for row in rows)
    unpriced = {row["operation"] for rows in parts.values() for row in rows if not row["predicted_us"]}
    assert unpriced <= {"pack", "copy"}
    shown = invoke(root, *words).output
    assert re.search(r"attention +1 +[\d.]+ +[\d.]+% +[\d.]+ +[\d.]+", shown)
    assert re.search(r"all +\d+ +[\d.]+ +100.0%", shown)


def test_a_text_is_continued(writer: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = by_number(CHARACTERS, "")
    monkeypatch.setattr(run, "_load_task", lambda *_: SimpleNamespace(text=text))
    words = [str(writer), "--generate", "3", "--data", "tiny_shakespeare", "--json", "--prompt"]
    found = json.loads(invoke(root, *words, "To be").stdout)
    assert found["prompt"] == text.encode("To be")
    assert found["text"] == text.decode(found["tokens"])
    with pytest.raises(UserError, match=r"expected characters of .*, got '#'"):
        invoke(root, *words, "#")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--generate", "3"), "expected both, got one"),
        (("--generate", "11", "--prompt", "3,1,4"), "expected at most 10 tokens behind a prompt of 3, got 11"),
        (("--generate", "3", "--prompt", "To be"), "expected token numbers such as 3,1,4 or --data"),
        (("--generate", "3", "--prompt", "99"), "expected token numbers 0.."),
    ],
)
def test_prompts_that_are_none(writer: Path, root: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        invoke(root, str(writer), *words)
