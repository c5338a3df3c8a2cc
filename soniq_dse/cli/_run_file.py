"""A run file: the flags of ``explore`` as YAML, and the lists that multiply them into several runs."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from soniq_dse.errors import UserError, nearest

LISTS = ("machines", "allocators")
"""Keys whose values make a run each; the flags ``--hw`` and ``--allocator`` stand for one."""
BUDGETS = "budgets"
"""Bits per weight, for every palette of several levels that names no budget."""
MOST_RUNS = 100
PLAN_S = 15.0
"""For a machine that was not priced before: digits_cnn, CPU time of an AMD EPYC 9004 that had other work besides."""
FORBIDDEN = ("run-file", "dry-run", "json", "fresh", "hw", "allocator")


@dataclass(frozen=True)
class RunFile:
    """``defaults`` of the command's parameters, by their names; ``machines`` and ``allocators`` to be run (empty: the
    defaults). ``name`` is the file's."""

    name: str
    defaults: dict[str, Any]
    machines: tuple[str, ...]
    allocators: tuple[str, ...]


def read(path: Path, ctx: click.Context) -> RunFile:
    """The run file at ``path`` for the command of ``ctx``.

    Raises:
        UserError: it cannot be read, is no YAML, or has a key or a value that means nothing, with its line.
    """
    tree = _tree(path)
    of_key = {
        option.lstrip("-"): parameter
        for parameter in ctx.command.params
        for option in parameter.opts
        if option.lstrip("-") not in FORBIDDEN
    }
    defaults: dict[str, Any] = {}
    for key, value in tree.items():
        where = f"{path}:{tree.lc.key(key)[0] + 1} {key}"
        if key in (*LISTS, BUDGETS):
            if not (isinstance(value, list) and value and all(_is_plain(one) for one in value)):
                raise UserError(f"{where}: expected a list such as [a, b], got {value!r}")
        elif key not in of_key:
            raise UserError(f"{where}: expected a flag of explore{nearest(str(key), [*of_key, *LISTS, BUDGETS])}")
        elif value is None or value == []:
            raise UserError(f"{where}: expected a value, or no such key, got nothing")
        else:
            defaults[str(of_key[key].name)] = _checked(value, of_key[key], ctx, where)
    if BUDGETS in tree:
        if "palettes" not in defaults:
            raise UserError(f"{path} {BUDGETS}: expected palettes beside it, got none")
        defaults["palettes"] = _with_budgets(defaults["palettes"], tree[BUDGETS])
    lists = {name: tuple(map(str, tree.get(name, ()))) for name in LISTS}
    return RunFile(path.stem, defaults, lists["machines"], lists["allocators"])


@dataclass(frozen=True)
class Runs:
    """The options of every run, and the folder of the front over all of them; None for one run."""

    options: tuple[dict[str, Any], ...]
    joint: Path | None = None


def multiplied(asked: Mapping[str, Any], run_file: RunFile | None, given: Collection[str]) -> Runs:
    """``asked`` for each machine, each value of what varies, and each allocator.

    Flags that are ``given`` stand for the file's list. Several runs have a folder each, named after what differs, and
    share a store.
    """
    asked = dict(asked)
    fields = [_settings(text) for text in asked.pop("vary")]
    machines = asked.pop("hw") or (() if run_file is None else run_file.machines)
    allocators = () if run_file is None or "allocator" in given else run_file.allocators
    names = [setting.partition("=")[0] for settings in fields for setting in settings[:1]]
    settings_of_all = [setting for settings in fields for setting in settings]
    for what, values in (("machines", machines), ("allocators", allocators), ("--vary", names + settings_of_all)):
        _refuse_twice(what, values)
    _refuse_too_many({"machines": machines, **dict(zip(names, fields, strict=True)), "allocators": allocators})
    varied = list(itertools.product(*fields))
    runs = list(itertools.product(machines or (None,), varied, allocators or (asked["allocator"],)))
    if len(runs) == 1:
        hw, settings, allocator = runs[0]
        return Runs(({**asked, "hw": hw, "settings": settings, "allocator": allocator},))
    root = root_of(asked, run_file, machines, settings_of_all)
    store = asked["store"] or beside(root, "store", inside=bool(asked["out"]))
    found = []
    for hw, settings, allocator in runs:
        words = [*([] if hw is None else [Path(hw).stem]), *settings, *[allocator] * bool(allocators)]
        own = {"hw": hw, "settings": settings, "allocator": allocator, "store": store}
        out = beside(root, _as_file_name("-".join(words)), inside=bool(asked["out"]))
        found.append({**asked, **own, "out": out})
    return Runs(tuple(found), beside(root, "joint", inside=bool(asked["out"])))


