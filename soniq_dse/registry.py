"""(kind, name) -> unit. The file name is the key: a new unit is one new file in its package, and nothing else.

A unit module holds exactly one public subclass of its package's ``Base``. Code outside the tree comes in through the
entry point group ``soniq_dse.<kind>`` or ad hoc as ``package.module:Name``. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
from typing import Any

from soniq_dse.errors import UserError, one_line, unknown_name

PACKAGES = {
    "format": "soniq_dse.formats",
    "quantizer": "soniq_dse.quantizers",
    "allocator": "soniq_dse.qat.allocators",
    "model": "soniq_dse.workloads.models",
    "dataset": "soniq_dse.workloads.datasets",
    "search": "soniq_dse.search",
    "cost": "soniq_dse.cost",
    "panel": "soniq_dse.report.panels",
    "export": "soniq_dse.export",
}
"""Kind of unit -> the package whose files are its units."""


def names(kind: str) -> tuple[str, ...]:
    """Names of all units of ``kind``, sorted: files of the package (less its ``HELPERS``), then entry points."""
    package = importlib.import_module(PACKAGES[kind])
    helpers: frozenset[str] = getattr(package, "HELPERS", frozenset())
    found = {m.name for m in pkgutil.iter_modules(package.__path__) if m.name not in helpers and m.name[0] != "_"}
    return tuple(sorted(found | {point.name for point in _entry_points(kind)}))


def load(kind: str, name: str) -> Any:
    """The unit class ``name`` of ``kind``; ``package.module:Name`` loads code outside the tree.

    Raises:
        UserError: there is no such unit, or its module does not hold one.
    """
    package = importlib.import_module(PACKAGES[kind])
    base = package.Base
    if ":" in name:
        return _checked(kind, name, load_object(name), base)
    for point in _entry_points(kind):
        if point.name == name:
            return _checked(kind, name, point.load(), base)
    if name not in names(kind):
        raise unknown_name(kind, name, names(kind))
    module = importlib.import_module(f"{package.__name__}.{name}")
    units = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(units) != 1:
        expected = f"expected one class deriving from {base.__qualname__} in {module.__file__}"
        raise UserError(f"{kind} {name}: {expected}, got {len(units)}")
    return units[0]


def load_object(path: str) -> Any:
    """What ``package.module:Name`` names, looked up in the current folder too.

    Raises:
        UserError: the module or the name is not there, or importing it failed.
    """
    import os
    import sys

    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise UserError(f"expected package.module:Name, got {path!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # any failure of the user's own module is the user's to see, in one line
        raise UserError(f"{path}: importing {module_name} failed: {one_line(error)}") from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise unknown_name(f"{path}: attribute of {module_name}", attribute, public)
    return getattr(module, attribute)


@functools.cache  # reads the metadata of every installed distribution
def _entry_points(kind: str) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=f"soniq_dse.{kind}")


def _checked(kind: str, name: str, unit: Any, base: type) -> Any:
    if not (inspect.isclass(unit) and issubclass(unit, base)):
        expected = f"expected a class deriving from {base.__module__}.{base.__qualname__}"
        raise UserError(f"{kind} {name}: {expected}, got {unit!r}")
    return unit
