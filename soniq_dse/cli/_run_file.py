"""A run file: the flags of ``explore`` as YAML, and the lists that multiply them into several runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from soniq_dse.errors import UserError, nearest

LISTS = ("machines", "allocators")
"""Keys whose values make a run each; the flags ``--hw`` and ``--allocator`` stand for one."""
BUDGETS = "budgets"
"""Bits per weight, for every palette of several levels that names no budget."""
FORBIDDEN = ("run-file", "dry-run", "json", "fresh", "hw", "allocator")


@dataclass(frozen=True)
class RunFile:
    """``defaults`` of the command's parameters, by their names; ``machines`` and ``allocators`` to be run (empty: the
    defaults). ``name`` is the file's."""

    name: str
    defaults: dict[str, Any]
    machines: tuple[str, ...]
    allocators: tuple[str, ...]


def read(path: Path, parameters: Sequence[click.Parameter]) -> RunFile:
    """The run file at ``path`` for a command with ``parameters``.

    Raises:
        UserError: it cannot be read, is no YAML, or has a key or a value that means nothing, with its line.
    """
    tree = _tree(path)
    of_key = {
        option.lstrip("-"): parameter
        for parameter in parameters
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
        else:
            text = _text(value, where)
            parameter = of_key[key]
            defaults[str(parameter.name)] = text.split(",") if getattr(parameter, "multiple", False) else text
    if BUDGETS in tree:
        if "palettes" not in defaults:
            raise UserError(f"{path} {BUDGETS}: expected palettes beside it, got none")
        defaults["palettes"] = _with_budgets(defaults["palettes"], tree[BUDGETS])
    lists = {name: tuple(map(str, tree.get(name, ()))) for name in LISTS}
    return RunFile(path.stem, defaults, lists["machines"], lists["allocators"])


def multiplied(asked: Mapping[str, Any], run_file: RunFile | None, given: Collection[str]) -> Iterator[dict[str, Any]]:
    """The options of every run: ``asked`` for each machine and allocator, unless their flag is ``given``.

    Several runs have a folder each, named after both, and share a store.
    """
    machines = () if run_file is None or "hw" in given else run_file.machines
    allocators = () if run_file is None or "allocator" in given else run_file.allocators
    pairs = [(hw, allocator) for hw in machines or (asked["hw"],) for allocator in allocators or (asked["allocator"],)]
    if len(pairs) == 1:
        yield {**asked, "hw": pairs[0][0], "allocator": pairs[0][1]}
        return
    assert run_file is not None
    root = asked["out"] or Path("reports") / "runs" / run_file.name
    for hw, allocator in pairs:
        name = "-".join([Path(hw).stem] * bool(machines) + [allocator] * bool(allocators))
        out = root / name if asked["out"] else root.with_name(f"{root.name}-{name}")
        store = asked["store"] or (root / "store" if asked["out"] else root.with_name(f"{root.name}-store"))
        yield {**asked, "hw": hw, "allocator": allocator, "out": out, "store": store}


def _tree(path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        tree = YAML().load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"run file {path}: expected to read it, got: {error.strerror}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"run file {path}: expected YAML text, got {' '.join(str(error).split())[:300]}") from error
    if not isinstance(tree, Mapping):
        raise UserError(f"run file {path}: expected flags like 'model: digits_cnn', got {type(tree).__name__}")
    return tree


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


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
