"""``soniq-dse explain``: where figures come from, and why a layer takes its time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from soniq_dse.cli.explain import command
from soniq_dse.errors import UserError


def output(run: Path, *words: str) -> str:
    result = CliRunner().invoke(command, [str(run), *words], catch_exceptions=False, standalone_mode=False)
    return " ".join(result.output.split())


@pytest.fixture
def sample(repository: Path) -> Path:
    return repository / "reports" / "sample"


def test_every_figure_has_its_origin(sample: Path) -> None:
    report = json.loads((sample / "report.json").read_text(encoding="utf-8"))
    point = next(one for one in report["front"]["points"] if one["name"] == "w2a2")
    detail = next(one for one in report["details"] if one["id"] == point["id"])
    shown = output(sample, "w2a2")
    assert f"{point['size_bytes']} bytes" in shown
    assert f"{detail['estimate']['latency_us']:.1f} us predicted" in shown
    assert detail["estimate"]["hardware_sha256"][:12] in shown
    assert f"{detail['measurement']['median_us']:.1f} us measured" in shown
    assert detail["command"] in shown
    found = json.loads(output(sample, "w2a2", "--json"))
    assert [layer["name"] for layer in found["layers"]] == [one["name"] for one in detail["estimate"]["per_layer"]]
    assert len(found["origins"]) == 6


def test_a_layer_says_why_its_kernel(sample: Path) -> None:
    found = json.loads(output(sample, "w2a2", "conv2", "--json"))
    (why,) = found["why"]
    assert found["kernels"][0] in why
    assert "second best" in why
    assert why in output(sample, "w2a2", "conv2")


def test_unknown_names_get_the_nearest(sample: Path) -> None:
    with pytest.raises(UserError, match=r"layer of w2a2: .*got 'convx2'; nearest valid choice: 'conv2'"):
        output(sample, "w2a2", "convx2")
    with pytest.raises(UserError, match=r"design of .*got 'w2a3'; nearest valid choice: 'w2a2'"):
        output(sample, "w2a3")
