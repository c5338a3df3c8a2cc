"""``soniq-dse palette`` and ``soniq-dse estimate``: data on standard output, errors in words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from soniq_dse.cli import cli
from soniq_dse.cli._run_file import read as read_run_file
from soniq_dse.cli.explore import command as explore_command
from soniq_dse.errors import UserError

MODEL = ("--model", "tiny_cnn")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_list_shows_levels_and_palettes() -> None:
    out = run("palette", "list", "--hw", "avx512", *MODEL).stdout
    assert "Native levels of avx512 over tiny_cnn" in out
    assert "w1a1+w4a4" in out
    assert "left out; --all shows them" in out


def test_list_json_agrees_with_the_limit() -> None:
    data = json.loads(run("palette", "list", "--hw", "avx512", *MODEL, "--limit", "4", "--json").stdout)
    assert data["hardware"] == "avx512"
    assert sum(palette["explored"] for palette in data["palettes"]) == 4
    assert {level["name"] for level in data["levels"]} >= {"w1a1", "w8a8"}


def test_show_one() -> None:
    data = json.loads(run("palette", "show", "w1a1+w4a4", "--hw", "avx512", *MODEL, "--json").stdout)
    assert data["choice"]["kind"] == "kept"
    assert [level["name"] for level in data["levels"]] == ["w1a1", "w4a4"]
    assert "w1a1+w4a4" in run("palette", "show", "w4a4+w1a1", "--hw", "avx512", *MODEL).stdout


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        (("palette", "show", "w1-a1", "--hw", "avx512"), "w1-a1"),
        (("palette", "show", "w3a3", "--hw", "avx512", *MODEL), "w3a3"),
        (("palette", "list", "--hw", "avx51"), "avx512"),
        (("estimate", "--hw", "avx512", "--model", "digits_cn"), "digits_cnn"),
        (("estimate", "--hw", "avx512", *MODEL, "--palette", "fp32"), "fp32"),
        (("estimate", "--hw", "avx512", *MODEL, "--threads", "1000"), "96 cores"),
    ],
)
def test_errors_name_what_was_got_and_the_nearest_choice(arguments: tuple[str, ...], got: str) -> None:
    with pytest.raises(UserError, match=got):
        run(*arguments)


def test_estimate_table_and_json_agree() -> None:
    arguments = ("estimate", "--hw", "avx512", *MODEL, "--palette", "w1a1+w4a4")
    data = json.loads(run(*arguments, "--json").stdout)
    assert data["low_us"] <= data["latency_us"] <= data["high_us"]
    assert sum(layer["latency_us"] for layer in data["per_layer"]) == pytest.approx(data["latency_us"])
    text = run(*arguments).stdout
    assert f"{data['latency_us']:.4g} us" in text
    for layer in data["per_layer"]:
        assert layer["name"] in text


def test_estimate_of_this_host_without_a_name() -> None:
    data = json.loads(run("estimate", *MODEL, "--json").stdout)
    assert data["palette"] is None
    assert data["cycles"] > 0


def test_estimate_says_why_each_kernel() -> None:
    out = run("estimate", "--hw", "avx512", *MODEL, "--palette", "w2a2", "--why").stdout
    assert re.search(r"^conv\w+: w2a2 \S+: gemm_\S+ predicted \S+ us; second best gemm_", out, re.MULTILINE), out


def test_timeline_of_a_layer_is_that_of_its_kernel() -> None:
    layers = json.loads(run("estimate", "--hw", "avx2", *MODEL, "--palette", "w1a1", "--json").stdout)["per_layer"]
    layer = next(layer for layer in layers if layer["kernels"] and "__" in layer["kernels"][0])
    shown = run("estimate", "--hw", "avx2", *MODEL, "--palette", "w1a1", "--timeline", layer["name"]).stdout
    assert shown.startswith(f"{layer['kernels'][0]} on avx2\n")
    assert shown == run("estimate", "--hw", "avx2", "--timeline", layer["kernels"][0]).stdout


def test_timeline_of_no_layer_is_refused() -> None:
    with pytest.raises(UserError, match="--timeline nothing: expected a kernel of the catalog, or a layer"):
        run("estimate", "--hw", "avx2", *MODEL, "--palette", "w1a1", "--timeline", "nothing")


def test_init_starts_a_run_file_that_explore_takes(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    made = run("palette", "init", str(path), "--hw", "avx512", *MODEL, "--limit", "3")
    assert made.stdout == f"{path}\n"
    assert f"explore --run-file {path} --dry-run" in made.stderr
    read = read_run_file(path, click.Context(explore_command))
    listed = json.loads(run("palette", "list", "--hw", "avx512", *MODEL, "--limit", "3", "--json").stdout)
    explored = {palette["name"] for palette in listed["palettes"] if palette["explored"]}
    assert {name.partition("@")[0] for name in read.defaults["palettes"].split(",")} == explored
    assert (read.machines, read.defaults["model"]) == (("avx512",), "tiny_cnn")
    assert "  # - " in path.read_text(), "those left out are there, switched off"
    with pytest.raises(UserError, match="expected a new file, got one that exists"):
        run("palette", "init", str(path), "--hw", "avx512", *MODEL)
