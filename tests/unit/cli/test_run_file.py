"""Run files: flags by name, lists that multiply, flags before the file's values, mistakes with their line."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from soniq_dse.cli._run_file import multiplied
from soniq_dse.cli.explore import command
from soniq_dse.errors import UserError

FILE = """
model: digits_cnn
palettes: [w2a2, w1a1+w4a4, w2a2+w4a4@3]
budgets: [1.5, 2]
widths: [1, 0.5]
epochs: [4, 2, 2]
pin: [head=w4a4, stem=w8a8]
measure: false
search-budget: 40
machines: [avx512, my/own.yaml]
allocators: [soniq, uniform]
"""


def asked(folder: Path, *flags: str, text: str = FILE) -> list[dict[str, object]]:
    """The options of every run that the file and ``flags`` ask for, by the command's own parser."""
    path = folder / "space.yaml"
    path.write_text(text)
    context = command.make_context("explore", ["--run-file", str(path), *flags])
    values = dict(context.params)
    run_file = values.pop("run_file")
    given = {n for n in values if context.get_parameter_source(n) is click.core.ParameterSource.COMMANDLINE}
    return list(multiplied(values, run_file, given).options)


def test_a_file_stands_for_flags(tmp_path: Path) -> None:
    first = asked(tmp_path)[0]
    assert first["palettes"] == ("w2a2", "w1a1+w4a4@1.5", "w1a1+w4a4@2", "w2a2+w4a4@3")
    assert (first["widths"], first["epochs"], first["measure"]) == ((1.0, 0.5), (4, 2, 2), False)
    assert (first["pins"], first["search_epochs"], first["seeds"]) == (("head=w4a4", "stem=w8a8"), 40, 1)


def test_machines_and_allocators_multiply(tmp_path: Path) -> None:
    runs = asked(tmp_path, "--out", "o")
    assert [(run["hw"], run["allocator"]) for run in runs] == [
        ("avx512", "soniq"), ("avx512", "uniform"), ("my/own.yaml", "soniq"), ("my/own.yaml", "uniform"),
    ]  # fmt: skip
    assert [str(run["out"]) for run in runs][-1] == "o/own-uniform"
    assert {str(run["store"]) for run in runs} == {"o/store"}
    assert {str(run["store"]) for run in asked(tmp_path)} == {"reports/runs/space-store"}


def test_machines_and_fields_of_flags_multiply(tmp_path: Path) -> None:
    flags = ["--hw", "avx512", "--hw", "neon", "--vary", "ports.vector=2,3", "--vary", "simd_width_bits=512"]
    context = command.make_context("explore", flags)
    values = {name: value for name, value in context.params.items() if name != "run_file"}
    runs = multiplied(values, None, {"hw", "vary"})
    assert [(run["hw"], run["settings"]) for run in runs.options] == [
        (hw, (f"ports.vector={ports}", "simd_width_bits=512")) for hw in ("avx512", "neon") for ports in (2, 3)
    ]
    root = "reports/runs/digits_cnn-avx512-neon-ports.vector-simd_width_bits"
    assert str(runs.options[0]["out"]) == f"{root}-avx512-ports.vector=2-simd_width_bits=512"
    assert (str(runs.options[0]["store"]), str(runs.joint)) == (f"{root}-store", f"{root}-joint")


@pytest.mark.parametrize("text", ["ports.vector", "ports.vector=", "=2,3"])
def test_what_varies_needs_a_field_and_values(text: str) -> None:
    values = command.make_context("explore", ["--vary", text]).params
    with pytest.raises(UserError, match=r"--vary: expected FIELD=NUMBER"):
        multiplied({name: value for name, value in values.items() if name != "run_file"}, None, {"vary"})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vary", "ports.vector=2,2"], "--vary: expected each once, got 'ports.vector=2' more often"),
        (["--vary", "rob=2,3", "--vary", "rob=4"], "--vary: expected each once, got 'rob' more often"),
        (
            [word for i in range(9) for word in ("--vary", f"f{i}={','.join(map(str, range(50)))}")],
            "expected at most 100 runs of one command, got 1953125000000000 (50 f0 x 50 f1",
        ),
    ],
)
def test_a_space_of_machines_that_is_none_is_refused_before_it_is_planned(flags: list[str], message: str) -> None:
    values = command.make_context("explore", flags).params
    values.pop("run_file")
    with pytest.raises(UserError) as caught:
        multiplied(values, None, {"vary"})
    assert message in str(caught.value)


def test_flags_override_the_file(tmp_path: Path) -> None:
    (run,) = asked(tmp_path, "--hw", "neon", "--allocator", "fisher", "--palettes", "w4a4", "--search-budget", "7")
    assert (run["hw"], run["allocator"], run["palettes"], run["search_epochs"]) == ("neon", "fisher", ("w4a4",), 7)
    assert (run["out"], run["store"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: m\npalletes: [w2a2]\n", ":2 palletes: expected a flag of explore; nearest valid choice: 'palettes'"),
        ("model: {a: 1}\n", ":1 model: expected a value or a list of values"),
        ("machines: avx512\n", ":1 machines: expected a list such as [a, b], got 'avx512'"),
        ("budgets: [2]\n", "budgets: expected palettes beside it, got none"),
        ("- a\n", "expected flags like 'model: digits_cnn'"),
        ("a: [\n", ":2:1: expected YAML text, got: "),
        ("model: a\nmodel: b\n", ':2:1: expected YAML text, got: found duplicate key "model"'),
        ("palettes: []\n", ":1 palettes: expected a value, or no such key, got nothing"),
        ("model:\n", ":1 model: expected a value, or no such key, got nothing"),
        ("machines: [avx512, neon, avx512]\n", "machines: expected each once, got 'avx512' more often"),
        ("hw: avx2\n", ":1 hw: expected a flag of explore"),
        ("model: m\nepochs: [1, 2]\n", ":2 epochs: expected three numbers of epochs"),
        ("palettes: [w2a2, w2a2]\n", ":1 palettes: expected each value once, got 'w2a2' more often"),
        ("\nseeds: 0\n", ":2 seeds: 0 is not in the range x>=1"),
        ("executor: cloud\n", ":1 executor: 'cloud' is not one of 'process', 'here', 'ray'"),
        ("need: [GPU=none]\n", ":1 need: expected a resource such as isa:avx512 or GPU=1"),
        ("measure: perhaps\n", ":1 measure: 'perhaps' is not a valid boolean"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        asked(tmp_path, text=text)
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        asked(tmp_path, "--run-file", str(tmp_path / "none.yaml"))


def test_a_single_value_stands_for_a_list_of_one(tmp_path: Path) -> None:
    (run,) = asked(tmp_path, text="pin: head=w4a4\nvary: ports.vector=2\n")
    assert (run["pins"], run["settings"]) == (("head=w4a4",), ("ports.vector=2",))