def _refuse_twice(what: str, values: Sequence[str]) -> None:
    twice = next((value for value in values if list(values).count(value) > 1), None)
    if twice is not None:
        raise UserError(f"{what}: expected each once, got {twice!r} more often")


def _refuse_too_many(lists: Mapping[str, Sequence[str]]) -> None:
    """Before anything is planned: a machine is priced cycle by cycle."""
    counts = {name: len(values) for name, values in lists.items() if len(values) > 1}
    total = math.prod(counts.values())
    if total > MOST_RUNS:
        product = " x ".join(f"{count} {name}" for name, count in counts.items())
        longest = max(counts, key=lambda name: counts[name])
        raise UserError(
            f"expected at most {MOST_RUNS} runs of one command, got {total} ({product}), which take about "
            f"{total * PLAN_S / 3600:.3g} hours to plan alone; give fewer values of {longest}, or ask of one machine: "
            "estimate --set FIELD=N, explore --what-if FIELD=N"
        )


def root_of(
    asked: Mapping[str, Any], run_file: RunFile | None, machines: Sequence[str], settings: Sequence[str]
) -> Path:
    """After which the folders of several runs are named, or in which they are."""
    if asked["out"]:
        return Path(asked["out"])
    words = [asked["model"], *(Path(hw).stem for hw in machines), *dict.fromkeys(s.partition("=")[0] for s in settings)]
    name = _as_file_name("-".join(words))[:80] if run_file is None else run_file.name
    return Path("reports") / "runs" / name


def beside(root: Path, name: str, *, inside: bool) -> Path:
    """``root/name``, or ``root-name``."""
    return root / name if inside else root.with_name(f"{root.name}-{name}")


def _settings(text: str) -> list[str]:
    """``FIELD=A,B`` as ``FIELD=A`` and ``FIELD=B``; what they mean is checked later."""
    field, equals, values = text.partition("=")
    found = [f"{field.strip()}={value.strip()}" for value in values.split(",") if value.strip()]
    if not field.strip() or not equals or not found:
        raise UserError(f"--vary: expected FIELD=NUMBER,... such as simd_width_bits=256,512, got {text!r}")
    return found


def _as_file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=-]+", "_", text).strip("_")


def _tree(path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        tree = YAML().load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"run file {path}: expected to read it, got: {error.strerror}") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = path if mark is None else f"{path}:{mark.line + 1}:{mark.column + 1}"
        raise UserError(f"run file {where}: expected YAML text, got: {error.problem}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"run file {path}: expected YAML text, got {' '.join(str(error).split())[:300]}") from error
    if not isinstance(tree, Mapping):
        raise UserError(f"run file {path}: expected flags like 'model: digits_cnn', got {type(tree).__name__}")
    return tree


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _checked(value: Any, parameter: click.Parameter, ctx: click.Context, where: str) -> Any:
    """The value as the flag takes it; refused here, where its line is known."""
    if getattr(parameter, "multiple", False):
        text: Any = [_text(one, where) for one in (value if isinstance(value, list) else [value])]
    else:
        text = _text(value, where)
    try:
        parameter.process_value(ctx, text)
    except click.BadParameter as error:
        raise UserError(f"{where}: {error.message}") from error
    return text


def _text(value: Any, where: str) -> Any:
    """What the flag's own callback takes: lists are joined by commas."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and all(_is_plain(one) for one in value):
        return ",".join(map(str, value))
    if not _is_plain(value):
        raise UserError(f"{where}: expected a value or a list of values, got {value!r}")
    return str(value)


def _with_budgets(palettes: str, budgets: Sequence[Any]) -> str:
    found = []
    for palette in palettes.split(","):
        is_mixed = "+" in palette and "@" not in palette
        found += [f"{palette.strip()}@{budget}" for budget in budgets] if is_mixed else [palette]
    return ",".join(found)
